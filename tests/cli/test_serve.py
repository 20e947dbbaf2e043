"""`agentfarm serve` as people use it."""

import re
import signal
import socket
import stat

import anyio
import httpx
import pytest


@pytest.fixture
def start(cli):
    """Start a server and read what it says until it serves; it is ended afterwards."""
    begun = []

    async def start(*options: str) -> tuple[list[str], object]:
        process = cli.start("serve", "--port", "0", *options)
        begun.append(process)
        lines = []
        with anyio.fail_after(60):
            while not lines or "Ctrl-C" not in lines[-1]:
                line = await anyio.to_thread.run_sync(process.stdout.readline)
                assert line, process.stderr.read().decode()
                lines.append(line.decode().rstrip())
        return lines, process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


async def test_it_serves_this_machine_and_stops_when_told(start):
    for number in (signal.SIGINT, signal.SIGTERM):
        lines, process = await start()
        url = re.fullmatch(r"AgentFarm serves (http://127\.0\.0\.1:\d+/)", lines[0])[1]
        assert len(lines) == 2
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("healthz")).json() == {"status": "ok"}
            found = (await http.get("api/hardware")).json()
            assert "gpu" in found
            assert "AgentFarm" in (await http.get("")).text
        process.send_signal(number)
        with anyio.fail_after(30):
            rest = await anyio.to_thread.run_sync(process.communicate)
        assert process.returncode == 0, rest
        assert rest == (b"Stopped.\n", b"")


async def test_others_need_the_token_that_is_shown_once(start, tmp_path):
    tokens = tmp_path / "mine.json"
    lines, process = await start("--require-token", "--token-file", str(tokens))
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    link = lines[3].split()[-1]
    async with httpx.AsyncClient(follow_redirects=True) as http:
        assert (await http.get(link.split("?")[0])).status_code == 401
        page = await http.get(link)
        assert page.status_code == 200
        assert "token" not in str(page.url)
    process.send_signal(signal.SIGINT)
    _, err = await anyio.to_thread.run_sync(process.communicate)
    assert err == b""

    lines, _ = await start("--require-token", "--token-file", str(tokens))
    assert not [line for line in lines if "?token=" in line]
    assert str(tokens) in lines[1]


async def test_a_port_that_is_taken_is_a_clear_error(cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = await cli("serve", "--port", port)
    assert done.code == 1
    assert f"port {port}" in done.err
    assert "--port" in done.err
    assert "Traceback" not in done.err


async def test_an_address_that_is_not_here_is_a_clear_error(cli):
    done = await cli("serve", "--host", "192.0.2.1", "--port", "0")
    assert done.code == 1
    assert "192.0.2.1" in done.err
    assert "--host" in done.err
