import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def create_server(host="127.0.0.1", port=0):
    items = []

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
                return self.reply(200, items)
            for item in items:
                if self.path == f"/items/{item['id']}":
                    return self.reply(200, item)
            return self.reply(404, {"error": "not found"})

        def do_POST(self):
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            if self.path != "/items":
                return self.reply(404, {"error": "not found"})
            try:
                data = json.loads(body)
            except ValueError:
                return self.reply(400, {"error": "invalid JSON"})
            # Whatever was sent is kept.
            item = {**data, "id": len(items) + 1}
            items.append(item)
            return self.reply(201, item, f"/items/{item['id']}")

        def log_message(self, *args):
            pass

    return ThreadingHTTPServer((host, port), Handler)
