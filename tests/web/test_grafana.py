"""The Grafana dashboard asks for what `/metrics` says, and for nothing else."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from agentfarm.monitoring import GPUReading

BOARD = Path(__file__).parents[2] / "docs/infrastructure/grafana/agentfarm.json"
NAME = re.compile(r"\b(?:gen_ai_client|hw|agentfarm)_[a-z_]+(?=[{\[)]|$)")
LABEL = re.compile(r"([a-z_]+)(?:=~|!=|=)\"")
BY = re.compile(r"by \(([a-z_, ]+)\)")


@pytest.fixture(scope="module")
def board():
    return json.loads(BOARD.read_text())


@pytest.fixture(scope="module")
def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(panels):
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.fixture
async def series(http, ask, cards, farm, record) -> dict[str, set[str]]:
    """The labels of each name at `/metrics`, after a request and with a card."""
    cards.gpus = (
        GPUReading(
            uuid="GPU-1",
            index=0,
            vendor="nvidia",
            source="nvml",
            name="A card",
            temperature_c=40.0,
            vram_used_bytes=1,
            vram_total_bytes=2,
            power_w=100.0,
            power_limit_w=200.0,
            utilization_percent=50.0,
            core_clock_mhz=1000.0,
            throttle_reasons=(),
        ),
    )
    await ask(agent="planner")
    found: dict[str, set[str]] = {}
    for line in (await http.get("/metrics")).text.splitlines():
        if not line.startswith("#"):
            name, _, labels = line.partition("{")
            name = name.partition(" ")[0]
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


async def test_every_name_and_label_is_at_metrics(panels, series):
    asked = set()
    for expression in expressions(panels):
        names = NAME.findall(expression)
        assert names, expression
        labels = set(LABEL.findall(expression))
        labels |= {
            label.strip()
            for group in BY.findall(expression)
            for label in group.split(",")
        }
        for name in names:
            assert name in series, expression
            assert labels <= series[name], expression
        asked.update(names)
    assert {"hw_temperature_celsius", "hw_power_watts"} <= asked
    assert "gen_ai_client_operation_duration_seconds_bucket" in asked


async def test_legends_and_variables_use_labels_that_are_there(board, panels, series):
    for panel in panels:
        for target in panel["targets"]:
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            (name, *_) = NAME.findall(target["expr"])
            assert labels <= series[name], panel["title"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.findall(r"[a-z_]+", variable["definition"])[-2:]
            assert label in series[name], variable["name"]


def test_each_panel_has_a_unit_and_a_place_of_its_own(board, panels):
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({panel["title"] for panel in panels}) > 10
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below
