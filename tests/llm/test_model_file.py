"""Models that people register in agentfarm.toml."""

import pytest

from agentfarm.config import load_settings
from agentfarm.errors import ConfigError
from agentfarm.llm import add_model, remove_model

ENTRY = {"name": "box", "provider": "ollama", "url": "http://127.0.0.1:11434"}


def test_an_added_model_is_there_after_the_next_load(settings):
    add_model(settings, {**ENTRY, "capabilities": ["tools"], "context_length": 8192})
    (model,) = load_settings(home=settings.home).models
    assert (model.name, model.provider, model.context_length) == ("box", "ollama", 8192)
    assert model.capabilities == {"tools"}


def test_the_rest_of_the_file_is_kept(settings):
    settings.home.mkdir()
    settings.config_path.write_text('# mine\ndefault_model = "box"  # the big one\n')
    add_model(settings, ENTRY)
    add_model(load_settings(home=settings.home), {**ENTRY, "name": "box2"})
    remove_model(settings, "box")
    text = settings.config_path.read_text()
    assert text.startswith('# mine\ndefault_model = "box"  # the big one\n')
    assert [m.name for m in load_settings(home=settings.home).models] == ["box2"]


def test_two_hosts_may_serve_one_name_but_not_twice_the_same(settings):
    add_model(settings, ENTRY)
    settings = load_settings(home=settings.home)
    add_model(settings, {**ENTRY, "url": "http://192.168.0.9:11434"})
    with pytest.raises(ConfigError, match="is registered"):
        add_model(settings, ENTRY)
    assert len(load_settings(home=settings.home).models) == 2


def test_the_last_model_can_be_removed(settings):
    add_model(settings, ENTRY)
    remove_model(settings, "box")
    assert load_settings(home=settings.home).models == ()
    with pytest.raises(ConfigError, match="has no model box"):
        remove_model(settings, "box")


def test_a_bad_entry_is_refused_and_nothing_is_written(settings):
    with pytest.raises(ConfigError, match="provider"):
        add_model(settings, {**ENTRY, "provider": "telepathy"})
    assert not settings.config_path.exists()


def test_a_broken_file_is_named_and_left_alone(settings):
    settings.home.mkdir()
    settings.config_path.write_text("[[models")
    with pytest.raises(ConfigError, match="cannot be read"):
        add_model(settings, ENTRY)
    assert settings.config_path.read_text() == "[[models"


def test_the_names_of_our_own_models_are_not_given_away(settings):
    with pytest.raises(ConfigError, match="means AgentFarm's own embedded model"):
        add_model(settings, {**ENTRY, "name": "embedded"})
    add_model(settings, {"name": "embedded", "provider": "embedded", "gguf": "/m.gguf"})
    assert load_settings(home=settings.home).models[0].name == "embedded"


def test_a_home_that_cannot_be_made_is_a_clear_error(settings, tmp_path):
    (tmp_path / "file").touch()
    bad = settings.model_copy(update={"home": tmp_path / "file" / "home"})
    with pytest.raises(ConfigError, match="cannot be") as caught:
        add_model(bad, ENTRY)
    assert "AGENTFARM_HOME" in str(caught.value)
