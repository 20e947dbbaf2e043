"""What nvidia-smi prints; made-up values in its shapes."""

import pytest

from agentfarm.monitoring._gpu_nvidia_smi import NvidiaSmi, parse, reading
from agentfarm.monitoring._gpu_source import Unavailable
from agentfarm.monitoring._gpu_tool import Tools

HEADING = (
    "index, uuid, pci.bus_id, name, driver_version, temperature.gpu, "
    "temperature.memory, utilization.gpu [%], utilization.memory [%], "
    "memory.used [MiB], memory.total [MiB], power.draw [W], power.limit [W], "
    "fan.speed [%], clocks.current.graphics [MHz], clocks.current.memory [MHz], "
    "clocks_event_reasons.active"
)
UUID = "GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeee000"


def row(index: int = 0, **changes: str) -> str:
    cells = {
        "index": str(index),
        "uuid": f"{UUID}{index}",
        "pci": f"00000000:{0x41 + index:02X}:00.0",
        "name": "NVIDIA L40S",
        "driver": "565.57.01",
        "temperature": "66",
        "memory_temperature": "70",
        "use": "97",
        "memory_use": "48",
        "used": "40211",
        "total": "46068",
        "power": "298.42",
        "limit": "350.00",
        "fan": "45",
        "clock": "2520",
        "memory_clock": "9001",
        "reasons": "0x0000000000000004",
    }
    return ", ".join({**cells, **changes}.values())


def table(*rows: str) -> str:
    return "\n".join([HEADING, *rows]) + "\n"


def only(text: str):
    (found,) = map(reading, parse(text))
    return found


def test_every_value_has_its_unit():
    found = only(table(row()))
    assert (found.uuid, found.name) == (f"{UUID}0", "NVIDIA L40S")
    assert found.driver == "565.57.01"
    assert (found.temperature_c, found.memory_temperature_c) == (66, 70)
    assert found.vram_used_bytes == 40211 * 2**20
    assert found.vram_total_bytes == 46068 * 2**20
    assert (found.power_w, found.power_limit_w) == (298.42, 350)
    assert (found.utilization_percent, found.memory_utilization_percent) == (97, 48)
    assert (found.core_clock_mhz, found.memory_clock_mhz) == (2520, 9001)
    assert (found.fan_percent, found.fan_rpm) == (45, None)
    assert found.throttle_reasons == ("sw_power_cap",)


ABSENT = [
    "[N/A]",
    "N/A",
    "[Not Supported]",
    "[Requested functionality has been deprecated]",
    "[Unknown Error]",
    "",
]


@pytest.mark.parametrize("cell", ABSENT)
@pytest.mark.parametrize(
    ("column", "attribute"),
    [
        ("temperature", "temperature_c"),
        ("memory_temperature", "memory_temperature_c"),
        ("use", "utilization_percent"),
        ("memory_use", "memory_utilization_percent"),
        ("used", "vram_used_bytes"),
        ("power", "power_w"),
        ("fan", "fan_percent"),
        ("reasons", "throttle_reasons"),
    ],
)
def test_what_is_not_there_is_none_and_the_rest_stays(cell, column, attribute):
    found = only(table(row(**{column: cell})))
    assert getattr(found, attribute) is None
    assert found.vram_total_bytes == 46068 * 2**20
    assert found.error is None


def test_zero_is_a_value_where_it_can_be_one():
    found = only(table(row(use="0", used="0", fan="0", reasons="0x0000000000000001")))
    assert (found.utilization_percent, found.vram_used_bytes) == (0, 0)
    assert found.fan_percent == 0
    assert found.throttle_reasons == ()  # idle is no reason


def test_the_heading_counts_and_not_the_order_of_the_columns():
    text = "name, power.draw [W], index, uuid\nNVIDIA L4, 41.05, 2, GPU-x\n"
    found = only(text)
    assert (found.index, found.uuid, found.power_w) == (2, "GPU-x", 41.05)
    assert found.temperature_c is None


def test_warnings_before_the_table_do_not_matter():
    noise = "WARNING: infoROM is corrupted at gpu 0000:41:00.0, index unknown\n"
    assert only(noise + table(row())).power_w == 298.42


def test_reasons_are_named_and_unknown_ones_kept():
    found = only(table(row(reasons="0x0000000000001068")))
    assert found.throttle_reasons == (
        "hw_slowdown",
        "hw_thermal_slowdown",
        "sw_thermal_slowdown",
        "unknown_0x1000",
    )


MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        (
            f"{MISMATCH}\nNVML library version: 570.86\n",
            18,
            "status 18, saying: Failed to initialize NVML",
        ),
        ("No devices were found\n", 6, "No devices were found"),
        ("NVIDIA-SMI has failed because it couldn't communicate\n", 9, "communicate"),
        ("", 0, "saying: nothing"),
        (HEADING + "\n", 0, "named no card"),
        ('<?xml version="1.0" ?>\n<nvidia_smi_log>\n', 0, "named no card"),
    ],
)
def test_errors_on_stdout_are_the_reason(text, code, reason, toolbox):
    toolbox.says("nvidia-smi", text, code=code)
    with pytest.raises(Unavailable, match=reason):
        NvidiaSmi(Tools(toolbox.path)).read(10)


def test_an_error_on_stderr_is_the_reason_too(toolbox):
    toolbox.says("nvidia-smi", "", code=255, err="cannot open /dev/nvidiactl\n")
    with pytest.raises(Unavailable, match="/dev/nvidiactl"):
        NvidiaSmi(Tools(toolbox.path)).read(10)


def test_a_field_that_the_driver_does_not_know_is_left_out_from_then_on(toolbox):
    field = "clocks_throttle_reasons.active"
    (toolbox.folder / "table").write_text(table(row()))
    toolbox.add(
        "nvidia-smi",
        f'case "$1" in *{field}*)\n'
        f"  echo 'Field \"{field}\" is not a valid field to query.'; exit 2;;\n"
        "esac\n"
        f'/bin/cat "{toolbox.path}/table"',
    )
    source = NvidiaSmi(Tools(toolbox.path))
    for _ in range(2):
        (found,) = source.read(10)
        assert found.power_w == 298.42
    assert len(toolbox.calls("nvidia-smi")) == 3


LOST = "GPU is lost.  Reboot the system to recover this GPU"


def lose_card_1_of_3(toolbox, line: str) -> None:
    """The listing ends at the lost card, and the tool with status 15."""
    folder = toolbox.folder
    (folder / "all").write_text(table(row(0)) + line)
    (folder / "0").write_text(table(row(0)))
    (folder / "1").write_text(line)
    (folder / "2").write_text(table(row(2)))
    toolbox.add(
        "nvidia-smi",
        f'cd "{folder}"\n'
        'case "$*" in *--id=*) which="${*##*--id=}";; *) which=all;; esac\n'
        '[ -f "$which" ] || { echo "No devices were found"; exit 6; }\n'
        '/bin/cat "$which"\n'
        '[ "$which" = 0 ] || [ "$which" = 2 ] || exit 15',
    )


@pytest.mark.parametrize(
    ("line", "uuid"),
    [
        (f"Unable to determine the device handle for GPU 0000:42:00.0: {LOST}", "pci"),
        (f"Unable to determine the device handle for GPU0000:42:00.0: {LOST}", "pci"),
        (f"Unable to determine the device handle for GPU1: {LOST}", "nvidia-smi:1"),
        (
            f"Unable to determine the device handle for GPU1: 0000:42:00.0: {LOST}",
            "pci",
        ),
        (
            f"Unable to determine the device handle for gpu 00000000:42:00.0:\n{LOST}",
            "pci",
        ),
    ],
)
def test_a_lost_card_does_not_hide_the_others(line, uuid, toolbox):
    lose_card_1_of_3(toolbox, line)
    cards = NvidiaSmi(Tools(toolbox.path)).read(20)
    assert [card.index for card in cards] == [0, 1, 2]
    assert [card.error for card in cards] == [None, LOST, None]
    assert cards[1].uuid == ("0000:42:00.0" if uuid == "pci" else uuid)
    assert cards[1].power_w is None
    assert cards[2].power_w == 298.42


def test_a_card_that_gets_lost_keeps_its_uuid(toolbox):
    toolbox.says("nvidia-smi", table(row(0), row(1), row(2)))
    source = NvidiaSmi(Tools(toolbox.path))
    before = [card.uuid for card in source.read(20)]
    lose_card_1_of_3(
        toolbox, f"Unable to determine the device handle for GPU 0000:42:00.0: {LOST}"
    )
    assert [card.uuid for card in source.read(20)] == before


def test_a_card_of_which_nothing_can_be_read_says_why():
    cells = dict.fromkeys(
        ("temperature", "memory_temperature", "use", "memory_use", "used", "total"),
        "[GPU requires reset]",
    )
    rest = dict.fromkeys(
        ("power", "limit", "fan", "clock", "memory_clock", "reasons"), "[N/A]"
    )
    found = only(table(row(**cells, **rest)))
    assert found.error == "GPU requires reset"
    assert found.uuid == f"{UUID}0"
