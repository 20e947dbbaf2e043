import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# All servers of the process share this list.
ITEMS = []


def valid(data):
    if not isinstance(data, dict):
        return False
    name, price = data.get("name"), data.get("price")
    return (
        isinstance(name, str)
        and bool(name.strip())
        and isinstance(price, int | float)
        and not isinstance(price, bool)
        and price >= 0
    )


class Handler(BaseHTTPRequestHandler):
    def reply(self, status, value, location=None):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/items":
            return self.reply(200, ITEMS)
        for item in ITEMS:
            if self.path == f"/items/{item['id']}":
                return self.reply(200, item)
        return self.reply(404, {"error": "not found"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/items":
            return self.reply(404, {"error": "not found"})
        try:
            data = json.loads(body)
        except ValueError:
            data = None
        if not valid(data):
            return self.reply(400, {"error": "invalid item"})
        item = {"id": len(ITEMS) + 1, "name": data["name"], "price": data["price"]}
        ITEMS.append(item)
        return self.reply(201, item, f"/items/{item['id']}")

    def log_message(self, *args):
        pass


def create_server(host="127.0.0.1", port=0):
    return ThreadingHTTPServer((host, port), Handler)
