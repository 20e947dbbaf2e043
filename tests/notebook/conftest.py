"""Frames as a run gives them, small enough to know every number."""

from __future__ import annotations

import pytest

from agentfarm.evals import EvalRun
from agentfarm.events import RequestRecord
from agentfarm.store import RunRecord, SampleRecord

START = 1_790_000_000.0  # 2026-09-21 13:33:20 UTC


def _run(run_id: str) -> RunRecord:
    return RunRecord(
        run_id=run_id,
        suite="smoke",
        suite_hash="0",
        model="tiny",
        status="completed",
        started_at=START,
        planned_samples=0,
        epochs=1,
        concurrency=1,
    )


@pytest.fixture
def samples():
    """Give dicts of what differs from a plain sample; get the samples frame."""

    def build(*rows: dict):
        records = []
        for index, row in enumerate(rows):
            plain = {
                "sample_id": f"s{index}",
                "run_id": "run-a",
                "task": f"task-{index}",
                "epoch": 1,
                "status": "ok" if row.get("score", 1.0) is not None else "error",
                "score": 1.0,
                "input": "2 + 2?",
                "target": "4",
                "output": "It is 4.",
                "scorer": "includes",
                "started_at": START + index,
                "finished_at": START + index + 0.5,
                "latency_s": 0.5,
                "ttft_s": 0.1,
            }
            records.append(SampleRecord(**(plain | row)))
        return EvalRun(run=_run("run-a"), samples=tuple(records)).samples_frame()

    return build


@pytest.fixture
def requests():
    """Give dicts of what differs from a plain request; get the requests frame."""

    def build(*rows: dict):
        records = []
        for index, row in enumerate(rows):
            plain = {
                "request_id": f"r{index}",
                "model": "tiny",
                "provider": "fake",
                "host": "http://127.0.0.1:1",
                "started_at": START + index,
                "status": "ok",
                "latency_s": 0.5,
                "ttft_s": 0.1,
                "input_tokens": 10,
                "output_tokens": 5,
                "output_tokens_per_s": 40.0,
            }
            records.append(RequestRecord(**(plain | row)))
        run = EvalRun(run=_run("run-a"), samples=(), requests=tuple(records))
        return run.requests_frame()

    return build
