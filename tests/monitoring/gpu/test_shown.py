"""How a snapshot shows itself: in a terminal, in a notebook, as JSON."""

import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from agentfarm.monitoring import GPUReading, GPUSnapshot

FULL = GPUReading(
    uuid="0000:03:00.0",
    index=0,
    vendor="amd",
    source="amdgpu",
    name="AMD Radeon RX 7900 XT",
    driver="6.12.12",
    temperature_c=63.0,
    junction_temperature_c=79.0,
    memory_temperature_c=84.0,
    temperature_limit_c=100.0,
    vram_used_bytes=12 * 2**30,
    vram_total_bytes=20 * 2**30,
    power_w=251.4,
    power_limit_w=280.0,
    utilization_percent=87.0,
    memory_utilization_percent=0.0,
    core_clock_mhz=2390.0,
    memory_clock_mhz=1249.0,
    fan_percent=38.0,
    throttle_reasons=("thermal_hotspot",),
)
BARE = GPUReading(uuid="GPU-<1>", index=1, vendor="nvidia", source="nvml")
LOST = GPUReading(
    uuid="GPU-2", index=2, vendor="nvidia", source="nvml", error="GPU is <lost>"
)
PART = GPUReading(
    uuid="MIG-1", index=1, vendor="nvidia", source="nvml", parent="GPU-<1>", name="1g"
)
ALL = GPUSnapshot(timestamp=1e9, gpus=(FULL, BARE, PART, LOST))
NONE = GPUSnapshot(
    timestamp=1e9,
    reason="No GPU found",
    tried=(("nvml", "no driver: [libnvidia-ml.so.1]"), ("amdgpu", "no <card>")),
)


def shown(snapshot: GPUSnapshot, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(snapshot)
    return out.getvalue()


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def cells(html: str) -> list[str]:
    parser = Cells()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser.texts


VALUES = ("87 %", "0 %", "12.0 GiB", "20.0 GiB", "251 W", "280 W", "63 °C", "100 °C")
OTHERS = ("79 °C", "84 °C", "2390 MHz", "1249 MHz", "38 %")


def test_a_terminal_of_80_columns_shows_every_value_with_its_unit():
    text = shown(ALL)
    for value in (*VALUES, *OTHERS):
        assert value in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "thermal_hotspot" in text


def test_a_wide_terminal_shows_names_reasons_and_errors_whole():
    text = shown(ALL, width=160)
    for words in ("AMD Radeon RX 7900 XT", "thermal_hotspot", "GPU is <lost>", "└ 1g"):
        assert words in text


def test_what_is_unknown_is_a_dash_and_not_a_zero():
    snapshot = GPUSnapshot(timestamp=1e9, gpus=(BARE,))
    first = shown(snapshot, width=160).split("nvidia GPU-<1>")[1].splitlines()[0]
    assert set(first) == {"-", " "}
    assert set(cells(snapshot._repr_html_())[-14:]) == {"-"}


def test_a_notebook_shows_the_same_as_html():
    texts = cells(ALL._repr_html_())
    for value in (*VALUES, *OTHERS):
        assert value in texts
    for words in ("AMD Radeon RX 7900 XT", "GPU is <lost>", "thermal_hotspot"):
        assert any(words in text for text in texts)


@pytest.mark.parametrize("show", [shown, lambda s: "\n".join(cells(s._repr_html_()))])
def test_without_a_gpu_it_says_why_and_what_to_do(show):
    text = " ".join(show(NONE).split())
    assert "No GPU found" in text
    assert "nvml: no driver: [libnvidia-ml.so.1]" in text
    assert "amdgpu: no <card>" in text
    assert "driver amdgpu" in text
    assert "nvidia-smi" in text


def test_a_card_that_nothing_slows_is_told_from_one_that_does_not_say():
    calm = replace(BARE, throttle_reasons=())
    for card, last in ((calm, "nothing"), (BARE, "-")):
        html = GPUSnapshot(timestamp=1e9, gpus=(card,))._repr_html_()
        assert cells(html)[-1] == last


def test_json_has_null_for_what_is_unknown():
    values = json.loads(json.dumps(ALL.to_dict()))
    assert [gpu["power_w"] for gpu in values["gpus"]] == [251.4, None, None, None]
    assert values["power_w"] is None
    assert values["gpus"][0]["throttle_reasons"] == ["thermal_hotspot"]
    assert json.loads(json.dumps(NONE.to_dict()))["tried"]["amdgpu"] == "no <card>"
