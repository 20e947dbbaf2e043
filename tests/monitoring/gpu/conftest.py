"""Stand-ins at the outermost edge: programs on a PATH, a sysfs tree, NVML's C functions."""

import ctypes
import importlib.util
import json
import os
import select
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from agentfarm.monitoring import GPUMonitor

if TYPE_CHECKING:
    import threading

INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NOT_FOUND = 6


class Toolbox:
    """A folder of executables; `path` is what to search."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @property
    def path(self) -> str:
        return str(self.folder)

    def add(self, name: str, script: str) -> Path:
        """An executable that counts its calls and then does this."""
        file = self.folder / name
        file.write_text(f'#!/bin/sh\necho "$*" >> "$0.calls"\n{script}\n')
        file.chmod(0o755)
        return file

    def says(self, name: str, text: str, *, code: int = 0, err: str = "") -> Path:
        """An executable that prints a text."""
        (self.folder / f"{name}.out").write_text(text)
        (self.folder / f"{name}.err").write_text(err)
        return self.add(name, f'/bin/cat "$0.out"; /bin/cat "$0.err" >&2; exit {code}')

    def calls(self, name: str) -> list[str]:
        """The arguments of each call so far."""
        file = self.folder / f"{name}.calls"
        return file.read_text().splitlines() if file.exists() else []

    def fifo(self, name: str) -> Path:
        """A named pipe, for a script and a test to wait for each other."""
        path = self.folder / name
        os.mkfifo(path)
        return path

    def hang(self, name: str) -> Path:
        """An executable that never ends, after it has told its id to this pipe."""
        ready = self.fifo(f"{name}.ready")
        self.add(name, f'echo $$ > "{ready}"\nexec /bin/sleep 600')
        return ready


def heard(pipe: Path, timeout_s: float = 30) -> str:
    """What comes out of a named pipe first."""
    # Open on both sides, so that neither opening nor reading waits for a writer.
    end = os.open(pipe, os.O_RDWR)
    try:
        assert select.select([end], [], [], timeout_s)[0], f"nothing from {pipe}"
        return os.read(end, 4096).decode()
    finally:
        os.close(end)


@pytest.fixture
def hear():
    """Waits for what comes out of a named pipe."""
    return heard


@pytest.fixture
def toolbox(tmp_path) -> Toolbox:
    return Toolbox(tmp_path / "bin")


class Sysfs:
    """A folder like /sys/class/drm, with cards of the driver amdgpu."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "drm"
        self.devices = folder / "devices"
        self.root.mkdir(parents=True)

    def card(
        self,
        number: int,
        *,
        pci: str = "0000:03:00.0",
        device: dict[str, str | bytes] | None = None,
        hwmon: dict[str, str] | None = None,
    ) -> Path:
        """Add a card; without `device` or `hwmon`, one with all values."""
        folder = self.devices / pci
        (self.root / f"card{number}").mkdir()
        (self.root / f"card{number}" / "device").symlink_to(folder)
        write(folder, DEVICE if device is None else device)
        write(
            folder / "hwmon" / f"hwmon{number + 3}", HWMON if hwmon is None else hwmon
        )
        return folder


def write(folder: Path, files: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else f"{content}\n".encode()
        (folder / name).write_bytes(data)


DEVICE: dict[str, Any] = {
    "vendor": "0x1002",
    "device": "0x747e",
    "revision": "0xc8",
    "gpu_busy_percent": "93",
    "mem_busy_percent": "41",
    "mem_info_vram_used": str(12 * 2**30),
    "mem_info_vram_total": str(16 * 2**30),
}
HWMON: dict[str, str] = {
    "name": "amdgpu",
    # Not in the order of the numbers that other cards have.
    "temp1_label": "edge",
    "temp1_input": "61000",
    "temp1_crit": "100000",
    "temp2_label": "mem",
    "temp2_input": "82000",
    "temp3_label": "junction",
    "temp3_input": "77000",
    "freq1_label": "sclk",
    "freq1_input": "2431000000",
    "freq2_label": "mclk",
    "freq2_input": "1218000000",
    "power1_label": "PPT",
    "power1_average": "207000000",
    "power1_cap": "212000000",
    "fan1_input": "1450",
    "pwm1": "102",
}


@pytest.fixture
def sysfs(tmp_path) -> Sysfs:
    return Sysfs(tmp_path / "sys")


def nvidia_card(**values: Any) -> dict[str, Any]:
    """What NVML's functions answer for a card; a number alone is an error code."""
    card: dict[str, Any] = {
        "UUID": "GPU-11111111-2222-3333-4444-555555555555",
        "Name": "NVIDIA RTX 6000 Ada Generation",
        "Temperature": 71,
        "TemperatureThreshold": 92,
        "PowerUsage": 281_500,
        "EnforcedPowerLimit": 300_000,
        "UtilizationRates": (98, 55),
        "ClockInfo": {0: 2505, 2: 10001},
        "NumFans": 2,
        "FanSpeed_v2": {0: 40, 1: 62},
        "FanSpeedRPM": 2150,
        "CurrentClocksEventReasons": 0x4,
        "MemoryInfo_v2": (48 * 2**30, 30 * 2**30),
        "MemoryInfo": (48 * 2**30, 31 * 2**30),
        "FieldValues": {},
        "MigMode": (0, 0),
    }
    return {k: v for k, v in {**card, **values}.items() if v is not None}


class NvmlLibrary:
    """libnvidia-ml.so.1: the C functions, under the real binding nvidia-ml-py.

    A value that a card lacks is answered with "not supported"; a card with ``error``
    answers everything with that code.
    """

    def __init__(self, *cards: dict[str, Any]) -> None:
        self.cards = list(cards)
        self.init_code = 0
        self.inits = self.shutdowns = 0
        self.missing: set[str] = set()
        """Functions that this version of the library does not have."""
        self.gate: threading.Event | None = None
        """What a reading of the temperature waits for, if anything."""
        self._handles: list[dict[str, Any]] = []

    def module(self) -> ModuleType:
        """A `pynvml` of its own that has loaded this library."""
        found = importlib.util.find_spec("pynvml")
        assert found is not None
        name = f"pynvml_{id(self)}"
        spec = importlib.util.spec_from_file_location(name, found.origin)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        finally:
            del sys.modules[name]  # it looks itself up only while it is made
        module.nvmlLib = self  # type: ignore[attr-defined]
        return module

    def reset(self) -> None:
        """Make all handles of before invalid, as a reset of the card does."""
        for handle in range(len(self._handles)):
            self._handles[handle] = {"error": INVALID_ARGUMENT}

    def __getattr__(self, name: str) -> Any:
        if name in self.missing or not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)
        return lambda handle, *rest: self._answer(name[13:], handle, rest)

    def nvmlInitWithFlags(self, flags: int) -> int:  # noqa: N802
        del flags
        self.inits += self.init_code == 0
        return self.init_code

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.shutdowns += 1
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, length: Any) -> int:  # noqa: N802
        del length
        text.value = b"570.86.15"
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.cards)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, out: Any) -> int:  # noqa: N802
        return self._hand_out(self.cards[index.value], out)

    def nvmlDeviceGetMigDeviceHandleByIndex(  # noqa: N802
        self, handle: Any, index: Any, out: Any
    ) -> int:
        instance = self._card(handle)["instances"][index.value]
        return NOT_FOUND if instance is None else self._hand_out(instance, out)

    def _hand_out(self, card: dict[str, Any], out: Any) -> int:
        if "error" in card:
            return int(card["error"])
        self._handles.append(card)
        address = ctypes.addressof(out._obj)
        ctypes.c_void_p.from_address(address).value = len(self._handles)
        return 0

    def _card(self, handle: Any) -> dict[str, Any]:
        return self._handles[ctypes.cast(handle, ctypes.c_void_p).value - 1]

    def _answer(self, what: str, handle: Any, rest: tuple[Any, ...]) -> int:
        card = self._card(handle)
        if "error" in card:
            return int(card["error"])
        if what == "Temperature" and self.gate is not None:
            self.gate.wait()
        if what not in card:
            return NOT_SUPPORTED
        return fill(what, card[what], rest)


def fill(what: str, value: Any, rest: tuple[Any, ...]) -> int:
    """Write a value where the caller of the C function wants it."""
    out = getattr(rest[-1], "_obj", None)
    match what:
        case "UUID" | "Name":
            rest[0].value = value.encode()
        case "ClockInfo" | "FanSpeed_v2":
            which = rest[0].value if hasattr(rest[0], "value") else rest[0]
            if which not in value:
                return NOT_SUPPORTED
            out.value = value[which]
        case "UtilizationRates":
            out.gpu, out.memory = value
        case "MemoryInfo" | "MemoryInfo_v2":
            out.total, out.used = value
        case "FanSpeedRPM":
            out.speed = value
        case "MigMode":
            rest[0]._obj.value, rest[1]._obj.value = value
        case "FieldValues":
            for field in out:
                known = field.fieldId in value
                field.nvmlReturn = 0 if known else NOT_SUPPORTED
                field.value.uiVal = value.get(field.fieldId, 123)
        case _:
            out.value = value
    return 0


@pytest.fixture
def nvml():
    """Makes the C library NVML with these cards."""
    return NvmlLibrary


@pytest.fixture
def card():
    """Makes the answers of an NVIDIA card."""
    return nvidia_card


@pytest.fixture
def no_nvml():
    """NVML without a driver."""
    library = NvmlLibrary()
    library.init_code = 9
    return library.module()


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_monitor(sysfs, toolbox, no_nvml, clock):
    """Makes a monitor that sees nothing of this machine; closed after the test."""
    made = []

    def make(**options: Any) -> GPUMonitor:
        defaults = {
            "drm_path": sysfs.root,
            "search_path": toolbox.path,
            "nvml": no_nvml,
            "clock": clock,
        }
        made.append(GPUMonitor(**{**defaults, **options}))
        return made[-1]

    yield make
    for monitor in made:
        monitor.close()


def amd_smi_card(index: int = 0, **sections: Any) -> dict[str, Any]:
    """A card as ``amd-smi metric --json`` of ROCm 6.4 prints it, with made-up values."""
    card = json.loads(Path(__file__).with_name("amd_smi_card.json").read_text())
    return {**card, "gpu": index, **sections}


@pytest.fixture
def amd_card():
    """Makes a card as amd-smi prints it."""
    return amd_smi_card


@pytest.fixture
def amd_smi(toolbox):
    """Puts an amd-smi on the PATH that prints these cards, and returns its file."""

    def install(*cards: dict[str, Any]) -> Path:
        listed = list(cards) or [amd_smi_card()]
        (toolbox.folder / "metric.json").write_text(json.dumps(listed))
        (toolbox.folder / "static.json").write_text("[]")
        return toolbox.add("amd-smi", f'/bin/cat "{toolbox.path}/$1.json"')

    return install


@pytest.fixture
def ended():
    """Whether a process has ended, waiting for that; a zombie has."""

    def check(pid: int) -> bool:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            psutil.wait_procs([process], timeout=10)
            return process.status() == psutil.STATUS_ZOMBIE
        return True

    return check
