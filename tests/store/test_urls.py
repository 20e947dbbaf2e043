"""The choice of the engine by URL."""

import pytest

from agentfarm.errors import StoreError
from agentfarm.store import Store


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///"])
def test_memory_is_no_place_for_a_store(url):
    with pytest.raises(StoreError, match="cannot be kept in memory"):
        Store.open(url)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://me:hunter2@host/lab", "no database for mysql:// URLs"),
        ("postgresql+asyncpg://me:hunter2@host/lab", "no database for postgresql"),
        ("store-hunter2.db", "is not a URL"),
        ("", "is not a URL"),
        ("postgresql://me:hunter2@host:port/lab", "cannot be understood"),
    ],
)
def test_other_urls_are_refused_without_repeating_a_secret(url, says):
    with pytest.raises(StoreError, match=says) as info:
        Store.open(url)
    assert "hunter2" not in str(info.value)
    assert "postgresql+psycopg://user:password@host" in str(info.value)
    assert info.value.__suppress_context__ or info.value.__context__ is None


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with Store.open("sqlite:///~/store.db") as store:
        assert store.url == f"sqlite:///{tmp_path}/store.db"
    assert (tmp_path / "store.db").exists()
