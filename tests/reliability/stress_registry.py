"""A registry on loopback that knows which process asks, and holds each request against the rule
that a blob travels once.

Its images have a repository for each worker, and a worker runs one pull at a time, so the
repository of a request tells the process. At the moment at which a request for a blob comes in:

1. the blob is not in the store: what is there never travels again;
2. no other process that is alive has asked for it: one process downloads, others wait; and this one asks again,
   as it does when it has left its connection to somebody who waits, only for what its part never had;
3. it asks for the bytes from the end of the part on: what a killed process left is continued;
4. the part has all that a process had written when it was stopped and killed.

Only the meeting with a process that was stopped for as long as the store waits for a holder is left
out: its blob is downloaded a second time on purpose.
"""

import os
import random
import re
import socket
import threading
import time

# Below the 60 seconds after which the store overtakes a holder that has stopped.
OVERTAKEN = 50
# How much of a blob is sent to a process that is to be stopped in the midst of it.
HELD_AT = 100_000


class Pull:
    """A process that pulls, as the registry sees it."""

    def __init__(self, worker, elsewhere=False):
        self.worker = worker
        # Whether it pulls to another store, of which nothing is known here.
        self.elsewhere = elsewhere
        self.killed = False
        self.stopped = None
        # Whether it was ever stopped for so long that others do not wait for it.
        self.overtaken = False
        # Set: bytes may go out beyond the first `HELD_AT` of a blob.
        self.goes_on = threading.Event()
        self.goes_on.set()
        # By digest: from which offset on it was asked for first, how many bytes were sent, and how long
        # the part was at most since.
        self.asked = {}

    def sent(self):
        return sum(asked["sent"] for asked in list(self.asked.values()))

    def is_out(self):
        """Whether it holds up nobody any more."""
        stopped = self.stopped
        if stopped is not None and time.monotonic() - stopped > OVERTAKEN:
            self.overtaken = True
        return self.killed or self.overtaken


class Registry:
    def __init__(self, content, root, report):
        self.content, self.root, self.report = content, root, report
        self.lock = threading.Lock()
        self.pulls = {}  # worker -> Pull
        self.tags = {}  # (repository, tag) -> Image
        self.floor = {}  # digest -> how much of it its part is known to have
        self.counts = dict.fromkeys(
            ["requests for blobs", "bytes of blobs sent", "requests that resume",
             "requests beside an overtaken holder", "bytes sent to the killed"], 0)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def part_of(self, digest):
        name = digest.replace(":", "-")
        return os.path.join(self.root, ".layerstore/parts", name + ".part")

    def length_of_part(self, digest):
        try:
            return os.stat(self.part_of(digest)).st_size
        except FileNotFoundError:
            return 0

    def blob_of(self, digest):
        return os.path.join(self.root, "blobs", *digest.split(":"))

    def died(self, pull, exact):
        """A process was stopped (`exact`) and will be killed: notes what it leaves behind. The
        parts are its own until it is dead, so nobody else changes them."""
        with self.lock:
            for digest, asked in pull.asked.items():
                try:
                    have = os.stat(self.part_of(digest)).st_size
                except FileNotFoundError:
                    continue
                self.counts["bytes sent to the killed"] += max(0, asked["from"] + asked["sent"] - have)
                if exact and have < len(self.content.blobs[digest]):
                    self.floor[digest] = have

    def _accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        held = b""
        with connection:
            try:
                while True:
                    while b"\r\n\r\n" not in held:
                        more = connection.recv(65536)
                        if not more:
                            return
                        held += more
                    head, held = held.split(b"\r\n\r\n", 1)
                    self._answer(connection, head.decode("latin-1"))
            except OSError:
                return

    def _answer(self, connection, head):
        method, path, _ = head.split("\r\n", 1)[0].split(" ")
        asked = re.search(r"(?im)^range: *bytes=(\d+)-(\d*)", head)
        found = re.fullmatch(r"/v2/(w\w+)/([^?]+)/(manifests|blobs)/([^/?]+)", path)
        if path == "/v2/":
            return self._send(connection, 200, {}, b"{}")
        if not found:
            return self._send(connection, 404, {}, b"{}")
        worker, name, kind, what = found.groups()
        if kind == "manifests":
            return self._document(connection, method, f"{worker}/{name}", what)
        start = int(asked.group(1)) if asked else 0
        # `bytes=0-0` and the like end before the blob does.
        end = int(asked.group(2)) + 1 if asked and asked.group(2) else None
        self._blob(connection, method, worker, what, start, end, bool(asked))

    def _document(self, connection, method, repository, what):
        image = self.tags.get((repository, what))
        digest = image.digest if image else what
        if digest not in self.content.documents:
            return self._send(connection, 404, {}, b"{}")
        media_type, body = self.content.documents[digest]
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
        self._send(connection, 200, headers, body, method == "HEAD")

    def _blob(self, connection, method, worker, digest, start, end, is_range):
        data = self.content.blobs.get(digest)
        if data is None:
            return self._send(connection, 404, {}, b"{}")
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if method == "HEAD":
            return self._send(connection, 200, headers, data, True)
        pull = self.pulls.get(worker)
        if pull is None or not alive(connection):
            return None
        end = min(end or len(data), len(data))
        self._begin(pull, digest, start)
        status = 200
        if is_range:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._body(connection, pull, status, headers, digest, data[start:end])

    def _begin(self, pull, digest, start):
        """Holds the request against the rules, and takes note of it."""
        with self.lock:
            others = [other for other in self.pulls.values()
                      if other is not pull and digest in other.asked
                      and not other.killed and not other.elsewhere]
            again = digest in pull.asked
            stored = os.path.exists(self.blob_of(digest))
            part = self.length_of_part(digest)
            floor = 0 if pull.elsewhere else self.floor.pop(digest, 0)
            late = pull.is_out() or any(other.is_out() for other in others)
            wrong = None
            if late:
                self.counts["requests beside an overtaken holder"] += 1
            elif stored:
                wrong = "is in the store"
            elif others:
                wrong = "was sent to another process, which is alive"
            elif again and start < pull.asked[digest]["had"]:
                had = pull.asked[digest]["had"]
                wrong = f"is asked for by this process again, from byte {start}, and it had {had}"
            elif not again and start != part:
                wrong = f"is asked for from byte {start}, and its part has {part}"
            elif not again and start < floor:
                wrong = f"is asked for from byte {start}, and a killed process had left {floor}"
            self.counts["requests for blobs"] += 1
            self.counts["requests that resume"] += start > 0
            note = pull.asked.setdefault(digest, {"from": start, "sent": 0, "had": 0})
            note["had"] = max(note["had"], part)
        if wrong and not pull.killed and not pull.elsewhere:
            self.report(f"travels twice: worker {pull.worker}: {digest} {wrong}")

    def _body(self, connection, pull, status, headers, digest, body):
        self._send(connection, status, headers, body, True)
        slow = random.random() < (0.3 if len(body) < 512 << 10 else 0.7)
        size = max(2048, len(body) // 12) if slow else 1 << 20
        if not pull.goes_on.is_set():
            size = min(size, HELD_AT)
        pause = random.uniform(0.0, 0.03)
        note = pull.asked[digest]
        for at in range(0, len(body), size):
            if note["sent"] >= HELD_AT:
                pull.goes_on.wait()
            piece = body[at:at + size]
            connection.sendall(piece)
            note["sent"] += len(piece)
            note["had"] = max(note["had"], self.length_of_part(digest))
            with self.lock:
                self.counts["bytes of blobs sent"] += len(piece)
            if slow:
                time.sleep(pause)

    def _send(self, connection, status, headers, body, head_only=False):
        lines = [f"HTTP/1.1 {status} .", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        text = "\r\n".join(lines).encode() + b"\r\n\r\n"
        connection.sendall(text if head_only else text + body)


def alive(connection):
    """Whether who sent the last request is still there: a request of a dead process may be read
    after the worker has begun its next pull."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
