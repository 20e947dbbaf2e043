"""The live stream: order, batches, resuming, filters, and clients that do not read."""

import json
import socket as sockets
from pathlib import Path

import anyio
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agentfarm.config import WebSettings
from agentfarm.events import Event, EventBus, EventType
from agentfarm.web._hub import Client, Hub
from agentfarm.web._wire import Batch, Wanted, Wire, joined
from agentfarm.web.server import create_app

CHUNK = EventType.LLM_STREAM_CHUNK


async def message(socket):
    """The next message but heartbeats."""
    with anyio.fail_after(10):
        while True:
            found = json.loads(await socket.recv())
            if found["type"] != "heartbeat":
                return found


async def events(socket, count):
    """The next events, so many."""
    found = []
    while len(found) < count:
        given = await message(socket)
        assert given["type"] == "events"
        found += given["events"]
    assert len(found) == count
    return found


async def test_every_event_arrives_as_it_was_published(served, farm):
    async with served.socket() as socket:
        hello = await message(socket)
        assert hello["type"] == "hello"
        assert (hello["seq"], hello["missing"], hello["resumed"]) == (0, 0, False)
        given = farm.bus.emit(
            EventType.AGENT_MESSAGE,
            {"text": "Grüße", "odd": {1, 2}, "path": Path("/work/file")},
            run_id="r",
            agent="planner",
        )
        [found] = await events(socket, 1)
    assert found["timestamp"] == given.timestamp
    assert {**found, "timestamp": 0} == {
        "type": "agent_message",
        "seq": 1,
        "timestamp": 0,
        "run_id": "r",
        "agent": "planner",
        "request_id": None,
        "data": {
            "text": "Grüße",
            "odd": [1, 2],
            "path": "/work/file",
        },
    }


async def test_the_chunks_of_a_stream_come_joined_and_whole(served, farm):
    async with served.socket() as socket:
        await message(socket)
        words = [f"{n} " for n in range(200)]
        for word in words:
            for request in ("a", "b"):
                farm.bus.emit(CHUNK, {"text": word, "at_s": 1.0}, request_id=request)
        farm.bus.emit(EventType.LLM_RESPONSE, {}, request_id="a")
        found = []
        while not found or found[-1]["type"] != "llm_response":
            found += (await message(socket))["events"]
    assert len(found) < 50
    assert [each["seq"] for each in found] == sorted(each["seq"] for each in found)
    for request in ("a", "b"):
        chunks = [e["data"] for e in found if e["request_id"] == request][: len(found)]
        text = "".join(chunk.get("text", "") for chunk in chunks)
        assert text == "".join(words)


async def test_who_comes_back_misses_nothing_and_gets_nothing_twice(served, farm):
    async with served.socket() as socket:
        hello = await message(socket)
        farm.bus.emit(EventType.AGENT_MESSAGE, {"text": "one"})
        [seen] = await events(socket, 1)
    farm.bus.emit(EventType.AGENT_MESSAGE, {"text": "two"})
    query = f"?since={seen['seq']}&server_id={hello['server_id']}"
    async with served.socket(query) as socket:
        again = await message(socket)
        assert (again["resumed"], again["missing"]) == (True, 0)
        farm.bus.emit(EventType.AGENT_MESSAGE, {"text": "three"})
        found = await events(socket, 2)
    assert [each["data"]["text"] for each in found] == ["two", "three"]


async def test_what_is_gone_is_told(served, farm):
    for number in range(1500):
        farm.bus.emit(EventType.AGENT_MESSAGE, {"text": str(number)})
    async with served.socket() as socket:
        await message(socket)
        farm.bus.emit(EventType.AGENT_MESSAGE, {"text": "now"})
        await events(socket, 1)
    async with served.socket("?since=100") as socket:
        hello = await message(socket)
        assert hello["seq"] == 1501
        assert hello["oldest"] == 502
        assert hello["missing"] == 401
        assert (await events(socket, 1000))[0]["seq"] == 502


async def test_a_number_of_another_server_starts_over(served, farm):
    farm.bus.emit(EventType.AGENT_MESSAGE, {"text": "old"})
    async with served.socket() as first:
        await message(first)
        farm.bus.emit(EventType.AGENT_MESSAGE, {"text": "new"})
        await events(first, 1)
    for query in ("?since=1&server_id=another", "?since=99999"):
        async with served.socket(query) as socket:
            assert (await message(socket))["resumed"] is False
            assert len(await events(socket, 2)) == 2


async def test_a_client_gets_what_it_asked_for_and_may_change_its_mind(served, farm):
    query = "?types=agent_message,collaboration&run_id=r1"
    async with served.socket(query) as socket:
        await message(socket)
        for run, kind in (
            ("r1", EventType.AGENT_THINKING),
            ("r2", EventType.AGENT_MESSAGE),
            ("r1", EventType.AGENT_MESSAGE),
        ):
            farm.bus.emit(kind, run_id=run, agent="a")
        assert [each["seq"] for each in await events(socket, 1)] == [3]
        await socket.send(json.dumps({"type": "subscribe", "agent": "b"}))
        reply = await message(socket)
        assert reply["type"] == "subscribed"
        assert (reply["agent"], reply["types"], reply["run_id"]) == ("b", None, None)
        farm.bus.emit(EventType.AGENT_MESSAGE, run_id="r1", agent="a")
        farm.bus.emit(EventType.STEP_STARTED, run_id="r9", agent="b")
        assert [each["seq"] for each in await events(socket, 1)] == [5]


async def test_nonsense_is_answered_and_a_flood_of_it_ends_the_connection(served):
    async with served.socket() as socket:
        await message(socket)
        for text in ("{", "[]", '{"type": "subscribe", "types": ["nope"]}', "[" * 4000):
            await socket.send(text)
            assert (await message(socket))["type"] == "error"
        for _ in range(20):
            await socket.send("{}")
        with pytest.raises(ConnectionClosed) as caught:
            await rest(socket)
    assert caught.value.rcvd.code == 1008
    async with served.socket() as socket:
        await socket.send("x" * 5000)
        with pytest.raises(ConnectionClosed) as caught:
            await rest(socket)
    assert caught.value.rcvd.code == 1008


async def test_each_event_comes_alone_if_that_is_asked(served, farm):
    async with served.socket("?batch=false") as socket:
        await message(socket)
        for number in range(3):
            farm.bus.emit(EventType.AGENT_MESSAGE, {"text": str(number)})
        found = [await message(socket) for _ in range(3)]
    assert [each["seq"] for each in found] == [1, 2, 3]
    assert {each["type"] for each in found} == {"agent_message"}


@pytest.mark.parametrize("query", ["?since=-1", "?since=x", "?types=nope", "?odd=1"])
async def test_a_query_that_makes_no_sense_is_refused(served, query):
    with pytest.raises(InvalidStatus) as caught:
        async with served.socket(query):
            pass
    response = caught.value.response
    assert response.status_code == 422
    assert json.loads(response.body)["detail"].startswith(query[1:].split("=")[0])


async def test_more_clients_than_allowed_are_told_to_wait(farm, cards, serve):
    web = WebSettings(max_clients=1)
    changed = farm.settings.model_copy(update={"web": web})
    async with serve(create_app(changed, gpus=cards)) as served:
        async with served.socket() as socket:
            await message(socket)
            with pytest.raises(InvalidStatus) as caught:
                async with served.socket():
                    pass
        assert caught.value.response.status_code == 503


async def test_it_beats_while_nothing_happens():
    async with EventBus() as bus:
        hub = Hub(bus, heartbeat_s=0.01)
        client = Client(Wanted())
        hub.join(client, since=None, server_id=None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.beat)
            assert json.loads(await client.take())["heartbeat_s"] == 0.01
            beats = [json.loads(await client.take()) for _ in range(2)]
            tasks.cancel_scope.cancel()
    assert [(beat["type"], beat["seq"]) for beat in beats] == [("heartbeat", 0)] * 2


async def rest(socket):
    """Read to the end."""
    while True:
        await socket.recv()


async def test_a_client_that_does_not_read_is_dropped_and_told_why(served, farm):
    hub = served.app.state.farm.hub
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.connect((served.host, served.port))
    async with (
        served.socket() as reader,
        served.socket(sock=raw, max_queue=1) as stuck,
    ):
        await message(reader)
        with anyio.fail_after(30):
            sent = 0
            while not hub.dropped:
                for _ in range(10):
                    farm.bus.emit(EventType.AGENT_MESSAGE, {"text": "x" * 100_000})
                sent += 10
                assert (await events(reader, 10))[-1]["seq"] == sent
            assert len(hub.clients) == 1
            with pytest.raises(ConnectionClosed) as caught:
                await rest(stuck)
        farm.bus.emit(EventType.AGENT_MESSAGE, {"text": "on"})
        assert (await events(reader, 1))[0]["data"] == {"text": "on"}
    assert caught.value.rcvd.code == 1013
    assert "since=" in caught.value.rcvd.reason


def event(seq, kind=EventType.AGENT_MESSAGE, **fields) -> Event:
    return Event(type=kind, seq=seq, timestamp=1.0, **fields)


def chunk(seq, text, request="a", **data) -> Event:
    return event(seq, CHUNK, request_id=request, data={"text": text, **data})


def test_chunks_are_joined_up_to_the_next_event_of_their_request():
    found = joined(
        [
            chunk(1, "a", at_s=1.0),
            chunk(2, "x", "b"),
            event(3),
            chunk(4, "b", at_s=2.0),
            event(5, EventType.LLM_RETRY, request_id="a"),
            chunk(6, "c"),
            chunk(7, "y", "b", coalesced=3),
        ]
    )
    assert [each.seq for each in found] == [3, 4, 5, 6, 7]
    assert found[1].data == {"text": "ab", "at_s": 2.0, "coalesced": 2}
    assert found[3].data == {"text": "c"}
    assert found[4].data == {"text": "xy", "coalesced": 4}


def test_clients_that_want_the_same_share_one_text():
    batch = Batch(map(Wire.of, [event(1, agent="a"), event(2, agent="b")]))
    everything = batch.together(Wanted())
    assert batch.together(Wanted()) is everything
    one = batch.together(Wanted(agent="a"))
    assert [each["seq"] for each in json.loads(one)["events"]] == [1]
    assert batch.together(Wanted(run_id="other")) is None


def test_an_event_beyond_all_measure_goes_without_its_data():
    wire = Wire.of(event(1, data={"text": "x" * 400_000}))
    assert json.loads(wire.json)["data"]["omitted_bytes"] > 400_000


@pytest.mark.parametrize(
    "value", [float("nan"), "\ud800", 2**80, b"\xff", {"a": {b"k": object}}]
)
def test_any_value_becomes_json_that_a_browser_reads(value):
    wire = Wire.of(event(1, data={"value": value, "agent": "\udfff"}))
    wire.json.decode("utf-8")
    found = json.loads(wire.json, parse_constant=pytest.fail)
    assert found["seq"] == 1


async def test_of_a_past_too_large_to_send_the_newest_comes_and_the_rest_is_told(
    served, farm
):
    for _ in range(20):
        farm.bus.emit(EventType.AGENT_MESSAGE, {"text": "x" * 200_000})
    async with served.socket() as first:
        await message(first)
        farm.bus.emit(EventType.AGENT_MESSAGE, {"text": "last"})
        await events(first, 1)
    async with served.socket("?since=0") as socket:
        hello = await message(socket)
        found = (await message(socket))["events"]
    assert found[-1]["data"] == {"text": "last"}
    assert 5 < len(found) < 15
    assert hello["missing"] == 21 - len(found)


async def test_a_queue_that_is_full_is_emptied_and_stays_so():
    client = Client(Wanted(), queue_chars=10)
    client.give("x" * 1000)
    assert not client.too_slow.is_set()
    client.give("y")
    assert client.too_slow.is_set()
    client.give("1")
    with anyio.move_on_after(0.01) as waiting:
        await client.take()
    assert waiting.cancelled_caught


async def test_an_event_before_the_hub_began_is_past_and_not_sent_twice():
    async with EventBus() as bus:
        bus.emit(EventType.AGENT_MESSAGE)
        hub = Hub(bus)
        assert hub.seq == 1
        bus.emit(EventType.AGENT_MESSAGE)
        client = Client(Wanted())
        hub.join(client, since=0, server_id=None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.run)
            hello = json.loads(await client.take())
            backlog = json.loads(await client.take())
            live = json.loads(await client.take())
            tasks.cancel_scope.cancel()
    assert hello["seq"] == 1
    assert [each["seq"] for each in backlog["events"]] == [1]
    assert [each["seq"] for each in live["events"]] == [2]
