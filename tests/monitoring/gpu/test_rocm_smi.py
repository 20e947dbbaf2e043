"""What rocm-smi of ROCm 4 to 6 prints; made-up values in its shapes."""

import json

import pytest

from agentfarm.monitoring._gpu_rocm_smi import parse

CARD = {
    "Device Name": "AMD Radeon PRO W7900",
    "Device ID": "0x7448",
    "Unique ID": "0xabcdef0123456789",
    "Temperature (Sensor edge) (C)": "58.0",
    "Temperature (Sensor junction) (C)": "73.0",
    "Temperature (Sensor memory) (C)": "80.0",
    "mclk clock speed:": "(1124Mhz)",
    "sclk clock speed:": "(2207Mhz)",
    "Fan speed (level)": "92",
    "Fan speed (%)": "36",
    "Fan RPM": "1377",
    "Max Graphics Package Power (W)": "241.0",
    "Average Graphics Package Power (W)": "229.0",
    "GPU use (%)": "99",
    "GPU Memory Allocated (VRAM%)": "71",
    "GPU Memory Read/Write Activity (%)": "44",
    "Memory Activity": "N/A",
    "PCI Bus": "0000:C3:00.0",
    "VRAM Total Memory (B)": "48301604864",
    "VRAM Total Used Memory (B)": "34225520640",
    "Card Series": "Navi 31 [Radeon Pro W7900]",
    "Card Model": "0x7448",
}


def only(**changes):
    """The card, changed; None takes a value out."""
    card = {k: v for k, v in {**CARD, **changes}.items() if v is not None}
    (reading,) = parse(json.dumps({"card0": card}))
    return reading


def test_every_value_has_its_unit():
    reading = only()
    assert reading.uuid == "0000:c3:00.0"
    assert reading.name == "Navi 31 [Radeon Pro W7900]"
    assert reading.temperature_c == 58
    assert reading.junction_temperature_c == 73
    assert reading.memory_temperature_c == 80
    assert reading.vram_total_bytes == 48301604864
    assert reading.vram_used_bytes == 34225520640
    assert (reading.power_w, reading.power_limit_w) == (229, 241)
    assert (reading.utilization_percent, reading.memory_utilization_percent) == (99, 44)
    assert (reading.core_clock_mhz, reading.memory_clock_mhz) == (2207, 1124)
    assert (reading.fan_percent, reading.fan_rpm) == (36, 1377)
    assert reading.throttle_reasons is None
    assert reading.error is None


AVERAGE = "Average Graphics Package Power (W)"
SOCKET = "Current Socket Graphics Package Power (W)"


@pytest.mark.parametrize(
    ("changes", "watts"),
    [
        ({AVERAGE: None, SOCKET: "31.0"}, 31),
        ({AVERAGE: "N/A (Secondary die)", SOCKET: "31.0"}, 31),
        ({AVERAGE: "N/A (Secondary die)"}, None),
        ({AVERAGE: None}, None),
        ({AVERAGE: "0.0"}, None),
    ],
)
def test_power_is_found_under_either_key_or_unknown(changes, watts):
    assert only(**changes).power_w == watts


def test_each_card_of_one_output_may_use_another_key_for_power():
    first = {**CARD, AVERAGE: "N/A (Secondary die)"}
    second = {**CARD, AVERAGE: None, SOCKET: "12.5", "PCI Bus": "0000:C6:00.0"}
    one, two = parse(json.dumps({"card1": second, "card0": first}))
    assert (one.index, one.power_w) == (0, None)
    assert (two.index, two.power_w) == (1, 12.5)


def test_the_card_of_rocm_4_has_other_keys():
    old = {
        "Temperature (Sensor edge) (c)": "50.0",
        "Temperature (Sensor mem) (c)": "64.0",
        "GPU memory use (%)": "7",
        "Card series": "Vega 20 [Radeon VII]",
        "Unique ID": "0x00c0ffee",
    }
    (reading,) = parse(json.dumps({"card0": old}))
    assert (reading.temperature_c, reading.memory_temperature_c) == (50, 64)
    assert reading.memory_utilization_percent == 7
    assert reading.name == "Vega 20 [Radeon VII]"
    assert reading.uuid == "0x00c0ffee"
    assert reading.vram_total_bytes is None


def test_how_full_the_memory_is_does_not_pass_for_how_busy_it_is():
    reading = only(**{"GPU Memory Read/Write Activity (%)": None})
    assert reading.memory_utilization_percent is None


def test_without_an_edge_sensor_the_temperature_is_unknown():
    reading = only(**{"Temperature (Sensor edge) (C)": None})
    assert reading.temperature_c is None
    assert reading.junction_temperature_c == 73


def test_a_processor_with_graphics_has_neither_junction_nor_memory_sensor():
    reading = only(
        **{
            "Temperature (Sensor junction) (C)": None,
            "Temperature (Sensor memory) (C)": "N/A",
        }
    )
    assert reading.temperature_c == 58
    assert reading.junction_temperature_c is None
    assert reading.memory_temperature_c is None


def test_the_hottest_stack_speaks_for_a_memory_without_a_sensor_of_its_own():
    stacks = {f"Temperature (Sensor HBM {i}) (C)": f"{60 + i}.0" for i in range(3)}
    reading = only(**{"Temperature (Sensor memory) (C)": "N/A", **stacks})
    assert reading.memory_temperature_c == 62


def test_the_system_beside_the_cards_names_the_driver_and_is_no_card():
    system = {"Driver version": "6.10.5", "PID4711": "python3, 1, 2147483648, 0, 0"}
    (reading,) = parse(json.dumps({"card0": CARD, "system": system}))
    assert reading.driver == "6.10.5"


@pytest.mark.parametrize("name", ["0x7448", "N/A", None])
def test_a_number_is_no_name(name):
    reading = only(**{"Card Series": name, "Device Name": name})
    assert reading.name is None


def test_warnings_before_and_after_the_json_do_not_matter():
    text = (
        "WARNING: AMD GPU device(s) is/are in a low-power state.\n"
        "[WARNING] something in brackets\n\n"
        f"{json.dumps({'card0': CARD}, indent=4)}\n"
        "WARNING: done\n"
    )
    (reading,) = parse(text)
    assert reading.power_w == 229


@pytest.mark.parametrize(
    "text",
    [
        "",
        "WARNING: No JSON data to report\n",
        "[]",
        '{"system": {"Driver version": "6.10.5"}}',
        '{"card0": "N/A"}',
        '{"card0": {"GPU use (%)"',
        "{" * 100_000,
        "[\n" * 20_000,
    ],
)
def test_what_names_no_card_gives_none(text):
    assert parse(text) == []
