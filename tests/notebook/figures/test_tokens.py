import pytest

from agentfarm.errors import EvalError
from agentfarm.notebook import figures


def named(figure, name):
    [trace] = [trace for trace in figure.data if trace.name == name]
    return trace


def notes(figure):
    return figure.layout.title.subtitle.text


def test_rates_stand_at_their_start_in_utc_by_model(requests):
    frame = requests(
        {"output_tokens_per_s": 40.0},
        {"output_tokens_per_s": 50.0, "model": "big"},
        {"output_tokens_per_s": 60.0, "server_tokens_per_s": 61.5},
    )
    figure = figures.tokens_per_second_over_time(frame)
    tiny = named(figure, "tiny")
    assert tiny.x == ("2026-09-21T14:13:20.000", "2026-09-21T14:13:22.000")
    assert tiny.y == (40.0, 60.0)
    assert tiny.marker.symbol != named(figure, "big").marker.symbol
    assert "61.5 tokens/s by the server" in tiny.hovertext[1]
    assert "UTC" in figure.layout.xaxis.title.text
    assert figure.layout.yaxis.title.text.endswith("(tokens/s)")
    assert "median 50 tokens/s" in notes(figure)


def test_rows_in_any_order_draw_the_same(requests):
    frame = requests(*({"output_tokens_per_s": float(n)} for n in range(5)))
    draw = figures.tokens_per_second_over_time
    assert draw(frame.iloc[::-1]).to_json() == draw(frame).to_json()


def test_ten_requests_get_a_rolling_median(requests):
    rates = [10.0] * 9 + [1000.0, 20.0]
    frame = requests(*({"output_tokens_per_s": rate} for rate in rates))
    figure = figures.tokens_per_second_over_time(frame)
    assert named(figure, "tiny, median of 10").y[-1] == 10.0
    few = figures.tokens_per_second_over_time(frame.head(9))
    assert len(few.data) == 1


def test_an_unknown_rate_is_not_drawn_and_a_failure_stands_apart(requests):
    frame = requests(
        {"tokens_estimated": True},
        {"output_tokens_per_s": None},
        {"output_tokens_per_s": None, "status": "error", "error_type": "RateLimited"},
    )
    figure = figures.tokens_per_second_over_time(frame)
    assert named(figure, "tiny").y == (40.0,)
    failed = named(figure, "failed (1)")
    assert failed.yaxis == "y2"
    assert failed.marker.symbol == "x"
    assert "RateLimited" in failed.hovertext[0]
    assert "2 of unknown rate, not shown" in notes(figure)
    assert "1 from estimated token counts" in notes(figure)


def test_tokens_sum_up_per_agent_with_the_unknown_apart(requests):
    frame = requests(
        {"agent": "planner", "input_tokens": 10, "output_tokens": 1},
        {"agent": "planner", "input_tokens": 20, "output_tokens": None},
        {"agent": "coder", "input_tokens": 100, "output_tokens": 100},
        {"agent": "silent", "input_tokens": None, "output_tokens": None},
        {"agent": None, "input_tokens": 5, "output_tokens": 5, "status": "error"},
    )
    figure = figures.tokens_per_agent(frame)
    spent = {
        trace.name: dict(zip(trace.y, trace.x, strict=True)) for trace in figure.data
    }
    assert spent == {
        "input tokens": {"planner": 30, "coder": 100, "no agent": 5},
        "output tokens": {"planner": 1, "coder": 100, "no agent": 5},
    }
    assert figure.layout.yaxis.categoryarray[-1] == "coder"  # on top
    assert "2 of unknown count, not in the sums" in notes(figure)
    assert "1 failed" in notes(figure)
    assert figure.layout.xaxis.title.text == "Tokens"


def test_nothing_known_says_why(requests):
    silent = requests(
        {"input_tokens": None, "output_tokens": None, "output_tokens_per_s": None}
    )
    for draw in (figures.tokens_per_agent, figures.tokens_per_second_over_time):
        figure = draw(silent)
        assert figure.data == ()
        assert "None of the 1 request" in figure.layout.annotations[0].text


def test_a_missing_column_is_named(requests):
    with pytest.raises(EvalError, match=r"tokens_per_agent\(\).*agent"):
        figures.tokens_per_agent(requests({}).drop(columns="agent"))
    frame = requests({}).drop(columns="server_tokens_per_s")
    with pytest.raises(EvalError, match="server_tokens_per_s"):
        figures.tokens_per_second_over_time(frame)
