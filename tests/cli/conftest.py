"""The command line as people use it: in a process of its own, against a real server."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentfarm.llm.testing import StubServer


@dataclass
class Finished:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


COMMAND = (sys.executable, "-m", "agentfarm")


@dataclass
class CommandLine:
    cwd: Path
    columns: int = 300
    """Wide enough that no table folds what a test looks for."""

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "COLUMNS": str(self.columns), "NO_COLOR": "1"}

    async def __call__(self, *arguments: str) -> Finished:
        done = await anyio.run_process(
            [*COMMAND, *arguments], check=False, cwd=self.cwd, env=self.env
        )
        return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.cwd,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@pytest.fixture
def cli(tmp_path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
async def stub() -> AsyncIterator[StubServer]:
    """Answers "say 3" with "3"."""

    def say(request) -> str:
        return request.body["messages"][-1]["content"].split()[-1]

    async with StubServer(respond=say) as server:
        yield server


@pytest.fixture
async def registered(cli, stub) -> str:
    """A model `stub` that `models add` registered."""
    done = await cli("models", "add", "stub", "--provider", "openai", "--url", stub.url)
    assert done.code == 0, done.err
    return "stub"


@pytest.fixture
def suite(tmp_path) -> str:
    """A suite file of six tasks; the last expects something else."""
    lines = ['name = "say"', 'scorer = "exact"']
    for n in range(1, 7):
        target = n if n < 6 else "six"
        lines += ["[[tasks]]", f'id = "t{n}"', f'prompt = "say {n}"']
        lines += [f'target = "{target}"']
    path = tmp_path / "say.toml"
    path.write_text("\n".join(lines))
    return str(path)
