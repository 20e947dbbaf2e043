"""Names for why a GPU is slower than it could be, by vendor."""

from __future__ import annotations

# Bits of nvmlClocksEventReasons in nvml.h; nvidia-smi prints the same mask.
_NVIDIA_IDLE = 0x1
_NVIDIA = {
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}

# Bits of indep_throttle_status: SMU_THROTTLER_*_BIT in the kernel's amdgpu_smu.h.
_AMD = {
    0: "power_ppt0",
    1: "power_ppt1",
    2: "power_ppt2",
    3: "power_ppt3",
    4: "power_spl",
    5: "power_fppt",
    6: "power_sppt",
    7: "power_sppt_apu",
    16: "current_tdc_gfx",
    17: "current_tdc_soc",
    18: "current_tdc_mem",
    19: "current_tdc_vdd",
    20: "current_tdc_cvip",
    21: "current_edc_cpu",
    22: "current_edc_gfx",
    23: "current_apcc",
    32: "thermal_gpu",
    33: "thermal_core",
    34: "thermal_mem",
    35: "thermal_edge",
    36: "thermal_hotspot",
    37: "thermal_soc",
    38: "thermal_vr_gfx",
    39: "thermal_vr_soc",
    40: "thermal_vr_mem0",
    41: "thermal_vr_mem1",
    42: "thermal_liquid0",
    43: "thermal_liquid1",
    44: "thermal_vrhot0",
    45: "thermal_vrhot1",
    46: "thermal_prochot_cpu",
    47: "thermal_prochot_gfx",
    56: "ppm",
    57: "fit",
}
_AMD_MASKS = {1 << bit: name for bit, name in _AMD.items()}

# Where indep_throttle_status lies in amdgpu's table gpu_metrics, by the version in
# its header: struct gpu_metrics_v* in the kernel's kgd_pp_interface.h. Others have
# none.
_AMD_OFFSETS = {(1, 3): 112, (2, 2): 120, (2, 3): 120, (2, 4): 120}
_NEVER_SET = 2**64 - 1


def nvidia_reasons(mask: int) -> tuple[str, ...]:
    """Names of the bits of NVML's mask; being idle is no reason."""
    return _names(mask & ~_NVIDIA_IDLE, _NVIDIA)


def amdgpu_reasons(table: bytes) -> tuple[str, ...] | None:
    """Names out of the table ``gpu_metrics`` of amdgpu; None where it has none."""
    if len(table) < 4:
        return None
    offset = _AMD_OFFSETS.get((table[2], table[3]))
    if offset is None or len(table) < offset + 8:
        return None
    mask = int.from_bytes(table[offset : offset + 8], "little")
    return None if mask == _NEVER_SET else _names(mask, _AMD_MASKS)


def _names(mask: int, names: dict[int, str]) -> tuple[str, ...]:
    bits = (1 << bit for bit in range(mask.bit_length()) if mask >> bit & 1)
    return tuple(sorted(names.get(bit, f"unknown_{bit:#x}") for bit in bits))
