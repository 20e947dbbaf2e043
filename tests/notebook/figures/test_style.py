"""What holds for every figure."""

import subprocess
import sys

import pandas as pd
import pytest

from agentfarm.notebook import figures
from agentfarm.notebook.figures import _style as style

OF_REQUESTS = (
    figures.latency_histogram,
    figures.tokens_per_agent,
    figures.tokens_per_second_over_time,
    figures.ttft,
)


def luminance(colour):
    """Relative luminance of an sRGB colour, as WCAG 2.1 defines it."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("page", ["#FFFFFF", "#111111"])
def test_text_and_lines_are_readable_on_both_pages(page):
    assert contrast(style.TEXT, page) >= 4.0
    for colour in (style.BLUE, style.GREEN, style.ERROR):
        assert contrast(colour, page) >= 3.0


@pytest.mark.parametrize("draw", [*OF_REQUESTS, figures.score_by_task])
def test_an_empty_frame_says_what_to_do(draw, requests, samples):
    of_requests = draw in OF_REQUESTS
    for frame in (pd.DataFrame(), (requests if of_requests else samples)()):
        figure = draw(frame)
        assert figure.data == ()
        [sentence] = figure.layout.annotations
        assert "evals.run(" in sentence.text
        assert figure.layout.title.text


@pytest.mark.parametrize("draw", OF_REQUESTS)
def test_a_figure_is_the_same_each_time_and_leaves_its_frame_alone(draw, requests):
    frame = requests({}, {"agent": "a"}, {"status": "error", "ttft_s": None})
    before = frame.copy(deep=True)
    assert draw(frame).to_json() == draw(frame).to_json()
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("draw", OF_REQUESTS)
def test_the_page_shines_through_and_a_template_may_replace_the_look(draw, requests):
    figure = draw(requests({}))
    assert figure.layout.template.layout.paper_bgcolor == "rgba(0, 0, 0, 0)"
    assert figure.layout.paper_bgcolor is None
    assert figure.layout.font.color is None


def test_what_is_pointed_at_is_told_with_its_unit(requests):
    frame = requests({}, {"latency_s": 0.9})
    assert "500 ms to 580 ms" in figures.latency_histogram(frame).data[0].hovertext
    assert figures.ttft(frame).data[0].hovertemplate.endswith(" s<extra></extra>")
    rates = figures.tokens_per_second_over_time(frame).data[0].hovertext
    assert rates[0] == "<b>tiny</b><br>40 tokens/s<br>5 output tokens"
    spent = figures.tokens_per_agent(frame).data[0].hovertext
    assert spent == ("<b>no agent</b><br>20 input tokens in 2 requests",)


def test_the_package_loads_no_plotly_before_a_figure_is_asked_for():
    code = "import sys, agentfarm.notebook; print('plotly' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (0, "0 ms"),
        (0.0123, "12.3 ms"),
        (0.9999, "1 s"),
        (1.5, "1.5 s"),
        (12345.6, "12,346 s"),
    ],
)
def test_seconds_are_told_in_the_unit_that_fits(value_s, text):
    assert style.seconds(value_s) == text


PREFIX = "Summarise the quarterly report of the north "


def test_names_that_begin_alike_are_not_merged(samples, requests):
    frame = samples(
        {"task": f"{PREFIX}1", "score": 1.0, "ttft_s": 0.1},
        {"task": f"{PREFIX}2", "score": 0.0, "ttft_s": 0.3},
    )
    bars = figures.score_by_task(frame).data[0]
    assert len(set(bars.y)) == 2
    assert bars.x == (1.0, 0.0)
    boxes = figures.ttft(frame, by="task").data
    assert [box.median for box in boxes] == [(0.1,), (0.3,)]
    assert len({box.y for box in boxes}) == 2
    spent = requests(
        {"agent": f"{PREFIX}1", "input_tokens": 5},
        {"agent": f"{PREFIX}2", "input_tokens": 7},
        {"agent": f"{PREFIX}2", "input_tokens": 7},
    )
    assert sorted(figures.tokens_per_agent(spent).data[0].x) == [5.0, 14.0]


def test_a_number_that_is_not_finite_is_unknown(requests):
    frame = requests({"latency_s": 0.2}, {"latency_s": 0.4})
    frame.loc[1, "latency_s"] = float("inf")
    figure = figures.latency_histogram(frame)
    assert sum(figure.data[0].y) == 1
    assert "1 of unknown latency" in figure.layout.title.subtitle.text


def test_a_figure_of_many_rows_is_not_endlessly_tall(samples):
    frame = samples(*({"task": f"task {number}"} for number in range(400)))
    assert figures.score_by_task(frame).layout.height <= 6000
    assert figures.ttft(frame, by="task").layout.height <= 6000
    assert len(figures.score_by_task(frame).data[0].y) == 400
