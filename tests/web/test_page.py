"""The page in a real browser, while a server streams to it."""

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect

from agentfarm.events import EventType
from agentfarm.llm.testing import Reply
from agentfarm.monitoring import GPUReading
from agentfarm.web._serving import AppServer, listen
from agentfarm.web.server import create_app

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

HOSTILE = "<img src=x onerror='document.title=1'><b>bold</b> "
PATIENCE_S = 20
CARD = GPUReading(
    uuid="GPU-1",
    index=0,
    vendor="amd",
    source="amdgpu",
    name="Radeon <i>",
    temperature_c=61.0,
    vram_used_bytes=4 * 2**30,
    vram_total_bytes=16 * 2**30,
    throttle_reasons=("sw_power_cap",),
)


@dataclass
class Page:
    """One tab, driven over the DevTools protocol."""

    devtools: ClientConnection
    session: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    _calls: int = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._calls += 1
        request = {"id": self._calls, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        await self.devtools.send(json.dumps(request))
        while True:
            message = json.loads(await self.devtools.recv())
            if message.get("id") == request["id"]:
                assert "error" not in message, message
                return message["result"]
            self.told.append(message)

    async def open(self, url: str, *, width: int = 1280, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        await self.call(
            "Emulation.setDeviceMetricsOverride", mobile=width < 500, **size
        )
        await self.call("Page.navigate", url=url)
        with anyio.fail_after(PATIENCE_S):
            while self.told[-1]["method"] != "Page.loadEventFired":
                self.told.append(json.loads(await self.devtools.recv()))

    async def value(self, expression: str) -> Any:
        """What an expression is worth in the page; a promise is waited for."""
        found = await self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until an expression of the page is true."""
        waiting = (
            "new Promise((done) => { const look = () => "
            f"({condition}) ? done(true) : setTimeout(look, 20); look(); }})"
        )
        with anyio.move_on_after(PATIENCE_S):
            await self.value(waiting)
            return
        shown = await self.value("document.body.innerText")
        pytest.fail(f"It never became true: {condition}\n{shown}")

    async def text(self, selector: str) -> str:
        return await self.value(
            f"document.querySelector({json.dumps(selector)}).innerText"
        )

    async def press(self, key: str) -> None:
        keys = {"Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, "")}
        name, code, text = keys[key]
        event = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        down = {"type": "keyDown", **event, **({"text": text} if text else {})}
        await self.call("Input.dispatchKeyEvent", **down)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def addresses(self) -> set[str]:
        """What the page loaded."""
        return {
            message["params"]["request"]["url"]
            for message in self.told
            if message.get("method") == "Network.requestWillBeSent"
        }

    def complaints(self) -> list[dict[str, Any]]:
        """Exceptions, and what the browser refused or warned of."""
        kinds = {"Runtime.exceptionThrown", "Log.entryAdded"}
        return [m["params"] for m in self.told if m.get("method") in kinds]


@pytest.fixture
async def page(chromium) -> AsyncIterator[Page]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            address = await anyio.to_thread.run_sync(_devtools, browser)
            async with connect(address, max_size=None, close_timeout=0.1) as devtools:
                yield await _tab(devtools)
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.communicate()


def _devtools(browser: subprocess.Popen[str]) -> str:
    said = []
    for line in browser.stderr or ():
        if match := re.search(r"listening on (ws://\S+)", line):
            return match[1]
        said.append(line)
    raise AssertionError("".join(said))


async def _tab(devtools: ClientConnection) -> Page:
    page = Page(devtools)
    made = await page.call("Target.createTarget", url="about:blank")
    target = {"targetId": made["targetId"], "flatten": True}
    attached = await page.call("Target.attachToTarget", **target)
    page.session = attached["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        await page.call(f"{domain}.enable")
    return page


LIVE = "document.getElementById('state-text').textContent === 'Live'"


async def test_an_answer_is_seen_as_it_arrives_and_counted_at_its_end(
    page, served, stub, ask
):
    words = [HOSTILE, *(f"word-{n} " for n in range(60))]
    stub.default = Reply(chunks=tuple(words), reasoning=("I think. ",), gap_s=0.03)
    await page.open(served.url)
    await page.until(LIVE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ask(agent="planner"))
        await page.until("document.querySelector('#stream .cursor')")
        await page.until("stream.textContent.includes('word-3 ')")
        assert "word-59" not in await page.text("#stream")
        assert "planner" in await page.text("#stream-head")
    await page.until("stream.textContent.includes('word-59')")
    await page.until("!document.querySelector('#stream .cursor')")
    assert await page.text("#stream .reasoning") == "I think. "
    assert (await page.text("#stream .answer")).startswith(HOSTILE.rstrip())
    assert (
        await page.value("document.querySelectorAll('#stream img, #stream b').length")
        == 0
    )
    assert await page.value("document.title") == "AgentFarm"

    await page.until("document.getElementById('requests').textContent === '1'")
    assert await page.text("#tokens-total") == "70"
    assert "tokens/s" in await page.text("#rate")
    assert (await page.text("#p95")).split()[1] in {"ms", "s"}
    row = "#agents-table tbody tr"
    assert (await page.text(row)).split()[:3] == ["planner", "1", "100"]
    assert await page.text("#age") == "data is current"
    assert page.complaints() == []
    origin = served.url.split("//")[1]
    assert {address.split("//")[1].split("/")[0] for address in page.addresses()} == {
        origin
    }


async def test_it_says_what_was_tried_where_there_is_no_gpu(page, served):
    await page.open(served.url)
    await page.until("document.querySelector('#hardware li')")
    shown = await page.text("#hardware")
    assert "No GPU found" in shown
    assert "nvml: no driver" in shown


async def test_gauges_tell_values_with_units_and_leave_out_what_is_unknown(
    page, served, cards
):
    cards.gpus = (CARD,)
    await page.open(served.url)
    await page.until("document.querySelector('[role=meter]')")
    shown = await page.text("#hardware")
    for text in ("Radeon <i>", "throttled: sw_power_cap", "61 °C", "4 of 16 GiB"):
        assert text in shown
    assert "Power\n\N{EN DASH} W" in shown
    meters = "[...document.querySelectorAll('[role=meter]')]"
    labels = await page.value(f"{meters}.map((m) => m.getAttribute('aria-label'))")
    assert labels == ["Memory", "Temperature"]


async def test_it_fits_a_phone_and_the_keyboard_reaches_everything(
    page, served, farm, ask
):
    await ask(agent="an-agent-with-a-very-long-name-that-goes-on-and-on-and-on")
    await page.open(served.url, width=390, height=844)
    await page.until(LIVE)
    await page.until("document.querySelector('#agents-table td')")
    farm.bus.emit(EventType.STEP_STARTED, {"title": "x" * 500}, agent="planner")
    await page.until("document.querySelector('#events li')")
    assert await page.value("document.documentElement.scrollWidth") == 390
    assert await page.value("agents.open") is True
    reached = set()
    for _ in range(12):
        await page.press("Tab")
        await page.value("document.activeElement.scrollIntoView()")
        name = await page.value(
            "document.activeElement.id || document.activeElement.tagName + ' ' + "
            "(document.activeElement.closest('[id]')?.id ?? '')"
        )
        if name == "SUMMARY agents" and name not in reached:
            await page.press("Enter")
        reached.add(name)
    assert {"SUMMARY agents", "SUMMARY models", "stream"} <= reached
    assert await page.value("agents.open") is False


async def test_it_comes_back_by_itself_after_a_restart(page, farm, cards):
    port = 0
    for _ in range(2):
        sock = listen("127.0.0.1", port)
        port = sock.getsockname()[1]
        server = AppServer(create_app(farm, gpus=cards), sock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.run_until_stopped)
            if not page.addresses():
                await page.open(f"http://127.0.0.1:{port}")
            await page.until(LIVE)
            farm.bus.emit(EventType.STEP_STARTED, {"title": f"on {id(server)}"})
            await page.until(f"events.textContent.includes('on {id(server)}')")
            server.should_exit = True
        await page.until("document.getElementById('state').dataset.state === 'lost'")


async def test_a_link_with_a_token_opens_the_page_and_its_stream(page, guarded, tokens):
    await page.open(f"{guarded.url}/?token={tokens.read_only}")
    await page.until(LIVE)
    assert await page.value("location.search") == ""
    assert await page.value("document.cookie") == ""


async def test_the_operations_are_listed_without_help_from_elsewhere(page, served):
    await page.open(f"{served.url}/docs")
    await page.until("document.querySelectorAll('.operation').length === 14")
    assert "POST /api/workflows" in await page.text("main")
    assert page.complaints() == []
    assert all(address.startswith(served.url) for address in page.addresses())
