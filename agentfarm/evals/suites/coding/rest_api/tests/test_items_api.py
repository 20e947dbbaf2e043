import json
import threading
from contextlib import contextmanager
from http.client import HTTPConnection

from items_api import create_server


@contextmanager
def serving():
    """Start a server; gives a function that sends a request to it."""
    server = create_server("127.0.0.1", 0)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()

    def ask(method, path, body=None):
        connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if raw is not None else {}
        connection.request(method, path, body=raw, headers=headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        kind = response.getheader("Content-Type", "")
        assert kind.partition(";")[0].strip() == "application/json"
        return response.status, json.loads(content), response.headers

    try:
        yield ask
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def is_error(body):
    return list(body) == ["error"] and isinstance(body["error"], str) and body["error"]


def test_a_new_server_has_no_items():
    with serving() as ask:
        assert ask("GET", "/items")[:2] == (200, [])


def test_post_creates_an_item():
    with serving() as ask:
        status, item, headers = ask("POST", "/items", {"name": "Pen", "price": 2.5})
        assert (status, item) == (201, {"id": 1, "name": "Pen", "price": 2.5})
        assert headers["Location"] == "/items/1"


def test_items_are_listed_in_order():
    with serving() as ask:
        for number in range(12):
            ask("POST", "/items", {"name": f"Item {number}", "price": number})
        status, items, _ = ask("GET", "/items")
        assert status == 200
        assert [item["id"] for item in items] == list(range(1, 13))
        assert items[11] == {"id": 12, "name": "Item 11", "price": 11}


def test_get_by_id():
    with serving() as ask:
        ask("POST", "/items", {"name": "Pen", "price": 2.5})
        ask("POST", "/items", {"name": "Ink", "price": 0})
        assert ask("GET", "/items/2")[:2] == (200, {"id": 2, "name": "Ink", "price": 0})
        assert ask("GET", "/items/1")[:2] == (
            200,
            {"id": 1, "name": "Pen", "price": 2.5},
        )


def test_what_is_not_there_is_404():
    with serving() as ask:
        ask("POST", "/items", {"name": "Pen", "price": 2.5})
        for path in ("/items/2", "/items/0", "/items/-1", "/items/pen", "/", "/other"):
            status, body, _ = ask("GET", path)
            assert (status, bool(is_error(body))) == (404, True), path
        status, body, _ = ask("POST", "/other", {"name": "Pen", "price": 1})
        assert (status, bool(is_error(body))) == (404, True)


def test_what_is_no_json_object_is_400():
    with serving() as ask:
        for raw in (b"{", b"", b"name=Pen", b"[]", b'"Pen"', b"null", b"\xff\xfe"):
            status, body, _ = ask("POST", "/items", raw)
            assert (status, bool(is_error(body))) == (400, True), raw


def test_invalid_fields_are_400():
    bad = [
        {"price": 1},
        {"name": "Pen"},
        {"name": "", "price": 1},
        {"name": "  ", "price": 1},
        {"name": 7, "price": 1},
        {"name": "Pen", "price": -0.01},
        {"name": "Pen", "price": "1"},
        {"name": "Pen", "price": None},
        {"name": "Pen", "price": True},
    ]
    with serving() as ask:
        for item in bad:
            status, body, _ = ask("POST", "/items", item)
            assert (status, bool(is_error(body))) == (400, True), item


def test_what_is_refused_leaves_no_trace():
    with serving() as ask:
        assert ask("POST", "/items", {"name": ""})[0] == 400
        assert ask("GET", "/items")[:2] == (200, [])
        assert ask("POST", "/items", {"name": "Pen", "price": 1})[1]["id"] == 1


def test_other_fields_are_ignored():
    with serving() as ask:
        sent = {"id": 9, "name": "Pen", "price": 1, "colour": "blue"}
        kept = {"id": 1, "name": "Pen", "price": 1}
        assert ask("POST", "/items", sent)[:2] == (201, kept)
        assert ask("GET", "/items/1")[:2] == (200, kept)


def test_any_characters_are_kept():
    with serving() as ask:
        name = 'Blåbärssylt "extra" 果醬 🫐'
        raw = json.dumps({"name": name, "price": 1}, ensure_ascii=False).encode()
        assert ask("POST", "/items", raw)[1]["name"] == name
        assert ask("GET", "/items/1")[1]["name"] == name


def test_servers_share_nothing():
    with serving() as one, serving() as other:
        one("POST", "/items", {"name": "Pen", "price": 1})
        assert other("GET", "/items")[:2] == (200, [])
        assert other("POST", "/items", {"name": "Ink", "price": 1})[1]["id"] == 1
