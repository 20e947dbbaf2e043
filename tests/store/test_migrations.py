"""Databases that older versions made, brought to today's shape."""

from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect, text

from agentfarm.errors import StoreError
from agentfarm.events import RequestRecord
from agentfarm.store import RunRecord, SampleRecord, Store

VERSION_1 = Path(__file__).with_name("version_1.sql")

ROWS = [
    "INSERT INTO meta VALUES (1)",
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


@pytest.fixture
def version_1(url):
    """The database as the AgentFarm left it that knew version 1 only."""
    script = VERSION_1.read_text()
    if url.startswith("sqlite"):
        script = script.replace("DOUBLE PRECISION", "DOUBLE")
    execute(url, [*filter(str.strip, script.split(";")), *ROWS])
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


def test_version_1_becomes_what_is_made_today(version_1, tmp_path):
    before = shape(version_1)
    Store.open(version_1).close()
    migrated = shape(version_1)
    assert migrated.keys() - before.keys() == {
        "workflows",
        "workflow_steps",
        "memories",
    }
    new = empty(version_1, tmp_path)
    Store.open(new).close()
    assert migrated == shape(new)


def test_version_1_keeps_its_rows_and_takes_new_ones(
    version_1, a_workflow, a_step, a_memory
):
    with pytest.raises(StoreError, match="Open it once for writing"):
        Store.open(version_1, read_only=True)
    with Store.open(version_1) as store:
        store.put_workflow(a_workflow())
        store.put_workflow_step(a_step())
        store.add_memory(a_memory())
    with Store.open(version_1, read_only=True) as store:
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


def test_a_table_of_somebody_else_stops_the_migration(version_1):
    execute(version_1, ["CREATE TABLE memories (mine INTEGER)"])
    before = shape(version_1)
    with pytest.raises(StoreError, match=r"Cannot open the Store at .*memories"):
        Store.open(version_1)
    assert shape(version_1) == before
