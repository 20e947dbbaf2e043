"""GPUMonitor: which source speaks, what a failure costs, and who waits for whom."""

import subprocess
import sys
import threading
import time

import anyio
import pytest
from anyio import to_thread

from agentfarm.errors import AgentFarmError
from agentfarm.monitoring import GPUMonitor

ROCM_SMI = (
    '{"card0": {"Average Graphics Package Power (W)": "33.0", '
    '"PCI Bus": "0000:2D:00.0"}}'
)
NVIDIA_SMI = "index, uuid, power.draw [W]\n0, GPU-from-smi, 77.5\n"


async def test_without_hardware_there_is_one_value_that_says_what_was_tried(
    make_monitor, sysfs
):
    snapshot = await make_monitor().snapshot()
    assert snapshot.gpus == ()
    assert snapshot.reason == "No GPU found"
    assert snapshot.power_w is None
    assert dict(snapshot.tried) == {
        "nvml": "NVML says: Driver Not Loaded",
        "nvidia-smi": "not installed, or not on PATH",
        "amdgpu": f"no AMD card in {sysfs.root}",
        "amd-smi": "not installed, or not on PATH",
        "rocm-smi": "not installed, or not on PATH",
    }


async def test_on_this_machine_it_answers_whatever_there_is():
    with GPUMonitor() as monitor:
        snapshot = await monitor.snapshot()
    assert bool(snapshot.gpus) == (snapshot.reason == "")
    assert snapshot.gpus or len(snapshot.tried) == 5


async def test_both_vendors_are_read_each_through_its_best_source(
    make_monitor, sysfs, toolbox, amd_smi, nvml, card
):
    sysfs.card(0)
    amd_smi()
    toolbox.says("nvidia-smi", NVIDIA_SMI)
    monitor = make_monitor(nvml=nvml(card()).module())
    snapshot = await monitor.snapshot()
    assert [(gpu.vendor, gpu.source) for gpu in snapshot.gpus] == [
        ("nvidia", "nvml"),
        ("amd", "amdgpu"),
    ]
    assert snapshot.power_w == pytest.approx(281.5 + 207)
    assert snapshot.tried == ()
    assert toolbox.calls("amd-smi") == toolbox.calls("nvidia-smi") == []


async def test_each_source_takes_the_place_of_the_one_before(
    make_monitor, sysfs, toolbox, amd_smi, nvml, card
):
    toolbox.says("nvidia-smi", NVIDIA_SMI)
    toolbox.says("rocm-smi", ROCM_SMI)
    (nvidia, amd) = (await make_monitor().snapshot()).gpus
    assert (nvidia.source, nvidia.power_w) == ("nvidia-smi", 77.5)
    assert (amd.source, amd.power_w) == ("rocm-smi", 33)
    amd_smi()
    (_, amd) = (await make_monitor().snapshot()).gpus
    assert (amd.source, amd.power_w) == ("amd-smi", 251)
    sysfs.card(0)
    (_, amd) = (await make_monitor().snapshot()).gpus
    assert (amd.source, amd.power_w) == ("amdgpu", pytest.approx(207))
    monitor = make_monitor(nvml=nvml(card()).module())
    assert (await monitor.snapshot()).gpus[0].source == "nvml"


async def test_a_tool_that_fails_leaves_its_words_and_the_next_one_answers(
    make_monitor, toolbox
):
    toolbox.says("amd-smi", "Failed: driver version mismatch\n", code=18)
    toolbox.says("rocm-smi", f"WARNING: low power\n\n{ROCM_SMI}", code=2)
    snapshot = await make_monitor().snapshot()
    assert snapshot.gpus[0].source == "rocm-smi"
    tried = dict(snapshot.tried)
    assert tried["amd-smi"] == (
        "ended with status 18, saying: Failed: driver version mismatch"
    )
    assert "rocm-smi" not in tried


async def test_a_source_that_fails_is_asked_ever_more_seldom(make_monitor, clock, nvml):
    library = nvml()
    library.init_code = 9
    starts = []
    library.nvmlInitWithFlags = lambda flags: starts.append(clock.now_s) or 9
    monitor = make_monitor(nvml=library.module())
    for half_seconds in range(400):
        clock.now_s = half_seconds / 2
        snapshot = await monitor.snapshot()
        assert dict(snapshot.tried)["nvml"] == "NVML says: Driver Not Loaded"
    assert starts == [0, 1, 3, 7, 15, 31, 63, 123, 183]


async def test_a_source_that_comes_later_is_found_and_then_asked_always(
    make_monitor, clock, sysfs
):
    monitor = make_monitor()
    assert (await monitor.snapshot()).gpus == ()
    sysfs.card(0)
    assert (await monitor.snapshot()).gpus == ()  # it is too early to look again
    clock.now_s = 1
    for _ in range(3):
        assert (await monitor.snapshot()).gpus[0].source == "amdgpu"


async def test_a_failure_after_a_success_is_waited_for_shortly_again(
    make_monitor, clock, nvml, card, toolbox
):
    answers = card()
    library = nvml(answers)
    monitor = make_monitor(nvml=library.module())
    toolbox.says("nvidia-smi", NVIDIA_SMI)

    async def source_at(now_s: float, **error: int) -> str:
        clock.now_s = now_s
        answers.pop("error", None)
        answers.update(error)
        return (await monitor.snapshot()).gpus[0].source

    assert await source_at(0, error=9) == "nvidia-smi"
    assert await source_at(1, error=9) == "nvidia-smi"
    assert await source_at(2) == "nvidia-smi"
    assert await source_at(3) == "nvml"
    assert await source_at(4, error=9) == "nvidia-smi"
    assert await source_at(4.9) == "nvidia-smi"
    assert await source_at(5) == "nvml"


async def test_a_lost_card_is_an_error_beside_the_others(make_monitor, nvml, card):
    first, second = card(), card(UUID="GPU-2")
    monitor = make_monitor(nvml=nvml(first, second).module())
    assert (await monitor.snapshot()).power_w == 563
    first["error"] = 15
    snapshot = await monitor.snapshot()
    assert [gpu.error for gpu in snapshot.gpus] == ["GPU is lost", None]
    assert snapshot.gpus[1].power_w == 281.5
    assert snapshot.power_w is None


async def test_cards_do_not_just_vanish_with_their_source(make_monitor, nvml, card):
    answers = card()
    monitor = make_monitor(nvml=nvml(answers).module())
    await monitor.snapshot()
    answers["error"] = 9
    snapshot = await monitor.snapshot()
    (gone,) = snapshot.gpus
    assert gone.uuid == card()["UUID"]
    assert "NVML says: Driver Not Loaded" in gone.error
    assert gone.power_w is None
    assert snapshot.reason == ""


async def test_both_vendors_are_asked_at_the_same_time(make_monitor, toolbox):
    meeting = toolbox.fifo("meeting")
    (toolbox.folder / "nvidia").write_text(NVIDIA_SMI)
    toolbox.add("nvidia-smi", f'/bin/cat "{meeting}" "{toolbox.path}/nvidia"')
    toolbox.add("rocm-smi", f"echo > \"{meeting}\"\necho '{ROCM_SMI}'")
    snapshot = await make_monitor(timeout_s=10).snapshot()
    assert [gpu.source for gpu in snapshot.gpus] == ["nvidia-smi", "rocm-smi"]


async def test_many_that_ask_at_once_cause_one_reading(make_monitor, toolbox, amd_card):
    gate = toolbox.fifo("gate")
    (toolbox.folder / "metric.json").write_text(f"[{amd_card()}]".replace("'", '"'))
    toolbox.add(
        "amd-smi",
        f'[ "$1" = metric ] && /bin/cat "{gate}"\n/bin/cat "{toolbox.path}/metric.json"',
    )
    monitor = make_monitor(timeout_s=30)
    snapshots = []

    async def ask() -> None:
        snapshots.append(await monitor.snapshot())

    def ask_elsewhere() -> None:
        anyio.run(ask)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(to_thread.run_sync, ask_elsewhere)
            await to_thread.run_sync(gate.write_text, "")
    assert toolbox.calls("amd-smi") == ["metric --json", "static --json"]
    assert len(snapshots) == 51
    assert len({id(snapshot) for snapshot in snapshots[:50]}) == 1


async def test_who_gives_up_waiting_spoils_it_for_nobody(make_monitor, nvml, card):
    library = nvml(card())
    library.gate = threading.Event()
    monitor = make_monitor(nvml=library.module(), timeout_s=30)
    with anyio.move_on_after(0.05):
        await monitor.snapshot()
    got = []

    async def ask() -> None:
        got.append(await monitor.snapshot())

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            library.gate.set()
    assert got[0].gpus[0].power_w == 281.5


def test_a_loop_that_closes_before_the_answer_is_no_problem(
    make_monitor, nvml, card, caplog
):
    library = nvml(card())
    library.gate = threading.Event()
    monitor = make_monitor(nvml=library.module(), timeout_s=30)

    async def give_up() -> None:
        with anyio.move_on_after(0.05):
            await monitor.snapshot()

    anyio.run(give_up)
    (reading,) = [t for t in threading.enumerate() if t.name == "gpu-monitor"]
    library.gate.set()
    reading.join(30)
    assert caplog.text == ""


async def test_a_driver_that_hangs_is_left_alone_and_stalls_nothing(
    make_monitor, clock, nvml, card, sysfs
):
    sysfs.card(0)
    library = nvml(card())
    library.gate = threading.Event()
    monitor = make_monitor(nvml=library.module(), timeout_s=0.2)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await anyio.sleep(0.01)
            beats += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        snapshot = await monitor.snapshot()
        tasks.cancel_scope.cancel()
    assert beats > 10
    assert [gpu.source for gpu in snapshot.gpus] == ["amdgpu"]
    assert dict(snapshot.tried)["nvml"] == "gave no answer within 0.2 s"

    clock.now_s = 100
    started = time.monotonic()
    snapshot = await monitor.snapshot()
    assert time.monotonic() - started < 1
    assert "has not ended" in dict(snapshot.tried)["nvml"]
    hanging = [t for t in threading.enumerate() if t.name == "gpu-nvml"]
    assert len(hanging) == 1

    library.gate.set()
    await to_thread.run_sync(hanging[0].join, 10)
    clock.now_s = 200
    assert (await monitor.snapshot()).gpus[0].source == "nvml"


async def test_a_hanging_tool_is_killed_and_not_started_again_at_once(
    make_monitor, toolbox, ended
):
    pid = toolbox.folder / "pid"
    toolbox.add("amd-smi", f'echo $$ > "{pid}"\nexec /bin/sleep 600')
    monitor = make_monitor(timeout_s=1)
    for _ in range(5):
        snapshot = await monitor.snapshot()
        assert dict(snapshot.tried)["amd-smi"] == "did not end within 1 s"
    assert len(toolbox.calls("amd-smi")) == 1
    assert await to_thread.run_sync(ended, int(pid.read_text()))


async def test_a_source_that_breaks_is_a_reason_and_is_logged(
    make_monitor, nvml, card, caplog
):
    library = nvml(card())
    library.nvmlDeviceGetCount_v2 = None
    snapshot = await make_monitor(nvml=library.module()).snapshot()
    assert "TypeError" in dict(snapshot.tried)["nvml"]
    assert "Reading GPUs through nvml failed" in caplog.text


async def test_watching_goes_on_with_changing_values(make_monitor, sysfs):
    busy = sysfs.card(0) / "gpu_busy_percent"
    seen = []
    with anyio.fail_after(30):
        async for snapshot in make_monitor().watch(interval_s=0.01):
            seen.append(snapshot)
            busy.write_text(f"{len(seen)}\n")
            if len(seen) == 5:
                break
    assert [s.gpus[0].utilization_percent for s in seen] == [93, 1, 2, 3, 4]
    times = [s.timestamp for s in seen]
    assert times == sorted(times)


async def test_watching_keeps_its_pace_however_long_the_watcher_takes(
    make_monitor, sysfs
):
    sysfs.card(0)
    stamps = []
    with anyio.fail_after(30):
        async for snapshot in make_monitor().watch(interval_s=0.2):
            stamps.append(snapshot.timestamp)
            if len(stamps) == 4:
                break
            if len(stamps) == 2:
                await anyio.sleep(0.3)  # the third reading is left out
    steps = [round((stamp - stamps[0]) / 0.2) for stamp in stamps]
    assert steps == [0, 1, 3, 4]


@pytest.mark.parametrize("interval_s", [0, -1])
def test_watching_needs_an_interval(interval_s, make_monitor):
    with pytest.raises(AgentFarmError, match="interval_s"):
        make_monitor().watch(interval_s=interval_s)


def test_a_timeout_must_be_positive(make_monitor):
    with pytest.raises(AgentFarmError, match="timeout_s"):
        make_monitor(timeout_s=0)


async def test_capabilities_name_the_source_and_the_values_of_each_card(
    make_monitor, sysfs
):
    folder = sysfs.card(0, hwmon={"temp1_label": "edge", "temp1_input": "44000"})
    (folder / "gpu_busy_percent").write_text("0\n")
    found = await make_monitor().capabilities()
    assert found.sources == ("amdgpu",)
    (gpu,) = found.gpus
    assert gpu.uuid == "0000:03:00.0"
    assert {"temperature_c", "utilization_percent"} <= set(gpu.known)
    assert "power_w" in gpu.unknown
    assert not set(gpu.known) & set(gpu.unknown)
    assert [name for name, _ in found.tried] == ["nvml", "nvidia-smi"]


async def test_nothing_is_looked_for_before_the_first_reading(nvml, tmp_path, toolbox):
    library = nvml()
    monitor = GPUMonitor(
        nvml=library.module(), drm_path=tmp_path / "later", search_path=toolbox.path
    )
    monitor.close()
    assert (library.inits, library.shutdowns) == (0, 0)


async def test_a_closed_monitor_leaves_nvml_and_says_that_it_is_closed(
    make_monitor, nvml, card
):
    library = nvml(card())
    with make_monitor(nvml=library.module()) as monitor:
        await monitor.snapshot()
        assert (library.inits, library.shutdowns) == (1, 0)
    assert library.shutdowns == 1
    with pytest.raises(AgentFarmError, match="closed"):
        await monitor.snapshot()


async def test_closing_ends_a_hanging_tool(make_monitor, toolbox, hear, ended):
    ready = toolbox.hang("amd-smi")
    toolbox.says("rocm-smi", ROCM_SMI)
    monitor = make_monitor(timeout_s=60)
    found = []

    async def ask() -> None:
        found.append(await monitor.snapshot())

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            pid = int(await to_thread.run_sync(hear, ready))
            await to_thread.run_sync(monitor.close)
    assert await to_thread.run_sync(ended, pid)
    assert dict(found[0].tried)["rocm-smi"] == "the monitor is closed"


async def test_the_end_of_the_interpreter_ends_a_hanging_tool(toolbox, hear, ended):
    ready = toolbox.hang("amd-smi")
    code = (
        "import asyncio, pathlib, sys\n"
        "from agentfarm.monitoring import GPUMonitor\n"
        "m = GPUMonitor(search_path=sys.argv[1], timeout_s=60,"
        " drm_path=pathlib.Path(sys.argv[1]))\n"
        "async def main():\n"
        "    async with asyncio.timeout(1):\n"
        "        await m.snapshot()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, toolbox.path], stderr=subprocess.PIPE, text=True
    ) as process:
        pid = int(await to_thread.run_sync(hear, ready))
        _, err = await to_thread.run_sync(process.communicate)
    assert "TimeoutError" in err
    assert await to_thread.run_sync(ended, pid)
