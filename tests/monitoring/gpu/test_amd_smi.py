"""What amd-smi of ROCm 5.7 to 7 prints; made-up values in its shapes."""

import json

import pytest

from agentfarm.monitoring._gpu_amd_smi import AmdSmi, parse, reading
from agentfarm.monitoring._gpu_source import Unavailable
from agentfarm.monitoring._gpu_tool import Tools

STATIC = {
    "gpu": 0,
    "asic": {"market_name": "AMD Radeon RX 7900 XT", "asic_serial": "0xABCD"},
    "bus": {"bdf": "0000:2D:00.0", "max_pcie_width": 16},
    "limit": {
        "max_power": {"value": 315, "unit": "W"},
        "min_power": {"value": 0, "unit": "W"},
        "socket_power": {"value": 280, "unit": "W"},
        "slowdown_edge_temperature": {"value": 100, "unit": "C"},
        "slowdown_hotspot_temperature": {"value": 110, "unit": "C"},
    },
    "driver": {"name": "amdgpu", "version": "6.12.12"},
}


def test_every_value_has_its_unit(amd_card):
    found = reading(0, amd_card(), STATIC)
    assert found.uuid == "0000:2d:00.0"
    assert found.name == "AMD Radeon RX 7900 XT"
    assert found.driver == "6.12.12"
    assert found.temperature_c == 63
    assert found.junction_temperature_c == 79
    assert found.memory_temperature_c == 84
    assert found.temperature_limit_c == 100
    assert found.vram_total_bytes == 20464 * 2**20
    assert found.vram_used_bytes == 11200 * 2**20
    assert (found.power_w, found.power_limit_w) == (251, 280)
    assert (found.utilization_percent, found.memory_utilization_percent) == (87, 32)
    assert (found.core_clock_mhz, found.memory_clock_mhz) == (2390, 1249)
    assert (found.fan_percent, found.fan_rpm) == (38.04, 1612)
    assert found.throttle_reasons == ()


@pytest.mark.parametrize(
    "wrap", [lambda cards: cards, lambda cards: {"gpu_data": cards}]
)
def test_the_cards_are_a_list_or_lie_in_gpu_data(wrap, amd_card):
    assert list(parse(json.dumps(wrap([amd_card(1), amd_card(0)])))) == [1, 0]


def test_banners_and_warnings_before_the_json_do_not_matter(amd_card):
    text = (
        "WARNING: User is missing the following required groups: render\n"
        "'CTRL' + 'C' to stop watching output:\n"
        f"{json.dumps([amd_card()], indent=4)}\n"
    )
    assert list(parse(text)) == [0]


@pytest.mark.parametrize(
    "section", ["usage", "power", "clock", "temperature", "fan", "mem_usage"]
)
def test_a_whole_section_may_be_not_available(section, amd_card):
    found = reading(0, amd_card(**{section: "N/A"}), {})
    assert found.error is None
    values = {
        "usage": (found.utilization_percent, found.memory_utilization_percent),
        "power": (found.power_w, found.throttle_reasons),
        "clock": (found.core_clock_mhz, found.memory_clock_mhz),
        "temperature": (found.temperature_c, found.junction_temperature_c),
        "fan": (found.fan_percent, found.fan_rpm),
        "mem_usage": (found.vram_used_bytes, found.vram_total_bytes),
    }
    for name, pair in values.items():
        expected = name != section
        assert [value is not None for value in pair] == [expected, expected]


def test_values_of_rocm_5_are_texts_with_units(amd_card):
    old = {
        "usage": {"gfx_activity": "15 %", "umc_activity": "N/A"},
        "power": {"current_socket_power": "88 W"},
        "temperature": {"edge": "41 °C", "hotspot": "N/A", "mem": "46 °C"},
        "clock": {"gfx": {"cur_clk": "1700 MHz"}},
        "mem_usage": {"total_vram": "64 GB", "used_vram": "512 MB"},
    }
    found = reading(0, amd_card(**old), {})
    assert (found.utilization_percent, found.memory_utilization_percent) == (15, None)
    assert found.power_w == 88
    assert (found.temperature_c, found.junction_temperature_c) == (41, None)
    assert found.core_clock_mhz == 1700
    assert (found.vram_total_bytes, found.vram_used_bytes) == (64 * 2**30, 2**29)


def test_a_data_centre_card_has_no_edge_and_the_limit_is_its_junctions(amd_card):
    sensors = {"edge": "N/A", "hotspot": {"value": 55, "unit": "C"}}
    found = reading(0, amd_card(temperature=sensors), STATIC)
    assert (found.temperature_c, found.junction_temperature_c) == (None, 55)
    assert found.temperature_limit_c == 110


@pytest.mark.parametrize(
    ("limit", "watts"),
    [
        ({"ppt0": {"socket_power_limit": {"value": 900, "unit": "W"}}}, 900),
        ({"socket_power": {"value": 0}, "max_power": {"value": 0}}, None),
        ({"max_power": {"value": 350, "unit": "W"}, "socket_power": "N/A"}, 350),
        ({"current_power": "203 W"}, 203),
        ("N/A", None),
    ],
)
def test_the_power_limit_of_any_version_or_unknown(limit, watts, amd_card):
    assert reading(0, amd_card(), {"limit": limit}).power_limit_w == watts


def test_a_filler_is_no_clock(amd_card):
    clock = {"gfx_0": {"clk": {"value": 65535, "unit": "MHz"}}, "mem_0": "N/A"}
    found = reading(0, amd_card(clock=clock), {})
    assert (found.core_clock_mhz, found.memory_clock_mhz) == (None, None)


@pytest.mark.parametrize(
    ("power", "throttle", "reasons"),
    [
        ({"throttle_status": "THROTTLED"}, "N/A", ("throttled",)),
        ({"throttle_status": "N/A"}, "N/A", None),
        (
            {"throttle_status": "N/A"},
            {
                "prochot_violation_status": "NOT ACTIVE",
                "ppt_violation_status": "ACTIVE",
                "hbm_thermal_violation_status": "ACTIVE",
                "vr_thermal_violation_status": "N/A",
            },
            ("power_ppt", "thermal_hbm"),
        ),
        ({}, {"ppt_violation_status": "NOT ACTIVE"}, ()),
        ({}, {"ppt_violation_status": "N/A"}, None),
    ],
)
def test_why_it_is_slower(power, throttle, reasons, amd_card):
    found = reading(0, amd_card(power=power, throttle=throttle), {})
    assert found.throttle_reasons == reasons


@pytest.mark.parametrize(
    "text",
    ["", "AMD-SMI 26.2.1", "[]", '{"gpu_data": "N/A"}', '[{"gpu": "N/A"}]', "[1]"],
)
def test_what_names_no_card_gives_none(text):
    assert parse(text) == {}


def test_names_and_limits_are_asked_for_once(toolbox, amd_smi, amd_card):
    amd_smi(amd_card(0), amd_card(1))
    (toolbox.folder / "static.json").write_text(json.dumps({"gpu_data": [STATIC]}))
    source = AmdSmi(Tools(toolbox.path))
    for _ in range(3):
        first, second = source.read(10)
    assert first.name == "AMD Radeon RX 7900 XT"
    assert (second.name, second.uuid) == (None, "amd-smi:1")
    assert toolbox.calls("amd-smi") == [
        "metric --json",
        "static --json",
        "metric --json",
        "metric --json",
    ]


def test_the_tools_own_words_are_the_reason(toolbox):
    toolbox.says("amd-smi", "AMD-SMI 26.2.1\n", code=255)
    with pytest.raises(Unavailable, match="status 255, saying: AMD-SMI"):
        AmdSmi(Tools(toolbox.path)).read(10)
