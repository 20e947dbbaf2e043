"""What happens where the receiver is not as one would wish, and how fast it ends."""

import logging
import socket
import time

import pytest

from agentfarm.errors import ConfigError
from agentfarm.events import EventType
from agentfarm.monitoring import _otlp
from agentfarm.monitoring._otlp import SpanExport


@pytest.fixture
def nowhere() -> str:
    """An address on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def answer(bus, record):
    def answer(count=1):
        for number in range(count):
            done = record(str(number))
            data = {"record": done, "text": ""}
            bus.emit(EventType.LLM_RESPONSE, data, request_id=done.request_id)

    return answer


def seconds(work, *args) -> float:
    start = time.monotonic()
    work(*args)
    return time.monotonic() - start


def test_spans_go_to_the_path_of_traces_with_the_headers(receiver, export, answer):
    for endpoint in ("", "/", "/v1/traces", "/base/"):
        exported = export(f"{receiver.url}{endpoint}", headers={"X-Key": "k"})
        answer()
        exported.close()
        assert exported.sent == 1
    paths = [path for path, _ in receiver.asked]
    assert paths[-4:] == ["/v1/traces"] * 3 + ["/base/v1/traces"]
    assert all(headers.get("x-key") == "k" for _, headers in receiver.asked)


def test_spans_are_sent_while_the_program_runs(receiver, export, answer):
    exported = export()
    answer(_otlp._BATCH)
    receiver.wait_asked(1)
    exported.close()
    assert exported.sent == _otlp._BATCH


def test_a_receiver_that_is_away_is_logged_once_and_closing_is_quick(
    export, answer, nowhere, caplog
):
    exported = export(nowhere)
    answer(3 * _otlp._BATCH)
    assert seconds(exported.close) < 2
    assert (exported.sent, exported.dropped) == (0, 3 * _otlp._BATCH)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([record for record in told if "could not be sent" in record.message]) > 0
    assert {record.name for record in told} == {"agentfarm.otlp"}
    assert len(told) <= 2


@pytest.mark.parametrize(("status", "why"), [(503, "503"), (400, "400"), (307, "307")])
def test_a_receiver_that_refuses_gets_no_second_try_at_closing(
    receiver, export, answer, caplog, status, why
):
    receiver.status = status
    exported = export()
    answer()
    assert seconds(exported.close) < 2
    assert (exported.sent, exported.dropped) == (0, 1)
    assert why in caplog.text
    # A redirect may lead anywhere, so it is not followed.
    assert {path for path, _ in receiver.asked} == {"/v1/traces"}


def test_a_receiver_that_never_answers_holds_up_neither_events_nor_the_end(
    receiver, export, answer, caplog
):
    receiver.hold.clear()
    exported = export()
    answer(_otlp._BATCH)
    receiver.wait_asked(1)
    assert seconds(answer, 100) < 1
    assert seconds(exported.close, 0.5) < 2
    assert exported.dropped == _otlp._BATCH + 100
    assert "at closing" in caplog.text


def test_a_full_queue_drops_and_counts_and_says_nothing(
    receiver, export, answer, caplog
):
    receiver.hold.clear()
    exported = export()
    answer(_otlp._BATCH)
    receiver.wait_asked(1)
    answer(_otlp._QUEUE + 10)
    assert exported.dropped == 10
    assert caplog.records == []
    receiver.hold.set()
    exported.close()
    assert exported.sent == _otlp._BATCH + _otlp._QUEUE
    assert exported.dropped == 10


def test_a_receiver_that_comes_back_gets_spans_again(receiver, export, answer, caplog):
    caplog.set_level(logging.INFO, "agentfarm.otlp")
    receiver.status = 400
    exported = export()
    for failures in (1, 2):
        answer(_otlp._BATCH)
        receiver.wait_asked(failures)
    receiver.status = 200
    answer(_otlp._BATCH)
    receiver.wait_asked(3)
    exported.close()
    assert (exported.sent, exported.dropped) == (_otlp._BATCH, 2 * _otlp._BATCH)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_proxy_of_the_environment_is_not_asked(
    receiver, export, answer, nowhere, monkeypatch
):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, nowhere)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    exported = export()
    answer()
    exported.close()
    assert exported.sent == 1


def test_the_log_of_another_exporter_is_left_alone(receiver, export, answer, caplog):
    log = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    receiver.hold.clear()
    exported = export()
    answer(_otlp._BATCH)
    receiver.wait_asked(1)
    log.warning("of another")
    receiver.hold.set()
    exported.close()
    assert caplog.messages == ["of another"]
    assert log.filters == []


def test_closing_twice_is_fine(receiver, export, answer):
    exported = export()
    answer()
    exported.close()
    exported.close()
    assert len(receiver.spans) == 1


@pytest.mark.parametrize(
    "endpoint",
    [
        "127.0.0.1:4318",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:port",
        "http://me:hunter2@127.0.0.1:4318",
        "http://127.0.0.1:4318?key=hunter2",
    ],
)
def test_what_is_no_address_is_refused_without_showing_a_secret(endpoint):
    with pytest.raises(ConfigError, match="OTLP") as caught:
        SpanExport(endpoint)
    assert "hunter2" not in str(caught.value)
