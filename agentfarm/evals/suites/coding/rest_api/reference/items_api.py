"""A REST API that keeps items in memory."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer


class BadRequest(Exception):
    """What was sent is no item."""


class ItemServer(ThreadingHTTPServer):
    """A server with items of its own."""

    daemon_threads = True

    def __init__(self, address):
        super().__init__(address, Handler)
        self.items = {}
        self.lock = threading.Lock()

    def add(self, name, price):
        """Keep an item under the next id."""
        with self.lock:
            item = {"id": len(self.items) + 1, "name": name, "price": price}
            self.items[item["id"]] = item
        return item


class Handler(BaseHTTPRequestHandler):
    """Answers requests."""

    def do_GET(self):
        """List all items, or get one."""
        if self.path == "/items":
            self.answer(200, list(self.server.items.values()))
        elif item := self.server.items.get(item_id(self.path)):
            self.answer(200, item)
        else:
            self.answer(404, {"error": f"There is nothing at {self.path}."})

    def do_POST(self):
        """Create an item."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/items":
            self.answer(404, {"error": f"There is nothing at {self.path}."})
            return
        try:
            item = self.server.add(*checked(body))
        except BadRequest as error:
            self.answer(400, {"error": str(error)})
        else:
            self.answer(201, item, {"Location": f"/items/{item['id']}"})

    def answer(self, status, value, headers=None):
        """Send a value as JSON."""
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Stay silent."""


def item_id(path):
    """The id in a path, or None."""
    prefix, _, text = path.rpartition("/")
    is_number = text.isascii() and text.isdigit() and len(text) < 19
    return int(text) if prefix == "/items" and is_number else None


def checked(body):
    """The name and the price in a request's body."""
    try:
        data = json.loads(body)
    except ValueError:
        raise BadRequest("The body is not valid JSON.") from None
    if not isinstance(data, dict):
        raise BadRequest("The body is not an object.")
    name, price = data.get("name"), data.get("price")
    if not isinstance(name, str) or not name.strip():
        raise BadRequest("name is not a text, or it is empty.")
    if isinstance(price, bool) or not isinstance(price, int | float) or not price >= 0:
        raise BadRequest("price is not a number of 0 or more.")
    return name, price


def create_server(host: str = "127.0.0.1", port: int = 0) -> HTTPServer:
    """A server that is bound and does not serve yet."""
    return ItemServer((host, port))
