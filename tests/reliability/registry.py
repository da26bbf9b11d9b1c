"""An honest registry on loopback that serves some images and counts what it was asked for."""

import http.client
import http.server
import re
import threading
import time


class Registry:
    """Serves `samples.Images` under any repository name; `image:tag` is an image's name there."""

    def __init__(self, images, pause=0.0):
        """`pause`: seconds between pieces of a blob, so that downloads are met under way."""
        self.images, self.pause = images, pause
        # Bytes that were asked for, by digest, blobs and documents apart.
        self.blobs, self.documents = {}, {}
        self.open, self.changed = 0, threading.Condition()
        registry = self

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request, client_address):
                """A client that is killed ends its connections in the middle."""

            def process_request(self, request, client_address):
                registry.opened(1)
                super().process_request(request, client_address)

            def shutdown_request(self, request):
                super().shutdown_request(request)
                registry.opened(-1)

        class Handler(_Handler):
            pass

        Handler.registry = registry
        self.server = Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def opened(self, by):
        with self.changed:
            self.open += by
            self.changed.notify_all()

    def reset(self):
        """Counts from here on, when all that was asked before is answered: connections of a process
        that was killed may still wait to be accepted, and are before ours."""
        ours = http.client.HTTPConnection(self.host, timeout=60)
        ours.request("GET", "/v2/")
        ours.getresponse().read()
        ours.close()
        with self.changed:
            if not self.changed.wait_for(lambda: self.open == 0, timeout=60):
                raise OSError("somebody still has a connection to the registry")
        self.blobs, self.documents = {}, {}

    def name(self, image):
        """How an image is pulled."""
        return f"{self.host}/{image}"

    def sent(self):
        """How many bytes of blobs were asked for."""
        return sum(self.blobs.values())

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are separate writes: without this, each waits for an acknowledgement.
    disable_nagle_algorithm = True
    PIECE = 16 * 1024
    registry = None

    def log_message(self, format, *args):
        """Says nothing."""

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, body):
        images = self.registry.images
        if self.path in ("/v2", "/v2/"):
            return self.send(200, {}, b"{}", body)
        matched = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/?]+)", self.path)
        if not matched:
            return self.send(404, {}, b'{"errors":[]}', body)
        repository, kind, reference = matched.groups()
        root = images.images.get(f"{repository}:{reference}")
        digest = root["digest"] if root else reference
        data = images.blobs.get(digest)
        if data is None:
            return self.send(404, {}, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', body)
        if kind == "manifests":
            return self.document(digest, data, body)
        return self.blob(digest, data, body)

    def document(self, digest, data, body):
        if body:
            counts = self.registry.documents
            counts[digest] = counts.get(digest, 0) + len(data)
        kind = re.search(rb'"mediaType": "([^"]+)"', data)[1].decode()
        self.send(200, {"Content-Type": kind, "Docker-Content-Digest": digest}, data, body)

    def blob(self, digest, data, body):
        status, headers = 200, {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start = int(wanted[1])
            end = min(int(wanted[2] or len(data)), len(data) - 1)
            if start > end:
                return self.send(416, {"Content-Range": f"bytes */{len(data)}"}, b"", body)
            status, headers["Content-Range"] = 206, f"bytes {start}-{end}/{len(data)}"
            data = data[start : end + 1]
        if body:
            counts = self.registry.blobs
            counts[digest] = counts.get(digest, 0) + len(data)
        self.send(status, headers, data, body)

    def send(self, status, headers, data, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not body:
            return
        piece = self.PIECE if self.registry.pause else len(data) or 1
        for at in range(0, len(data), piece):
            self.wfile.write(data[at : at + piece])
            time.sleep(self.registry.pause)
