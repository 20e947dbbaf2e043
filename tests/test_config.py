"""Settings: their order, their errors, and what they keep to themselves."""

import pytest
from pydantic import ValidationError

from agentfarm.config import load_settings
from agentfarm.errors import ConfigError


def test_an_argument_beats_the_environment_and_that_beats_the_files(
    monkeypatch, tmp_path
):
    home = tmp_path / "home"
    home.mkdir()
    (home / "agentfarm.toml").write_text(
        'default_model = "from-home"\ntracker_window = 7\nlocal_only = false\n'
    )
    (tmp_path / "agentfarm.toml").write_text(
        'default_model = "from-folder"\ntracker_window = 8\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTFARM_HOME", str(home))

    settings = load_settings()
    assert settings.default_model == "from-folder"
    assert settings.tracker_window == 8
    assert settings.local_only is False

    monkeypatch.setenv("AGENTFARM_DEFAULT_MODEL", "from-environment")
    assert load_settings().default_model == "from-environment"
    assert load_settings(default_model="given").default_model == "given"


def test_nested_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("AGENTFARM_TIMEOUTS__FIRST_TOKEN_S", "17")
    settings = load_settings()
    assert settings.timeouts.first_token_s == 17
    assert settings.timeouts.connect_s == 5


def test_a_bad_value_is_named_without_being_shown(monkeypatch):
    monkeypatch.setenv("AGENTFARM_TRACKER_WINDOW", "hunter2")
    with pytest.raises(ConfigError, match="tracker_window") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
    assert "AGENTFARM_*" in str(caught.value)


def test_broken_toml_is_a_clear_error(monkeypatch, tmp_path):
    (tmp_path / "agentfarm.toml").write_text("models = [")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_settings()


def test_an_unknown_key_in_the_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "agentfarm.toml").write_text('defualt_model = "x"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="defualt_model"):
        load_settings()


def test_settings_are_frozen(settings):
    with pytest.raises(ValidationError):
        settings.default_model = "other"


def test_the_store_lives_in_home_unless_a_url_says_otherwise(settings):
    assert settings.store_url == f"sqlite:///{settings.home}/agentfarm.db"
    other = load_settings(home=settings.home, database_url="sqlite:///elsewhere.db")
    assert other.store_url == "sqlite:///elsewhere.db"


def test_an_api_key_is_read_when_needed_and_never_shown(settings, monkeypatch):
    with pytest.raises(ConfigError, match="FARM_TEST_KEY"):
        settings.api_key("FARM_TEST_KEY")
    monkeypatch.setenv("FARM_TEST_KEY", "s3cret")
    key = settings.api_key("FARM_TEST_KEY")
    assert key.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(key)


def test_a_password_in_a_url_is_not_shown(settings):
    url = "postgresql+psycopg://farm:s3cret@db.lan/farm"
    model = {"name": "m", "provider": "openai", "url": "http://u:s3cret@box.lan"}
    settings = load_settings(home=settings.home, database_url=url, models=[model])
    assert "s3cret" not in repr(settings)
    assert settings.database_url == url
