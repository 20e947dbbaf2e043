"""A PostgreSQL server that is not there, or goes away."""

import socket
import sys

import pytest
from sqlalchemy import NullPool, create_engine, text

from agentfarm.errors import StoreError
from agentfarm.store import Store


@pytest.fixture
def closed_port():
    """A port of this machine on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("read_only", [False, True])
def test_an_unreachable_server(closed_port, read_only):
    with pytest.raises(StoreError) as info:
        Store.open(
            f"postgresql+psycopg://me:hunter2@127.0.0.1:{closed_port}/lab",
            read_only=read_only,
        )
    message = str(info.value)
    assert "hunter2" not in message
    assert f"postgresql+psycopg://me:***@127.0.0.1:{closed_port}/lab" in message
    assert "refused" in message
    assert "Check that the server runs" in message


def test_a_password_in_the_query_is_hidden_too(closed_port):
    with pytest.raises(StoreError) as info:
        Store.open(f"postgresql://127.0.0.1:{closed_port}/lab?user=me&password=hunter2")
    assert "hunter2" not in str(info.value)
    assert "user=me" in str(info.value)


def test_psycopg_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match="needs psycopg") as info:
        Store.open("postgresql+psycopg://me:hunter2@127.0.0.1/lab")
    assert "agentfarm[distributed]" in str(info.value)
    assert "hunter2" not in str(info.value)


@pytest.mark.postgres
def test_an_unknown_database(postgres_url):
    from sqlalchemy.engine import make_url

    url = make_url(postgres_url).set(database="nowhere", password="hunter2")
    with pytest.raises(StoreError, match="nowhere") as info:
        Store.open(url.render_as_string(hide_password=False))
    assert "hunter2" not in str(info.value)


@pytest.mark.postgres
def test_the_password_is_in_no_repr(postgres_url):
    from sqlalchemy.engine import make_url

    url = make_url(postgres_url)
    if url.password is None:  # a trusting server ignores it
        url = url.set(password="hunter2")
    with Store.open(url.render_as_string(hide_password=False)) as store:
        assert str(url.password) not in repr(store) + store.url
        assert "***" in repr(store)


@pytest.mark.postgres
def test_a_lost_connection_costs_nothing(postgres_url, a_sample, a_request):
    """As a restart of the server does it, all connections are cut."""
    with Store.open(postgres_url, flush_s=600) as store:
        store.put_sample(a_sample("s1"))
        store.add_request(a_request())
        engine = create_engine(postgres_url, poolclass=NullPool)
        with engine.begin() as connection:
            cut = connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE application_name = 'agentfarm'"
                )
            ).all()
        assert (True,) in cut
        store.put_sample(a_sample("s2"))
        assert [sample.sample_id for sample in store.samples("run-1")] == ["s1", "s2"]
        assert store.requests() == [a_request()]
        assert store.dropped_requests == 0


@pytest.mark.postgres
def test_other_tables_in_the_database_are_no_hindrance(postgres_url, a_run):
    engine = create_engine(postgres_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE colleagues (name TEXT)"))
    with Store.open(postgres_url) as store:
        store.put_run(a_run())
        assert store.runs() == [a_run()]


@pytest.mark.postgres
def test_a_role_that_may_not_create_tables(postgres_url):
    engine = create_engine(postgres_url, poolclass=NullPool)
    role = "reader_of_the_store_tests"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
        schema = connection.scalar(text("SELECT current_schema()"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO {role}"))
    try:
        from sqlalchemy.engine import make_url

        options = f"-csearch_path={schema} -crole={role}"
        url = make_url(postgres_url).update_query_dict({"options": options})
        with pytest.raises(StoreError, match="permission denied") as info:
            Store.open(url.render_as_string(hide_password=False))
        assert "what this user may do" in str(info.value)
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
