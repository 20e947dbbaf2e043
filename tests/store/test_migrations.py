"""Databases that older versions made, brought to today's shape."""

from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect, text

from agentfarm.errors import StoreError
from agentfarm.events import RequestRecord
from agentfarm.store import (
    RunRecord,
    SampleRecord,
    Store,
)

FOLDER = Path(__file__).parent
# The tables that came with each version after the first.
ADDED = {
    2: {"workflows", "workflow_steps", "memories"},
    3: {"gpu_samples", "host_samples"},
}

ROWS = [
    """INSERT INTO runs VALUES ('old', 'smoke', 'abc', 'embedded', 'completed',
        1700000000.5, 1, 1, 2, NULL, '{"seed": 7}', NULL, NULL, NULL, '0.1.0', NULL)""",
    """INSERT INTO samples (sample_id, run_id, task, epoch, status, score, input,
        target, output, scorer, started_at, finished_at, explanation,
        tokens_estimated, context_truncated, attempts, metadata) VALUES
        ('old-sum-1', 'old', 'sum', 1, 'ok', 0.5, 'i', 't', 'o', 'exact',
        1700000000.0, 1700000001.0, '', FALSE, FALSE, 1, '{}')""",
    """INSERT INTO requests (request_id, model, provider, host, started_at, status,
        latency_s, task_type, tokens_estimated, queue_s, chunks, attempts,
        context_truncated) VALUES
        ('q', 'm', 'p', 'h', 1700000000.0, 'ok', 0.25, 'general', FALSE, 0, 3, 1,
        FALSE)""",
]


def execute(url, statements):
    with create_engine(url, poolclass=NullPool).begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.fixture(params=[1, 2])
def version(request):
    return request.param


@pytest.fixture
def old(url, version):
    """The database as the AgentFarm left it that knew no later version."""
    script = (FOLDER / f"version_{version}.sql").read_text()
    if url.startswith("sqlite"):
        script = script.replace("DOUBLE PRECISION", "DOUBLE")
    stamp = f"INSERT INTO meta VALUES ({version})"  # noqa: S608 - a number of ours
    execute(url, [*filter(str.strip, script.split(";")), stamp, *ROWS])
    return url


def shape(url):
    """Every table: its columns, its key and its indexes."""
    seen = inspect(create_engine(url, poolclass=NullPool))
    return {
        name: (
            [
                (column["name"], str(column["type"]), column["nullable"])
                for column in seen.get_columns(name)
            ],
            seen.get_pk_constraint(name)["constrained_columns"],
            sorted(
                (index["name"], tuple(index["column_names"]))
                for index in seen.get_indexes(name)
            ),
        )
        for name in seen.get_table_names()
    }


def empty(url, tmp_path):
    """Where another database of the same engine can be made."""
    if url.startswith("sqlite"):
        return f"sqlite:///{tmp_path / 'new.db'}"
    execute(url, ["DROP TABLE IF EXISTS " + name for name in shape(url)])
    return url


def statements(url):
    """How SQLite was told to make each table, which `shape` does not show wholly."""
    if not url.startswith("sqlite"):
        return set()
    with create_engine(url, poolclass=NullPool).connect() as connection:
        made = connection.execute(
            text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
        )
        return {" ".join(sql.split()) for (sql,) in made}


def test_an_old_version_becomes_what_is_made_today(old, version, tmp_path):
    before = shape(old)
    Store.open(old).close()
    migrated, made = shape(old), statements(old)
    later = [ADDED[each] for each in ADDED if each > version]
    assert migrated.keys() - before.keys() == set().union(*later)
    new = empty(old, tmp_path)
    Store.open(new).close()
    assert migrated == shape(new)
    assert made == statements(new)


def test_an_old_version_keeps_its_rows_and_takes_new_ones(
    old, a_workflow, a_step, a_memory, a_gpu_sample, a_host_sample
):
    with pytest.raises(StoreError, match="Open it once for writing"):
        Store.open(old, read_only=True)
    with Store.open(old) as store:
        store.put_workflow(a_workflow())
        store.put_workflow_step(a_step())
        store.add_memory(a_memory())
        store.add_gpu_sample(a_gpu_sample())
        store.add_host_sample(a_host_sample())
    with Store.open(old, read_only=True) as store:
        assert store.runs() == [
            RunRecord(
                run_id="old",
                suite="smoke",
                suite_hash="abc",
                model="embedded",
                status="completed",
                started_at=1700000000.5,
                planned_samples=1,
                epochs=1,
                concurrency=2,
                config={"seed": 7},
                version="0.1.0",
            )
        ]
        (sample,) = store.samples("old")
        assert isinstance(sample, SampleRecord)
        assert (sample.score, sample.tokens_estimated) == (0.5, False)
        (request,) = store.requests()
        assert isinstance(request, RequestRecord)
        assert (request.latency_s, request.chunks) == (0.25, 3)
        assert store.workflow("latest") == a_workflow()
        assert store.workflow_steps("run-1") == [a_step()]
        assert store.memories("shop") == [a_memory()]
        assert store.gpu_samples() == [a_gpu_sample()]
        assert store.host_samples() == [a_host_sample()]


def test_a_table_of_somebody_else_stops_the_migration(old, version):
    name = sorted(ADDED[version + 1])[0]
    execute(old, [f"CREATE TABLE {name} (mine INTEGER)"])
    before = shape(old)
    with pytest.raises(StoreError, match=rf"Cannot open the Store at .*{name}"):
        Store.open(old)
    assert shape(old) == before
