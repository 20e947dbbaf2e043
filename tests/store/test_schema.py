"""Creation, migration and refusal, on both engines."""

import threading

import pytest
from sqlalchemy import NullPool, create_engine, inspect, text

from agentfarm.errors import StoreError
from agentfarm.store import Store
from agentfarm.store._schema import MIGRATIONS, prepare
from agentfarm.store._urls import database_at

NEWEST = 1 + len(MIGRATIONS)


def execute(url, *statements):
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def version(url):
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return connection.execute(text("SELECT schema_version FROM meta")).all()


def columns(url, table="samples"):
    engine = create_engine(url, poolclass=NullPool)
    return {column["name"] for column in inspect(engine).get_columns(table)}


def upgrade(url, *more):
    """Open as an AgentFarm would that knows further migrations."""
    database = database_at(url)
    try:
        prepare(database, read_only=False, wait_s=5.0, migrations=[*MIGRATIONS, *more])
    finally:
        database.close()


def add_judge(connection):
    connection.execute(text("ALTER TABLE samples ADD COLUMN judge TEXT"))
    connection.execute(text("UPDATE samples SET judge = 'nobody'"))


def add_power(connection):
    connection.execute(text("ALTER TABLE samples ADD COLUMN power_w FLOAT"))


def test_a_new_store_has_the_newest_version(url):
    Store.open(url).close()
    assert version(url) == [(NEWEST,)]


def test_opening_again_keeps_everything(url, a_run):
    with Store.open(url) as store:
        store.put_run(a_run())
    with Store.open(url) as store:
        assert store.runs() == [a_run()]
    assert version(url) == [(NEWEST,)]


def test_an_older_store_is_brought_forward_step_by_step(url, a_sample):
    with Store.open(url) as store:
        store.put_sample(a_sample())
    upgrade(url, add_judge)
    assert version(url) == [(NEWEST + 1,)]
    upgrade(url, add_judge, add_power)
    upgrade(url, add_judge, add_power)
    assert version(url) == [(NEWEST + 2,)]
    assert columns(url) >= {"judge", "power_w"}


def test_a_migration_keeps_the_rows(url, a_sample):
    with Store.open(url) as store:
        store.put_sample(a_sample())
    upgrade(url, add_judge, add_power)
    with create_engine(url, poolclass=NullPool).connect() as connection:
        rows = connection.execute(text("SELECT sample_id, judge, power_w FROM samples"))
        assert rows.all() == [(a_sample().sample_id, "nobody", None)]


def test_a_migration_that_fails_changes_nothing(url, a_sample):
    with Store.open(url) as store:
        store.put_sample(a_sample())

    def fail(connection):
        connection.execute(text("UPDATE samples SET output = 'changed'"))
        connection.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(StoreError, match=r"Cannot open the Store at .*nowhere"):
        upgrade(url, add_judge, fail)
    assert version(url) == [(NEWEST,)]
    assert "judge" not in columns(url)
    with Store.open(url) as store:
        assert store.samples("run-1") == [a_sample()]


def test_many_that_open_at_once_create_and_migrate_once(url, a_run):
    failures = []

    def at_once(call):
        barrier = threading.Barrier(6)

        def work():
            barrier.wait()
            try:
                call()
            except Exception as error:  # noqa: BLE001 - shown below
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    at_once(lambda: Store.open(url).close())
    at_once(lambda: upgrade(url, add_judge))
    assert failures == []
    assert version(url) == [(NEWEST + 1,)]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_store_is_refused_and_left_alone(url, read_only, a_run):
    with Store.open(url) as store:
        store.put_run(a_run())
    upgrade(url, add_judge)
    with pytest.raises(StoreError) as info:
        Store.open(url, read_only=read_only)
    message = str(info.value)
    assert f"has schema version {NEWEST + 1}" in message
    assert f"up to {NEWEST}" in message
    assert "Upgrade AgentFarm" in message
    assert version(url) == [(NEWEST + 1,)]


def test_an_older_store_is_not_migrated_by_a_reader(url):
    Store.open(url).close()
    database = database_at(url)
    with pytest.raises(StoreError, match="Open it once for writing"):
        prepare(
            database, read_only=True, wait_s=5.0, migrations=[*MIGRATIONS, add_judge]
        )
    database.close()
    assert version(url) == [(NEWEST,)]


@pytest.mark.parametrize(
    "foreign",
    [
        ["CREATE TABLE runs (mine INTEGER)"],
        ["CREATE TABLE meta (author TEXT)"],
        ["CREATE TABLE meta (schema_version INTEGER)"],
        [
            "CREATE TABLE meta (schema_version TEXT)",
            "INSERT INTO meta VALUES ('mine')",
        ],
    ],
)
def test_somebody_elses_tables_are_left_alone(url, foreign):
    execute(url, *foreign)
    with pytest.raises(StoreError, match="not an AgentFarm Store's"):
        Store.open(url)
    engine = create_engine(url, poolclass=NullPool)
    assert len(inspect(engine).get_table_names()) == 1
