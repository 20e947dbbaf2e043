"""NVIDIA cards through the real binding, over a stand-in for the C library."""

from contextlib import suppress

import pytest

from agentfarm.monitoring._gpu_nvml import Nvml
from agentfarm.monitoring._gpu_source import Unavailable

MEMORY_TEMPERATURE = 82  # NVML_FI_DEV_MEMORY_TEMP


def only(library):
    (found,) = Nvml(library.module()).read(1)
    return found


def test_every_value_has_its_unit(nvml, card):
    found = only(nvml(card(FieldValues={MEMORY_TEMPERATURE: 88})))
    assert found.uuid == "GPU-11111111-2222-3333-4444-555555555555"
    assert found.name == "NVIDIA RTX 6000 Ada Generation"
    assert (found.vendor, found.source) == ("nvidia", "nvml")
    assert found.driver == "570.86.15"
    assert (found.temperature_c, found.memory_temperature_c) == (71, 88)
    assert found.temperature_limit_c == 92
    assert found.vram_used_bytes == 30 * 2**30
    assert found.vram_total_bytes == 48 * 2**30
    assert (found.power_w, found.power_limit_w) == (281.5, 300)
    assert (found.utilization_percent, found.memory_utilization_percent) == (98, 55)
    assert (found.core_clock_mhz, found.memory_clock_mhz) == (2505, 10001)
    assert (found.fan_percent, found.fan_rpm) == (62, 2150)
    assert found.throttle_reasons == ("sw_power_cap",)
    assert found.error is None


@pytest.mark.parametrize(
    ("value", "attributes"),
    [
        ("Temperature", {"temperature_c"}),
        ("TemperatureThreshold", {"temperature_limit_c"}),
        ("PowerUsage", {"power_w"}),
        ("EnforcedPowerLimit", {"power_limit_w"}),
        ("UtilizationRates", {"utilization_percent", "memory_utilization_percent"}),
        ("ClockInfo", {"core_clock_mhz", "memory_clock_mhz"}),
        ("NumFans", {"fan_percent", "fan_rpm"}),
        ("FanSpeedRPM", {"fan_rpm"}),
        ("CurrentClocksEventReasons", {"throttle_reasons"}),
    ],
)
def test_what_a_card_does_not_support_is_none_and_the_rest_stays(
    value, attributes, nvml, card
):
    full, less = only(nvml(card())), only(nvml(card(**{value: None})))
    for name in full.__slots__:
        expected = None if name in attributes else getattr(full, name)
        assert getattr(less, name) == expected, name


def test_an_older_driver_lacks_functions_and_others_take_their_place(nvml, card):
    library = nvml(
        card(CurrentClocksThrottleReasons=0x48, PowerManagementLimit=260_000)
    )
    library.missing = {
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetFanSpeedRPM",
    }
    found = only(library)
    assert found.throttle_reasons == ("hw_slowdown", "hw_thermal_slowdown")
    assert found.vram_used_bytes == 31 * 2**30
    assert found.power_limit_w == 260
    assert found.fan_rpm is None


def test_an_older_binding_lacks_functions_too(nvml, card):
    module = nvml(card(CurrentClocksThrottleReasons=0x4)).module()
    for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetFanSpeedRPM"):
        delattr(module, name)
    (found,) = Nvml(module).read(1)
    assert found.throttle_reasons == ("sw_power_cap",)
    assert (found.fan_percent, found.fan_rpm) == (62, None)


def test_a_card_without_a_sensor_in_its_memory_does_not_know_its_temperature(
    nvml, card
):
    assert only(nvml(card(FieldValues={}))).memory_temperature_c is None


@pytest.mark.parametrize(
    ("changes", "attribute"),
    [
        ({"FieldValues": {MEMORY_TEMPERATURE: 0}}, "memory_temperature_c"),
        ({"PowerUsage": 0}, "power_w"),
        ({"UtilizationRates": (2**32 - 1, 0)}, "utilization_percent"),
        ({"MemoryInfo_v2": (0, 0)}, "vram_used_bytes"),
    ],
)
def test_a_filler_is_unknown(changes, attribute, nvml, card):
    assert getattr(only(nvml(card(**changes))), attribute) is None


def test_an_idle_card_uses_zero_and_is_not_throttled(nvml, card):
    found = only(nvml(card(UtilizationRates=(0, 0), CurrentClocksEventReasons=0x1)))
    assert (found.utilization_percent, found.throttle_reasons) == (0, ())


def mig(number: int, gibibytes: int) -> dict:
    return {
        "UUID": f"MIG-{number}",
        "Name": f"NVIDIA H100 80GB HBM3 MIG {number}g.10gb",
        "MemoryInfo_v2": (gibibytes * 2**30, number * 2**30),
    }


def test_mig_instances_follow_their_card_with_their_own_memory(nvml, card):
    parts = [mig(1, 10), None, mig(3, 40)]
    first = card(
        MigMode=(1, 1),
        MaxMigDeviceCount=len(parts),
        instances=parts,
        UtilizationRates=None,
    )
    second = card(UUID="GPU-2")
    found = Nvml(nvml(first, second).module()).read(1)
    assert [one.uuid for one in found] == [first["UUID"], "MIG-1", "MIG-3", "GPU-2"]
    assert [one.parent for one in found] == [None, first["UUID"], first["UUID"], None]
    assert [one.index for one in found] == [0, 0, 0, 1]
    whole, small, _, _ = found
    assert whole.utilization_percent is None
    assert whole.power_w == 281.5
    assert small.name == "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    assert small.vram_total_bytes == 10 * 2**30
    assert (small.power_w, small.temperature_c) == (None, None)
    assert small.error is None


def test_instances_come_and_go(nvml, card):
    answers = card()
    source = Nvml(nvml(answers).module())
    assert len(source.read(1)) == 1
    answers |= {"MigMode": (1, 1), "MaxMigDeviceCount": 1, "instances": [mig(1, 10)]}
    assert len(source.read(1)) == 2
    answers["MigMode"] = (0, 0)
    assert len(source.read(1)) == 1


@pytest.mark.parametrize(
    ("code", "words"), [(15, "GPU is lost"), (16, "restart"), (999, "Unknown Error")]
)
def test_a_lost_card_is_an_error_and_hides_no_other(code, words, nvml, card):
    first, second = card(), card(UUID="GPU-2")
    source = Nvml(nvml(first, second).module())
    assert [one.error for one in source.read(1)] == [None, None]
    first["error"] = code
    lost, other = source.read(1)
    assert words in lost.error
    assert lost.uuid == "GPU-11111111-2222-3333-4444-555555555555"
    assert lost.name == "NVIDIA RTX 6000 Ada Generation"
    assert (lost.power_w, lost.throttle_reasons) == (None, None)
    assert (other.uuid, other.power_w) == ("GPU-2", 281.5)
    del first["error"]
    assert [one.error for one in source.read(1)] == [None, None]


def test_a_card_that_was_reset_is_found_again(nvml, card):
    library = nvml(card())
    source = Nvml(library.module())
    source.read(1)
    library.reset()
    assert "Invalid Argument" in source.read(1)[0].error
    assert source.read(1)[0].error is None


def test_a_card_that_was_never_seen_has_a_name_of_its_own(nvml, card):
    found = Nvml(nvml({"error": 15}, card()).module()).read(1)
    assert [one.uuid for one in found] == ["nvml:0", card()["UUID"]]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (9, "Driver Not Loaded"),
        (12, "libnvidia-ml.so.1 is not here"),
        (18, "needs a restart"),
    ],
)
def test_a_driver_that_is_not_there_is_a_reason(code, words, nvml):
    library = nvml()
    library.init_code = code
    with pytest.raises(Unavailable, match=words):
        Nvml(library.module()).read(1)


def test_no_card_is_a_reason(nvml):
    with pytest.raises(Unavailable, match="no card"):
        Nvml(nvml().module()).read(1)


@pytest.mark.parametrize("code", [1, 9, 18])
def test_a_driver_that_goes_away_is_a_reason_and_opened_anew(code, nvml, card):
    answers = card()
    library = nvml(answers)
    source = Nvml(library.module())
    source.read(1)
    answers["error"] = code
    with pytest.raises(Unavailable):
        source.read(1)
    del answers["error"]
    assert source.read(1)[0].error is None
    assert (library.inits, library.shutdowns) == (2, 1)


def test_closing_leaves_nvml_and_the_next_reading_enters_it_again(nvml, card):
    library = nvml(card())
    source = Nvml(library.module())
    source.close()
    assert library.shutdowns == 0
    source.read(1)
    source.close()
    source.close()
    assert (library.inits, library.shutdowns) == (1, 1)
    assert source.read(1)[0].power_w == 281.5


def test_the_binding_on_this_machine_is_asked_without_an_argument():
    source = Nvml()
    with suppress(Unavailable):  # no NVIDIA card here
        assert all(one.vendor == "nvidia" for one in source.read(1))
    source.close()
