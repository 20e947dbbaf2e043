"""Both engines for the same tests, and records to put into them."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from agentfarm.events import RequestRecord
from agentfarm.store import (
    GPUSampleRecord,
    HostSampleRecord,
    MemoryRecord,
    RunRecord,
    SampleRecord,
    Store,
    WorkflowRecord,
    WorkflowStepRecord,
)

DEADLINE_S = 30.0


def _as_postgres(*command):
    """Run a server command as a user that the server accepts: never root."""
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*prefix, *map(str, command)], check=True, capture_output=True, cwd="/"
    )


@pytest.fixture(scope="session")
def postgres_server():
    """URL of a PostgreSQL server: the given one, or a private one; else None."""
    if given := os.environ.get("AGENTFARM_TEST_POSTGRES"):
        yield given
        return
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        yield None
        return
    programs = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="agentfarm-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    data = folder / "data"
    control = [programs / "pg_ctl", "-D", data, "-w"]
    # Speed over safety, a socket in place of a port, and room for many clients.
    options = f"-F -c listen_addresses= -c unix_socket_directories={folder}"
    try:
        _as_postgres(
            programs / "initdb",
            *("-D", data, "-U", "agentfarm", "-A", "trust", "-E", "UTF8", "--no-sync"),
        )
        _as_postgres(*control, "-l", folder / "log", "-o", options, "start")
        yield f"postgresql+psycopg://agentfarm@/postgres?host={folder}"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            _as_postgres(*control, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server, require):
    """An empty schema of the server, as the only place that is seen."""
    if postgres_server is None:
        require("PostgreSQL", "apt-get install postgresql")
    from sqlalchemy import NullPool, create_engine, text
    from sqlalchemy.engine import make_url

    schema = f"test_{os.getpid()}_{time.time_ns()}"
    engine = create_engine(postgres_server, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    url = make_url(postgres_server)
    url = url.update_query_dict({"options": f"-csearch_path={schema}"})
    yield url.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request):
    """An empty database, of either engine in turn."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def store(url):
    with Store.open(url) as store:
        yield store


@pytest.fixture
def locked():
    """A context in which somebody else keeps all writers of a database out."""

    @contextlib.contextmanager
    def lock(url):
        if url.startswith("sqlite"):
            path = url.removeprefix("sqlite:///")
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
                yield
                db.execute("ROLLBACK")
            return
        from sqlalchemy import NullPool, create_engine, text

        with create_engine(url, poolclass=NullPool).begin() as connection:
            tables = "requests, runs, samples, workflows, workflow_steps, memories"
            hardware = "gpu_samples, host_samples"
            connection.execute(text(f"LOCK {tables}, {hardware} IN EXCLUSIVE MODE"))
            yield

    return lock


@pytest.fixture
def until():
    """Wait for a condition, with a deadline."""

    def wait(condition, what):
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"timed out: {what}"
            time.sleep(0.01)

    return wait


@pytest.fixture
def python():
    """Start Python on a script, with lines to read; killed at the end at latest."""
    started = []

    def start(script, *arguments, **options):
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=options.pop("stderr", None),
            text=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def a_run():
    def make(run_id="run-1", **fields):
        values = {
            "suite": "smoke",
            "suite_hash": "abc",
            "model": "embedded",
            "status": "completed",
            "started_at": 1_700_000_000.0,
            "planned_samples": 20,
            "epochs": 1,
            "concurrency": 2,
        }
        return RunRecord(run_id=run_id, **(values | fields))

    return make


@pytest.fixture
def a_sample():
    def make(sample_id="run-1-sum-1", **fields):
        values = {
            "run_id": "run-1",
            "task": "sum",
            "epoch": 1,
            "status": "ok",
            "score": 1.0,
            "input": "2 + 2",
            "target": "4",
            "output": "4",
            "scorer": "exact",
            "started_at": 1_700_000_000.0,
            "finished_at": 1_700_000_001.0,
        }
        return SampleRecord(sample_id=sample_id, **(values | fields))

    return make


@pytest.fixture
def a_request():
    def make(request_id="request-1", **fields):
        values = {
            "model": "embedded",
            "provider": "embedded",
            "host": "http://127.0.0.1:1",
            "started_at": 1_700_000_000.0,
            "status": "ok",
            "latency_s": 0.25,
        }
        return RequestRecord(request_id=request_id, **(values | fields))

    return make


@pytest.fixture
def a_workflow():
    def make(run_id="run-1", **fields):
        values = {
            "task": "Write a prime function.",
            "workspace": "/home/someone/work",
            "model": "embedded",
            "status": "completed",
            "started_at": 1_700_000_000.0,
        }
        return WorkflowRecord(run_id=run_id, **(values | fields))

    return make


@pytest.fixture
def a_step():
    def make(key="plan", **fields):
        values = {
            "run_id": "run-1",
            "seq": 1,
            "agent": "planner",
            "status": "ok",
            "started_at": 1_700_000_000.0,
            "finished_at": 1_700_000_001.0,
        }
        return WorkflowStepRecord(key=key, **(values | fields))

    return make


@pytest.fixture
def a_memory():
    def make(memory_id="memory-1", **fields):
        values = {
            "project": "shop",
            "kind": "note",
            "text": "Prices are in cents.",
            "created_at": 1_700_000_000.0,
        }
        return MemoryRecord(memory_id=memory_id, **(values | fields))

    return make


@pytest.fixture
def a_gpu_sample():
    def make(timestamp=1_700_000_000.0, **fields):
        values = {
            "step_s": 0,
            "hostname": "lab",
            "uuid": "GPU-1",
            "gpu_index": 0,
            "vendor": "nvidia",
            "source": "nvml",
        }
        return GPUSampleRecord(timestamp=timestamp, **(values | fields))

    return make


@pytest.fixture
def a_host_sample():
    def make(timestamp=1_700_000_000.0, **fields):
        values = {"step_s": 0, "hostname": "lab"}
        return HostSampleRecord(timestamp=timestamp, **(values | fields))

    return make
