"""What is under way when the power goes: pulls, tags, removals, pins, uses, collections, puts and
leases, at random and several at a time, each noted in a ledger."""

import concurrent.futures
import contextlib
import json
import os
import random
import subprocess
import threading
import time

import checker
import disks
import layout
import ledger as ledgers
import samples
from readers import Readers


class MarkedLedger(ledgers.Ledger):
    """A ledger whose lines are marks in a block log too, each at its place between the writes."""

    def __init__(self, path, log):
        super().__init__(path, sync=False)
        self.log = log

    def _append(self, record):
        # Before an operation begins, and after it has ended: no mark says too much.
        record = {**record, "time": time.time()}
        super()._append(record)
        self.log.mark(json.dumps(record).encode() + b"\n")


    def tick(self):
        """A mark that says how late it is, and nothing else."""
        self.log.mark(json.dumps({"time": time.time()}).encode() + b"\n")


class Client:
    """Runs the command on one store, and keeps the ledger."""

    def __init__(self, binary, root, server, ledger, environment=None):
        self.binary, self.root, self.server, self.ledger = binary, root, server, ledger
        self.environment = {**os.environ, "HOME": "/nonexistent", **(environment or {})}
        self.refs, self.leases = set(), []

    def run(self, *arguments, data=None):
        command = [self.binary, "--root", self.root, "-q", *arguments]
        return subprocess.run(
            command, input=data or b"", capture_output=True, env=self.environment, check=False
        )

    def noted(self, op, arguments, data=None, ended=None, **what):
        """Runs a command between its two lines of the ledger; whether it was acknowledged."""
        name = self.ledger.begin(op, **what)
        done = self.run(*arguments, data=data)
        if done.returncode == 0:
            self.ledger.done(name, **(ended(done.stdout) if ended else {}))
        else:
            self.ledger.failed(name, code=done.returncode, said=done.stderr.decode()[-300:])
        return done

    def name(self, image):
        return f"{self.server.host}/{image}"

    def pull(self, image):
        root = self.server.images.images[image]
        ref, digest, wanted = self.name(image), root["digest"], self.wanted(root)
        return self.noted("pull", self.pull_arguments(image), ref=ref, digest=digest, wanted=wanted)

    def pull_arguments(self, image):
        return ["pull", "--plain-http", "--platform", "linux/amd64", self.name(image)]

    def wanted(self, root):
        """The blobs of an image; of an index, those of one platform."""
        document = json.loads(self.server.images.blobs[root["digest"]])
        others = [
            it["digest"]
            for it in document.get("manifests", [])
            if it["platform"]["architecture"] != "amd64"
        ]
        return self.server.images.closure(root, without=others)

    def tag(self, image, target, by_digest=False):
        """By its digest an image can be named that nothing has named yet."""
        root = self.server.images.images[image]
        target = self.name(target)
        digest, wanted = root["digest"], self.wanted(root)
        arguments = ["tag", digest if by_digest else self.name(image), target]
        return self.noted("tag", arguments, ref=target, digest=digest, wanted=wanted)

    def write_as_other(self, image, choice):
        """As another tool, writes what is missing of an image, and syncs nothing. What is there it leaves."""
        blobs = self.wanted(self.server.images.images[image])
        name = self.ledger.begin("loose", blobs=blobs)
        aside = f"{self.root}-other-{threading.get_ident()}"
        try:
            for digest in blobs:
                samples.write(aside, self.server.images.blobs[digest], choice.choice(layout.BLOBS_OF_OTHERS))
                with contextlib.suppress(FileExistsError):
                    os.link(aside, layout.blob_path(self.root, digest))
                os.unlink(aside)
        except OSError as error:
            # There is no store yet, or the disk is gone.
            self.ledger.failed(name, said=str(error))
        else:
            self.ledger.done(name)

    def remove(self, image):
        return self.noted("rm", ["rm", self.name(image)], ref=self.name(image))

    def pin(self, image):
        return self.noted("pin", ["pin", self.name(image)], ref=self.name(image))

    def unpin(self, image):
        return self.noted("unpin", ["unpin", self.name(image)], ref=self.name(image))

    def touch(self, image):
        digest = self.server.images.images[image]["digest"]
        return self.noted("touch", ["touch", self.name(image)], digest=digest)

    def put(self, data):
        digest = samples.digest_of(data)
        return self.noted("put", ["blob", "put", "-"], data=data, digest=digest, size=len(data))

    def collect(self, grace):
        return self.noted("gc", ["gc", f"--grace={grace}s"], grace=grace)

    def add_lease(self, image):
        trees = [self.server.images.images[image]["digest"]]
        arguments = ["lease", "add", *trees]
        ended = lambda said: {"lease": said.decode().strip()}  # noqa: E731
        done = self.noted("lease-add", arguments, trees=trees, until=None, ended=ended)
        if done.returncode == 0:
            self.leases.append(done.stdout.decode().strip())

    def tell_anew(self):
        """Begins a ledger with what is there."""
        self.leases = []
        if not os.path.isdir(self.root):
            return
        for ref, descriptor in layout.refs(self.root).items():
            self.ledger.acknowledged("pull", ref=ref, digest=descriptor["digest"], told=1)
            if layout.is_pinned(descriptor):
                self.ledger.acknowledged("pin", ref=ref, told=1)
        for lease, what in layout.leases(self.root).items():
            if what.lasts(0):
                trees = list(what.trees)
                self.ledger.acknowledged("lease-add", trees=trees, until=None, lease=lease, told=1)
                self.leases.append(lease)

    def tick(self, until):
        """Waits until then, and has it in the block log how late it is."""
        while True:
            self.ledger.tick()
            left = until - time.time()
            if left <= 0:
                return
            time.sleep(min(left, 0.5))

    def remove_lease(self):
        if self.leases:
            lease = self.leases.pop()
            self.noted("lease-rm", ["lease", "rm", lease], lease=lease)


OTHERS = Readers()
IMAGES = ("base:v1", "app:v1", "app:v2", "multi:v1", "other:v1")
TAGS = ("tag:one", "tag:two", "tag:three")


def step(client, choice):
    """One operation at random."""
    image = choice.choice(IMAGES)
    operation = choice.choices(
        ("pull", "tag", "rm", "put", "gc", "lease", "unlease", "touch", "pin", "unpin", "other"),
        (8, 4, 3, 3, 2, 2, 1, 2, 2, 2, 5),
    )[0]
    if operation == "pull":
        client.pull(image)
    elif operation == "tag":
        client.tag(image, choice.choice(TAGS))
    elif operation == "rm":
        client.remove(choice.choice(IMAGES + TAGS))
    elif operation == "put":
        client.put(choice.randbytes(choice.choice((10, 5000, 70_000))))
    elif operation == "gc":
        client.collect(choice.choice((0, 0, 3600)))
    elif operation == "lease":
        client.add_lease(image)
    elif operation == "unlease":
        client.remove_lease()
    elif operation == "touch":
        client.touch(image)
    elif operation == "other":
        client.write_as_other(image, choice)
        then = choice.choice(("tag", "tag", "pull", "lease"))
        if then == "tag":
            client.tag(image, choice.choice(TAGS), by_digest=True)
        elif then == "pull":
            client.pull(image)
        else:
            client.add_lease(image)
    elif operation == "pin":
        client.pin(choice.choice(IMAGES + TAGS))
    else:
        client.unpin(choice.choice(IMAGES + TAGS))


@contextlib.contextmanager
def several(client, seed, steps, workers=2, stop=None):
    """Random operations, several at a time, until each worker has made its steps or `stop` is set. They
    have ended when the block is left; what one of them could not do is raised then."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:

        def work(number):
            choice = random.Random(f"{seed} {number}")
            for _ in range(steps):
                if stop is not None and stop.is_set():
                    return
                step(client, choice)

        under_way = [pool.submit(work, n) for n in range(workers)]
        yield
        for it in under_way:
            it.result()


# How many seconds lie between two uses of `uses`, and how long is waited for what the kernel does.
BETWEEN, AFTERWARDS = 4, 36


def uses(client):
    """Each image is used, one after the other, though neither was for long, and once more within the
    minute, which is not noted; and then nothing happens."""
    for image in IMAGES:
        client.pull(image)
    for image in IMAGES:
        digest = client.server.images.images[image]["digest"]
        grow_old(client.root, digest, has_record=image != IMAGES[-1])
    disks.run("sync", "-f", client.root)
    begun = time.time()
    for n, image in enumerate(IMAGES):
        for when in (n, n + 0.5):
            client.tick(begun + when * BETWEEN)
            client.touch(image)
    client.tick(time.time() + AFTERWARDS)


def grow_old(root, digest, has_record):
    """An image was used an hour ago; or another tool brought it then, and nobody has used it."""
    then = time.time() - 3600
    record = os.path.join(root, ".layerstore/used", digest.replace(":", "-"))
    os.utime(layout.blob_path(root, digest), (then, then))
    if has_record:
        os.utime(record, (then, then))
    else:
        os.unlink(record)


def time_of(marks):
    """When the last of these marks was made; long ago, if there is none."""
    return max((json.loads(bytes(line))["time"] for line in marks), default=0.0)


def operations_of(marks):
    """A ledger of the lines that are marks before a cut."""
    operations = {}
    for place, line in enumerate(marks):
        record = json.loads(bytes(line))
        if "at" not in record:
            continue
        name, at = record.pop("id"), record.pop("at")
        when = record.pop("time")
        if at == "begin":
            operations[name] = ledgers.Operation(record.pop("op"), record, place, when)
        else:
            it = operations[name]
            it.ended, it.ended_at, it.outcome = place, when, at
            it.what.update(record)
    return list(operations.values())


def aftermath(client, operations, image, cut):
    """What is wrong with a store after a cut, at that time: at once, for other tools too, after the next
    pull, after a collection. `client` notes nothing of what is done here. An empty list, if nothing is."""
    root, expected = client.root, ledgers.expected(operations, cut=cut)
    if os.path.isdir(root):
        problems = checker.check(root, expected).problems
        problems += OTHERS.look(root)
    else:
        problems = ["lost: the whole store"] if any(it.is_done for it in operations) else []
    problems += next_pull(client, image)
    if problems:
        return problems
    left = ledgers.Expected(cut=cut, others=expected.others, unsynced=expected.unsynced)
    problems = ["after the next pull: " + it for it in checker.check(root, left, strict=False).problems]
    alive = layout.live(root, 0)
    for path in temporaries(root):
        os.utime(path, (1, 1))
    done = client.run("gc", "--grace=0s")
    if done.returncode:
        return problems + [f"gc: exit code {done.returncode}: {done.stderr.decode()[-300:]}"]
    problems += [f"kept: {path}" for path in temporaries(root)]
    return problems + checker.after_collection(root, alive)


def temporaries(root):
    """What was being written when the power went. A collection removes it after a day."""
    walk = ((folder, name) for folder, _, names in os.walk(root) for name in names)
    return [os.path.join(folder, name) for folder, name in walk if name.startswith(".new-")]


def next_pull(client, image):
    """It needs no repair, and brings nothing that is there. What power took from a part is found
    out at its end, so that a blob of which there was a part may come once more, as a whole; and so may
    what another tool left there with other bytes."""
    root, server = client.root, client.server
    wanted = client.wanted(server.images.images[image])
    allowed = layout.missing_bytes(root, wanted)
    there = layout.blobs(root)
    for digest, size in wanted.items():
        if there.get(digest) != size and layout.part_bytes(root, digest):
            allowed += size
        elif there.get(digest) == size and not layout.is_whole(root, digest):
            allowed += size
    server.reset()
    done = client.run(*client.pull_arguments(image))
    if done.returncode:
        return [f"the next pull: exit code {done.returncode}: {done.stderr.decode()[-300:]}"]
    if server.sent() > allowed:
        return [f"the next pull: fetched {server.sent()} bytes, and {allowed} were missing"]
    return []
