"""Attacks: what a stranger, a page from elsewhere or a careless setup could try."""

import json

import anyio
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from agentfarm.config import WebSettings
from agentfarm.web._access import Access, Head, Refused
from agentfarm.web._tokens import Tokens
from agentfarm.web.server import create_app

PRIVATE = ("/", "/docs", "/openapi.json", "/metrics", "/api/runs", "/static/page.js")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def refused(socket) -> int:
    """The status with which a WebSocket is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with socket:
            pass
    return caught.value.response.status_code


async def test_without_a_token_nothing_but_the_liveness_is_told(guarded):
    http = guarded.client()
    for path in (*PRIVATE, "/api/nothing", "//healthz", "/healthz/"):
        answer = await http.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
    assert (await http.post("/api/workflows", json={"task": "x"})).status_code == 401
    assert (await http.post("/healthz")).status_code == 401
    assert (await http.get("/healthz")).json() == {"status": "ok"}


@pytest.mark.parametrize(
    "header",
    [
        "Bearer wrong",
        "Bearer",
        "Basic b3BlcmF0b3I6eA==",
        "Bearer \u00e5\u00e4\u00f6",
        "Bearer " + "x" * 5000,
    ],
)
async def test_a_wrong_token_is_refused_whatever_it_looks_like(guarded, header):
    http = guarded.client()
    raw = header.encode("latin-1")
    answer = await http.get("/api/runs", headers={b"Authorization": raw})
    assert answer.status_code == 401
    assert "Traceback" not in answer.text


async def test_a_right_token_lets_in_and_a_prefix_of_it_does_not(guarded, tokens):
    http = guarded.client()
    for token in (tokens.operator, tokens.read_only):
        assert (await http.get("/api/runs", headers=bearer(token))).status_code == 200
        short = bearer(token[:-1])
        assert (await http.get("/api/runs", headers=short)).status_code == 401


async def test_who_may_only_read_can_start_and_interrupt_nothing(guarded, tokens):
    http = guarded.client(headers=bearer(tokens.read_only))
    for path in ("/api/workflows", "/api/workflows/latest/interrupt", "/api/runs"):
        answer = await http.post(path, json={"task": "x"})
        assert answer.status_code == 403
        assert "only read" in answer.json()["detail"]
    operator = guarded.client(headers=bearer(tokens.operator))
    path = "/api/workflows/latest/interrupt"
    assert (await operator.post(path)).status_code == 404


async def test_a_link_with_a_token_becomes_a_cookie_and_leaves_the_address(
    guarded, tokens
):
    http = guarded.client()
    link = {"token": tokens.read_only, "view": "1"}
    answer = await http.get("/", params=link)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?view=1"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"agentfarm-{guarded.port}=")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert (await http.get("/")).status_code == 200  # the client keeps the cookie
    other = guarded.client()
    assert (await other.get("/", params={"token": "wrong"})).status_code == 401
    answer = await other.post(f"/api/workflows?token={tokens.operator}")
    assert answer.status_code == 401


async def test_a_link_never_leads_to_another_host(guarded, tokens):
    http = guarded.client()
    for path in ("//evil.example/x", "///evil.example", "/\\evil.example"):
        answer = await http.get(f"{guarded.url}{path}?token={tokens.read_only}")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/" + path.lstrip("/\\")


async def test_a_websocket_needs_the_same_token(guarded, tokens):
    assert await refused(guarded.socket()) == 401
    wrong = guarded.socket(additional_headers=bearer("wrong"))
    assert await refused(wrong) == 401
    assert await refused(guarded.socket(f"?token={tokens.operator}")) == 401
    odd = {"Authorization": "Bearer \u00e5"}
    assert await refused(guarded.socket(additional_headers=odd)) == 401
    cookie = {"Cookie": f"a=b; agentfarm-{guarded.port}={tokens.read_only}"}
    for headers in (bearer(tokens.read_only), cookie):
        async with guarded.socket(additional_headers=headers) as socket:
            assert json.loads(await socket.recv())["type"] == "hello"


async def test_many_wrong_tokens_are_held_up(guarded, tokens):
    http = guarded.client()
    statuses = [
        (await http.get("/api/runs", headers=bearer(f"guess-{n}"))).status_code
        for n in range(12)
    ]
    assert statuses == [401] * 10 + [429] * 2
    held = await http.get("/api/runs", headers=bearer(tokens.operator))
    assert held.status_code == 429
    assert 0 < int(held.headers["retry-after"]) <= 6
    socket = guarded.socket(additional_headers=bearer(tokens.operator))
    assert await refused(socket) == 429
    assert (await http.get("/healthz")).status_code == 200


async def test_a_name_that_a_stranger_pointed_at_this_machine_is_refused(served):
    http = served.client()
    for host in ("evil.example", "localhost.evil.example", "10.1.2.3:8700"):
        answer = await http.get("/api/runs", headers={"Host": host})
        assert answer.status_code == 421, host
    for host in ("", "a b", "user@localhost", "localhost:99999999", "[::1"):
        answer = await http.get("/api/runs", headers={"Host": host})
        assert answer.status_code == 400, host
    for host in ("localhost:1", "127.0.0.1", "[::1]:80", "127.8.8.8:8700"):
        answer = await http.get("/api/runs", headers={"Host": host})
        assert answer.status_code == 200, host
    address = f"ws://{served.host}:{served.port}/ws"
    async with served.socket():
        pass
    evil = connect(
        address.replace("127.0.0.1", "evil.example"),
        host=served.host,
        port=served.port,
        proxy=None,
    )
    assert await refused(evil) == 421


async def test_a_page_from_elsewhere_can_neither_post_nor_listen(served):
    http = served.client()
    own = served.url
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", own + "0"):
        headers = {"Origin": origin}
        answer = await http.post("/api/workflows", json={"task": "x"}, headers=headers)
        assert answer.status_code == 403, origin
        assert (await http.get("/api/runs", headers=headers)).status_code == 403
        assert await refused(served.socket(additional_headers=headers)) == 403
        assert not any(name.startswith("access-control") for name in answer.headers)
    async with served.socket(additional_headers={"Origin": own}):
        pass
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert (await http.get("/api/runs", headers=embedded)).status_code == 403
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert (await http.get("/", headers=link)).status_code == 200


async def test_a_preflight_allows_nothing(served):
    asks = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await served.client().options("/api/workflows", headers=asks)
    assert answer.status_code == 403
    assert not any(name.startswith("access-control") for name in answer.headers)


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(served):
    http = served.client()
    large = b" " * (2**20 + 1)
    answer = await http.post("/api/workflows", content=large)
    assert answer.status_code == 413

    async def pieces():
        for _ in range(5):
            yield large[: 2**18]

    answer = await http.post("/api/workflows", content=pieces())
    assert answer.status_code == 413
    fits = json.dumps({"task": ""}).encode().ljust(2**20)
    answer = await http.post(
        "/api/workflows", content=fits, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    read = await http.request("GET", "/api/runs", content=large)
    assert read.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2f..%2fconfig.py",
        "/static/%2e%2e/server.py",
        "/static//etc/passwd",
        "/static/page.js%00.txt",
        "/..%5c..%5cserver.py",
        "/api/runs/..%2f..%2fx",
        "/api/workflows/%2e%2e",
        "/%c0%af",
        "/static/",
    ],
)
async def test_tricks_with_paths_lead_nowhere(served, path):
    with anyio.fail_after(10):
        stream = await anyio.connect_tcp(served.host, served.port)
        async with stream:
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            await stream.send(f"{request}\r\n".encode())
            answer = b"".join([part async for part in stream])
    assert answer.split()[1] in {b"404", b"422"}
    assert b"Traceback" not in answer
    assert b"import" not in answer


async def test_every_answer_carries_the_security_headers(served):
    http = served.client()
    for path in ("/", "/api/runs", "/nothing", "/healthz", "/static/page.css"):
        headers = (await http.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


async def test_a_fault_of_ours_is_told_without_a_trace(farm, serve):
    class Broken:
        async def snapshot(self):
            raise RuntimeError("a secret detail")

    async with serve(create_app(farm, gpus=Broken())) as served:
        answer = await served.client().get("/api/hardware/gpu")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["detail"].startswith("Something went wrong")
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_who_asks_too_often_is_told_when_to_come_back(farm, cards, serve):
    web = WebSettings(requests_per_s=5)
    changed = farm.settings.model_copy(update={"web": web})
    async with serve(create_app(changed, gpus=cards)) as served:
        http = served.client()
        statuses = [(await http.get("/healthz")).status_code for _ in range(80)]
        assert statuses[:50] == [200] * 50
        assert 429 in statuses
        assert (await http.get("/api/runs")).headers["retry-after"] == "1"


def head(client="10.0.0.9", server="10.0.0.1", host="10.0.0.1", **headers) -> Head:
    """A request from another machine."""
    pairs = {"host": host, **headers}
    return Head(
        {
            "type": "http",
            "method": "GET",
            "path": "/api/runs",
            "query_string": b"",
            "client": (client, 1),
            "server": (server, 8700),
            "headers": [(k.encode(), v.encode()) for k, v in pairs.items()],
        }
    )


def status(access: Access, head: Head) -> int:
    try:
        access.admit(head)
    except Refused as refusal:
        return refusal.status
    return 200


def test_a_server_for_this_machine_refuses_others_however_it_was_bound(tokens):
    access = Access(WebSettings(), None)
    assert status(access, head(server="10.0.0.1")) == 403
    assert status(access, head(server="127.0.0.1", host="127.0.0.1")) == 403
    local = {"client": "127.0.0.1", "server": "127.0.0.1", "host": "localhost"}
    assert status(access, head(**local)) == 200
    assert status(access, head(**local, forwarded="for=10.0.0.9")) == 403
    mapped = {**local, "client": "::ffff:127.0.0.1"}
    assert status(access, head(**mapped)) == 200
    assert status(access, head(**{**mapped, "client": "::ffff:10.0.0.9"})) == 403
    assert status(Access(WebSettings(), tokens), head()) == 401


@pytest.mark.parametrize(
    "web",
    [
        WebSettings(host="0.0.0.0"),  # noqa: S104 - not bound
        WebSettings(host="10.0.0.1"),
        WebSettings(host="farm.lan"),
        WebSettings(require_token=True),
        WebSettings(allowed_hosts=frozenset({"farm.lan"})),
    ],
)
def test_whoever_means_others_than_this_machine_needs_a_token(web, tokens):
    access = Access(web, tokens)
    local = {"client": "127.0.0.1", "server": "127.0.0.1", "host": "localhost"}
    assert status(access, head(**local)) == 401
    right = bearer(tokens.read_only)["Authorization"]
    assert status(access, head(**local, authorization=right)) == 200


def test_a_name_is_allowed_by_the_settings_and_an_address_by_the_connection(tokens):
    web = WebSettings(host="10.0.0.1", allowed_hosts=frozenset({"Farm.lan"}))
    access = Access(web, tokens)
    right = bearer(tokens.read_only)["Authorization"]
    for host, expected in (
        ("farm.lan:8700", 200),
        ("FARM.LAN", 200),
        ("10.0.0.1:8700", 200),
        ("10.0.0.2", 421),
        ("farm.lan.evil.example", 421),
    ):
        assert status(access, head(host=host, authorization=right)) == expected
    anywhere = Access(WebSettings(host="::"), tokens)
    assert status(anywhere, head(host="192.0.2.7", authorization=right)) == 200
    assert status(anywhere, head(host="evil.example", authorization=right)) == 421


def test_a_header_that_decides_may_stand_there_once_only():
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"host", b"evil.example")],
    }
    with pytest.raises(Refused, match="twice"):
        Head(scope)


def test_tokens_show_themselves_to_nobody():
    tokens = Tokens(operator="o" * 20, read_only="r" * 20)
    assert "o" * 20 not in repr(tokens)
    assert tokens.role(b"o" * 20) == "operator"
    assert tokens.role(b"r" * 20) == "read_only"
    assert tokens.role("å".encode()) is None
    assert tokens.role(b"") is None
