"""AMD cards through a tree of files like the kernel's."""

import os
import shutil

import pytest

from agentfarm.monitoring._gpu_source import Unavailable
from agentfarm.monitoring._gpu_sysfs import AmdgpuSysfs


def only(sysfs, **options):
    (found,) = AmdgpuSysfs(sysfs.root, **options).read(1)
    return found


def without(sysfs, number, *names):
    """Take files out of a card's folder of sensors."""
    for name in names:
        (sysfs.root / f"card{number}/device/hwmon/hwmon{number + 3}" / name).unlink()


def metrics(version: tuple[int, int], size: int, offset: int, mask: int) -> bytes:
    """A table gpu_metrics that is unknown throughout, but for the throttling."""
    table = bytearray(b"\xff" * size)
    table[:4] = size.to_bytes(2, "little") + bytes(version)
    table[offset : offset + 8] = mask.to_bytes(8, "little")
    return bytes(table)


def test_every_value_has_its_unit_and_is_found_by_its_label(sysfs):
    sysfs.card(0)
    found = only(sysfs)
    assert found.uuid == "0000:03:00.0"
    assert (found.vendor, found.source) == ("amd", "amdgpu")
    assert found.temperature_c == 61
    assert found.junction_temperature_c == 77
    assert found.memory_temperature_c == 82
    assert found.temperature_limit_c == 100
    assert found.vram_used_bytes == 12 * 2**30
    assert found.vram_total_bytes == 16 * 2**30
    assert found.power_w == pytest.approx(207)
    assert found.power_limit_w == pytest.approx(212)
    assert (found.utilization_percent, found.memory_utilization_percent) == (93, 41)
    assert found.core_clock_mhz == pytest.approx(2431)
    assert found.memory_clock_mhz == pytest.approx(1218)
    assert found.fan_rpm == 1450
    assert found.fan_percent == pytest.approx(40)
    assert found.throttle_reasons is None
    assert found.error is None


@pytest.mark.parametrize(
    ("power", "watts"),
    [
        ({"power1_average": "90000000", "power1_input": "95000000"}, 90),
        ({"power1_input": "95000000"}, 95),
        ({"power1_average": "0", "power1_input": "95000000"}, 95),
        ({"power1_average": "0"}, None),
        ({"power1_average": ""}, None),
        ({}, None),
    ],
)
def test_power_is_the_average_else_the_input_else_unknown(power, watts, sysfs):
    sysfs.card(0, hwmon={"name": "amdgpu", **power})
    found = only(sysfs)
    assert found.power_w == watts
    assert found.error is None


def test_a_card_without_an_edge_sensor_takes_the_junctions_limit(sysfs):
    sensors = {"temp1_label": "junction", "temp1_input": "50000", "temp1_crit": "95000"}
    sysfs.card(0, hwmon=sensors)
    found = only(sysfs)
    assert (found.temperature_c, found.junction_temperature_c) == (None, 50)
    assert found.temperature_limit_c == 95
    assert found.memory_temperature_c is None


def test_an_old_kernel_without_labels_has_the_edge_sensor(sysfs):
    sysfs.card(0, hwmon={"temp1_input": "44000"})
    assert only(sysfs).temperature_c == 44


def test_a_card_without_sensors_still_tells_its_memory(sysfs):
    folder = sysfs.card(0)
    shutil.rmtree(folder / "hwmon")
    found = only(sysfs)
    assert found.vram_used_bytes == 12 * 2**30
    assert (found.temperature_c, found.power_w, found.fan_rpm) == (None, None, None)


def test_a_fan_that_stands_still_and_an_idle_card_are_zero_not_unknown(sysfs):
    folder = sysfs.card(0)
    (folder / "gpu_busy_percent").write_text("0\n")
    (folder / "hwmon/hwmon3/fan1_input").write_text("0\n")
    found = only(sysfs)
    assert (found.utilization_percent, found.fan_rpm) == (0, 0)


@pytest.mark.parametrize("size", [0, 3, 60, 4096])
def test_nonsense_in_the_files_is_unknown_and_no_error(size, sysfs):
    folder = sysfs.card(0)
    for file in (folder / "hwmon/hwmon3").iterdir():
        if not file.name.endswith("_label"):
            file.write_bytes(b"\xfe" * size)
    (folder / "gpu_metrics").write_bytes(b"\xfe" * size)
    found = only(sysfs)
    assert (found.temperature_c, found.power_w) == (None, None)
    assert found.throttle_reasons is None
    assert found.utilization_percent == 93


HOT = 1 << 36 | 1 << 0 | 1 << 19


@pytest.mark.parametrize(
    ("table", "reasons"),
    [
        (
            metrics((1, 3), 120, 112, HOT),
            ("current_tdc_vdd", "power_ppt0", "thermal_hotspot"),
        ),
        (metrics((1, 3), 120, 112, 0), ()),
        (metrics((2, 2), 128, 120, 1 << 33), ("thermal_core",)),
        (metrics((2, 4), 168, 120, 1 << 62), (f"unknown_{1 << 62:#x}",)),
        (metrics((1, 3), 120, 112, 2**64 - 1), None),
        (metrics((1, 2), 120, 112, HOT), None),
        (metrics((1, 5), 300, 112, HOT), None),
        (metrics((1, 3), 120, 112, HOT)[:119], None),
    ],
)
def test_why_it_is_slower_in_the_versions_that_say_it(table, reasons, sysfs):
    sysfs.card(0, device={"vendor": "0x1002", "gpu_metrics": table})
    assert only(sysfs).throttle_reasons == reasons


def test_a_sleeping_card_is_not_woken(sysfs):
    folder = sysfs.card(0)
    (folder / "power").mkdir()
    (folder / "power/runtime_status").write_text("suspended\n")
    found = only(sysfs)
    assert "sleeps" in found.error
    assert found.temperature_c is None
    assert found.vram_total_bytes == 16 * 2**30


def test_the_product_is_the_boards_else_that_of_libdrms_list(sysfs, tmp_path):
    folder = sysfs.card(0)
    names = tmp_path / "amdgpu.ids"
    names.write_text(
        "# List of AMDGPU IDs\n1.0.0\n"
        "747E,\tC8,\tAMD Radeon RX 7800 XT\n747E,\tFF,\tAMD Radeon RX 7700 XT\n"
    )
    assert only(sysfs, names_path=names).name == "AMD Radeon RX 7800 XT"
    assert only(sysfs, names_path=tmp_path / "none").name is None
    (folder / "product_name").write_text("Instinct MI210\n")
    assert only(sysfs, names_path=names).name == "Instinct MI210"


def test_the_driver_is_amds_own_version_else_the_kernels(sysfs):
    folder = sysfs.card(0)
    assert only(sysfs).driver is None
    (folder / "driver/module").mkdir(parents=True)
    assert only(sysfs).driver == os.uname().release
    (folder / "driver/module/version").write_text("6.12.12\n")
    assert only(sysfs).driver == "6.12.12"


def test_cards_of_others_connectors_and_rubbish_are_left_out(sysfs):
    sysfs.card(0, pci="0000:01:00.0", device={"vendor": "0x10de"})
    sysfs.card(1, pci="0000:02:00.0")
    sysfs.card(10, pci="0000:0a:00.0")
    sysfs.card(2, pci="0000:09:00.0")
    for other in ("card1-DP-1", "renderD128", "version", "cardx"):
        (sysfs.root / other).mkdir()
    found = AmdgpuSysfs(sysfs.root).read(1)
    assert [card.index for card in found] == [0, 1, 2]
    assert [card.uuid for card in found] == [
        "0000:02:00.0",
        "0000:09:00.0",
        "0000:0a:00.0",
    ]


def test_the_address_may_stand_in_uevent(sysfs):
    folder = sysfs.card(0, pci="some-name")
    (folder / "uevent").write_text("DRIVER=amdgpu\nPCI_SLOT_NAME=0000:AF:00.0\n")
    assert only(sysfs).uuid == "0000:af:00.0"


@pytest.mark.parametrize("make", [lambda root: None, lambda root: root.rmdir()])
def test_no_card_is_a_reason(make, sysfs):
    make(sysfs.root)
    with pytest.raises(Unavailable, match=str(sysfs.root)):
        AmdgpuSysfs(sysfs.root).read(1)


def test_a_card_that_is_pulled_out_is_an_error_and_the_others_stay(sysfs):
    sysfs.card(0, pci="0000:03:00.0")
    gone = sysfs.card(1, pci="0000:07:00.0")
    source = AmdgpuSysfs(sysfs.root)
    assert [card.error for card in source.read(1)] == [None, None]
    shutil.rmtree(gone)
    first, second = source.read(1)
    assert (first.error, first.power_w) == (None, pytest.approx(207))
    assert (second.uuid, second.power_w) == ("0000:07:00.0", None)
    assert "gone" in second.error
    shutil.rmtree(sysfs.root / "card1")
    assert "gone" in source.read(1)[1].error
    sysfs.card(1, pci="0000:07:00.0")
    assert [card.error for card in source.read(1)] == [None, None]


def test_a_card_that_is_plugged_in_is_found(sysfs):
    sysfs.card(0)
    source = AmdgpuSysfs(sysfs.root)
    source.read(1)
    sysfs.card(1, pci="0000:44:00.0")
    assert [card.uuid for card in source.read(1)] == ["0000:03:00.0", "0000:44:00.0"]


def test_sensors_are_found_again_after_the_driver_was_loaded_anew(sysfs):
    folder = sysfs.card(0)
    source = AmdgpuSysfs(sysfs.root)
    source.read(1)
    (folder / "hwmon/hwmon3").rename(folder / "hwmon/hwmon9")
    (found,) = source.read(1)
    assert found.temperature_c == 61
