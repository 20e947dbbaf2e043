"""`agentfarm gpu`, with the hardware of this machine and with a tool of our own."""

import json
import os
import select
import signal
from pathlib import Path

import psutil
import pytest

SOURCES = {"nvml", "nvidia-smi", "amdgpu", "amd-smi", "rocm-smi"}


@pytest.fixture
def tools(tmp_path, monkeypatch) -> Path:
    """A folder in front of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def add(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


CARD = """[{"gpu": 0, "power": {"socket_power": {"value": 251, "unit": "W"}}}]"""


def amd(gpus: list[dict]) -> list[dict]:
    return [gpu for gpu in gpus if gpu["vendor"] == "amd"]


async def test_it_shows_the_gpus_or_why_there_is_none(cli):
    done = await cli("gpu", "--json")
    assert done.code == 0, done.err
    found = done.json
    if not found["gpus"]:
        assert found["reason"] == "No GPU found"
        assert set(found["tried"]) == SOURCES
        text = (await cli("gpu")).out
        assert "No GPU found" in text
        assert "nvml: " in text


async def test_a_tool_on_the_path_is_found_and_read(cli, tools):
    add(tools, "amd-smi", f"echo 'WARNING: groups'; echo '{CARD}'")
    done = await cli("gpu", "--json")
    (card, *_) = amd(done.json["gpus"])
    if card["source"] == "amd-smi":  # else this machine has an AMD card itself
        assert card["power_w"] == 251
        assert card["temperature_c"] is None
        assert "251 W" in (await cli("gpu")).out


@pytest.mark.parametrize("options", [("--json",), ()])
def test_watching_goes_on_until_ctrl_c(options, cli, tools):
    add(tools, "amd-smi", f"echo '{CARD}'")
    with cli.start("gpu", "--watch", "--interval", "0.05", *options) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert b"Traceback" not in err
    if options:
        stamps = [json.loads(line)["timestamp"] for line in lines]
        assert stamps == sorted(set(stamps))


def test_ctrl_c_ends_a_hanging_tool_too(cli, tools):
    ready = tools / "ready"
    os.mkfifo(ready)
    add(tools, "nvidia-smi", f'echo $$ > "{ready}"\nexec /bin/sleep 600')
    add(tools, "amd-smi", f'echo $$ > "{ready}"\nexec /bin/sleep 600')
    with cli.start("gpu") as process:
        end = os.open(ready, os.O_RDWR)  # waits for no writer
        assert select.select([end], [], [], 60)[0], "no tool was started"
        tool = psutil.Process(int(os.read(end, 4096).split()[0]))
        os.close(end)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    gone, _ = psutil.wait_procs([tool], timeout=10)
    assert gone or tool.status() == psutil.STATUS_ZOMBIE


def test_a_reader_that_goes_away_is_no_error(cli):
    process = cli.start("gpu", "--watch", "--interval", "0.05", "--json")
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert b"Traceback" not in err


async def test_the_doctor_names_the_gpu_or_what_was_asked(cli):
    rows = {row["part"]: row for row in (await cli("doctor", "--json")).json}
    gpu = rows["GPU"]
    assert gpu["state"] in {"ok", "optional", "warning"}
    if gpu["state"] == "optional":
        assert all(source in gpu["detail"] for source in SOURCES)


async def test_an_interval_must_be_sensible(cli):
    done = await cli("gpu", "--watch", "--interval", "0")
    assert done.code == 2
    assert "--interval" in done.err
