"""A registry on loopback that serves the images of samples.py, in the harness's own process."""

import http.server
import re
import threading
import time


class BlobServer:
    """Manifests by tag or digest, and blobs, with ranges. Counts the bytes of blobs that it sent."""

    def __init__(self, images, pause=0.0):
        """`pause`: seconds between pieces of a blob, so that a cut meets downloads under way."""
        self.images, self.pause, self.sent = images, pause, 0
        self.lock = threading.Lock()
        handler = type("Handler", (Handler,), {"registry": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def count(self, length):
        with self.lock:
            self.sent += length


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry = None
    PIECE = 16 * 1024

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        if self.path in ("/v2", "/v2/"):
            return self.send(200, b"{}", "application/json", body)
        found = re.fullmatch(r"/v2/([a-z0-9/]+)/(manifests|blobs)/(.+)", self.path)
        name, kind, what = found.groups() if found else ("", "", "")
        root = self.registry.images.images.get(f"{name}:{what}")
        digest = root["digest"] if root and kind == "manifests" else what
        data = self.registry.images.blobs.get(digest)
        if data is None:
            return self.send(404, b'{"errors":[{"code":"NOT_FOUND"}]}', "application/json", body)
        media_type = "application/octet-stream"
        if kind == "manifests":
            media_type = re.search(rb'"mediaType": "([^"]+)"', data).group(1).decode()
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span is None or kind == "manifests":
            return self.send(200, data, media_type, body, digest, paced=kind == "blobs")
        start, end = int(span.group(1)), min(int(span.group(2) or len(data)), len(data) - 1)
        headers = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        return self.send(206, data[start : end + 1], media_type, body, digest, headers, paced=True)

    def send(self, status, data, media_type, body, digest=None, headers=(), paced=False):
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.end_headers()
        if not body:
            return
        for at in range(0, len(data), self.PIECE):
            if paced:
                self.registry.count(len(data[at : at + self.PIECE]))
                time.sleep(self.registry.pause)
            self.wfile.write(data[at : at + self.PIECE])

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            # A client that went away, as those do that a power cut meets.
            pass

    def log_message(self, *_):
        pass
