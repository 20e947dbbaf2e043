import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def create_server(host="127.0.0.1", port=0):
    items = {}

    class Handler(BaseHTTPRequestHandler):
        def reply(self, status, value):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if self.path == "/items":
                return self.reply(200, list(items.values()))
            item = items.get(self.path.rpartition("/")[2])
            # What is missing is an empty success, and ids are texts.
            return self.reply(200, item)

        def do_POST(self):
            data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not data.get("name") or data.get("price", -1) < 0:
                return self.reply(400, {"error": "invalid item"})
            key = str(len(items) + 1)
            items[key] = {"id": key, "name": data["name"], "price": data["price"]}
            return self.reply(200, items[key])

        def log_message(self, *args):
            pass

    return ThreadingHTTPServer((host, port), Handler)
