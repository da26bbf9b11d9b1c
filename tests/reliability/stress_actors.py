"""What runs at the same time in the stress: workers, collectors, readers, and who stops and kills."""

import hashlib
import json
import os
import random
import signal
import subprocess
import threading
import time

from stress_registry import HELD_AT, Pull

# Longer than the two minutes after which the store gives up waiting for a lock.
DEADLINE = 240


class Run:
    """What all of a run share."""

    def __init__(self, command, root, content, ledger):
        self.command, self.root, self.content = command, root, content
        self.registry = None
        self.ledger = ledger
        self.workers = []
        self.quiet = False
        self.deadline = DEADLINE
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.lost = []
        self.counts = dict.fromkeys(
            ["pulls", "collections", "kills", "stops", "tags", "removals", "reads", "exports",
             "closures checked", "blobs removed", "overtaken", "sweeps of all names"], 0)
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": os.path.dirname(root),
            "REGISTRY_AUTH_FILE": os.path.join(os.path.dirname(root), "no-such-auth.json"),
            "TMPDIR": os.path.dirname(root),
        }

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] += number

    def report(self, what):
        """Something was lost, or did not hold."""
        with self.lock:
            self.lost.append(what)
            if len(self.lost) <= 20 and not self.quiet:
                print(f"stress: LOST: {what}", flush=True)

    def start(self, *arguments, **more):
        # Of a session of its own: when the shell that began all this ends, the kernel continues
        # whoever is stopped in its process group.
        return subprocess.Popen(
            [self.command, "--root", self.root, *arguments], env=self.environment,
            start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, **more)

    def finish(self, process, what):
        """Output and exit code; a process that does not end is an error."""
        try:
            out, err = process.communicate(timeout=self.deadline)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            self.report(f"{what} hangs: {err.decode(errors='replace')[-500:]}")
        return out, err.decode(errors="replace"), process.returncode

    def run(self, *arguments):
        """A command that must succeed."""
        what = " ".join(arguments)
        out, err, code = self.finish(self.start(*arguments), what)
        if code != 0:
            self.report(f"{what}: exit code {code}: {err[-500:]}")
        return out

    def refs(self):
        """What `index.json` names now, read as any other tool reads it."""
        with open(os.path.join(self.root, "index.json"), "rb") as file:
            entries = json.load(file)["manifests"]
        name = "org.opencontainers.image.ref.name"
        return {entry["annotations"][name]: entry["digest"] for entry in entries}

    def check_blob(self, digest):
        """Whether the blob is there, with the bytes of its digest."""
        try:
            with open(self.registry.blob_of(digest), "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return "is missing"
        return None if digest == "sha256:" + found else "has other bytes"

    def check_image(self, name, image, when):
        for digest in image.closure:
            problem = self.check_blob(digest)
            if problem:
                self.report(f"{name}: {digest} {problem} {when}")
        self.count("closures checked")


class Worker(threading.Thread):
    """Pulls, tags, reads, exports and removes images under names that are its own, so that what
    each name stands for is known whatever the others do."""

    def __init__(self, run, number, seed):
        super().__init__(name=f"w{number:02}", daemon=True)
        self.shared, self.random = run, random.Random(seed)
        self.host = run.registry.address
        self.held = {}  # name -> Image
        self.typical = 0.05

    def run(self):
        try:
            while not self.shared.stop.is_set():
                self.step()
        except Exception as error:  # or the thread would end in silence
            self.shared.report(f"{self.name}: {error!r}")
            raise

    def step(self):
        chance = self.random.random()
        if chance < 0.62 or not self.held:
            self.pull()
        elif chance < 0.70:
            self.tag()
        elif chance < 0.82 and len(self.held) > 3 or len(self.held) > 6:
            self.remove()
        elif chance < 0.93:
            self.read()
        elif chance < 0.955:
            self.export()
        else:
            self.remove()

    def ends(self, process, what, pull=None):
        """Lets a process run, or stops it for a while, or kills it. `None` if it was killed, or
        failed."""
        chance = self.random.random()
        if chance < 0.24:
            if pull is not None and chance < 0.10:
                wait_for_bytes(process, pull, self.random.randrange(1, 1 << 20))
            else:
                time.sleep(self.random.uniform(0, 1.3 * self.typical))
            if chance < 0.15:
                killed = self.kill(process, pull, exact=chance < 0.10)
                if killed:
                    return None
            elif process.poll() is None:
                self.stop_for(process, self.random.uniform(0.01, 1.5), pull)
        out, err, code = self.shared.finish(process, what)
        if code != 0:
            self.shared.report(f"{what}: exit code {code}: {err[-500:]}")
            return None
        return out

    def kill(self, process, pull, exact):
        """Whether it was killed before it had ended."""
        if exact and pull is not None and stop_process(process):
            # Its parts cannot change between this look and its death.
            pull.killed = True
            self.shared.registry.died(pull, exact=True)
        if pull is not None:
            pull.killed = True
        process.kill()
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            return False
        self.shared.count("kills")
        return True

    def stop_for(self, process, seconds, pull):
        if stop_process(process):
            self.shared.count("stops")
            if pull is not None:
                pull.stopped = time.monotonic()
            time.sleep(seconds)
            if pull is not None:
                pull.is_out()
                pull.stopped = None
        process.send_signal(signal.SIGCONT)

    def begin(self, op, name, image=None):
        """Says in the ledger what is about to be done; its id there."""
        what = {"digest": image.digest} if image else {}
        return self.shared.ledger.begin(op, ref=name, **what)

    def did(self, entry, name, image, process_ended):
        """What a name stands for after an operation: known if it ended well, and found out if it
        was killed, when it may be either of two."""
        before = self.held.get(name)
        if process_ended:
            self.shared.ledger.done(entry)
        else:
            self.shared.ledger.killed(entry)
            found = self.shared.refs().get(name)
            allowed = {each.digest if each else None for each in (before, image)}
            if found not in allowed:
                self.shared.report(f"{name} is {found} after a kill, not one of {allowed}")
            if image is None or found != image.digest:
                image = before if found else None
        self.held[name] = image
        if image is None:
            del self.held[name]

    def pull(self):
        shared = self.shared
        image = self.random.choice(shared.content.images)
        # A tag that moves, now and then.
        tag = self.random.choice(["moving", "v1", "v2", "v3"])
        repository = f"{self.name}/image"
        shared.registry.tags[repository, tag] = image
        pull = shared.registry.pulls[self.name] = Pull(self.name)
        name = f"{self.host}/{repository}:{tag}"
        entry = self.begin("pull", name, image)
        started = time.monotonic()
        process = shared.start("--json", "-q", "pull", "--plain-http", name)
        out = self.ends(process, f"pull {name}", pull)
        pull.killed = True  # or has ended
        if out:
            self.typical += 0.1 * (time.monotonic() - started - self.typical)
            shared.count("pulls")
            digest = json.loads(out)["digest"]
            if digest != image.digest:
                shared.report(f"{name}: pulled {digest}, not {image.digest}")
        self.did(entry, name, image, out is not None)
        if out:
            self.check_ref(name)

    def check_ref(self, name):
        image, found = self.held[name], self.shared.refs().get(name)
        if found != image.digest:
            self.shared.report(f"{name} is {found}, not {image.digest}")
        self.shared.check_image(name, image, "though its name is there")

    def tag(self):
        source = self.random.choice(sorted(self.held))
        name = f"{self.host}/{self.name}/tagged:{self.random.randrange(3)}"
        entry = self.begin("tag", name, self.held[source])
        out = self.ends(self.shared.start("tag", source, name), f"tag {source} {name}")
        self.did(entry, name, self.held[source], out is not None)
        self.shared.count("tags", out is not None)

    def remove(self):
        name = self.random.choice(sorted(self.held))
        self.check_ref(name)
        entry = self.begin("rm", name)
        out = self.ends(self.shared.start("rm", name), f"rm {name}")
        self.did(entry, name, None, out is not None)
        self.shared.count("removals", out is not None)

    def read(self):
        """Reads a blob slowly, with our command or by opening it, while its image is removed and
        collected: who has it open sees all of it."""
        name = self.random.choice(sorted(self.held))
        digest = self.random.choice(sorted(self.held[name].closure))
        if self.random.random() < 0.5:
            with open(self.shared.registry.blob_of(digest), "rb") as file:
                self.let_go(name)
                found = hashlib.sha256()
                while piece := file.read(self.random.randrange(1024, 65536)):
                    found.update(piece)
                    time.sleep(self.random.uniform(0, 0.002))
            problem = None if digest == "sha256:" + found.hexdigest() else "other bytes"
        else:
            process = self.shared.start("blob", "cat", digest, bufsize=0)
            first = process.stdout.read(1)
            # It has written a byte, so it has the blob open.
            self.let_go(name)
            time.sleep(self.random.uniform(0, 0.05))
            rest, err, code = self.shared.finish(process, f"blob cat {digest}")
            found = "sha256:" + hashlib.sha256(first + rest).hexdigest()
            problem = None if code == 0 and found == digest else f"exit code {code}: {err}"
        if problem:
            self.shared.report(f"a reader of {digest} saw {problem}")
        self.shared.count("reads")

    def let_go(self, name):
        if self.random.random() < 0.5:
            entry = self.begin("rm", name)
            self.shared.run("rm", name)
            self.did(entry, name, None, True)
            self.shared.count("removals")

    def export(self):
        """By another tool, out of the store as it lies there."""
        name = self.random.choice(sorted(self.held))
        target = os.path.join(os.path.dirname(self.shared.root), f"export-{self.name}")
        copied = subprocess.run(
            ["skopeo", "copy", "-q", "--insecure-policy", "--all",
             f"oci:{self.shared.root}:{name}", f"dir:{target}"],
            stdin=subprocess.DEVNULL, capture_output=True, env=self.shared.environment,
            timeout=DEADLINE)
        if copied.returncode:
            self.shared.report(f"export of {name}: {copied.stderr.decode()[-500:]}")
        subprocess.run(["rm", "-rf", target], check=True)
        self.shared.count("exports")


def wait_for_bytes(process, pull, number):
    """Until so many bytes were sent to a process, or some and no more for a moment."""
    while process.poll() is None:
        before = pull.sent()
        if before >= number:
            return
        time.sleep(0.002 if before == 0 else 0.03)
        if before and pull.sent() == before:
            return


def stop_process(process):
    """Stops all threads of a process; whether it was still there to be stopped."""
    process.send_signal(signal.SIGSTOP)
    path = f"/proc/{process.pid}/stat"
    while process.poll() is None:
        try:
            with open(path) as file:
                state = file.read().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state in "Tt" and all_stopped(process.pid):
            return True
        if state in "ZX":
            return False
        time.sleep(0.0005)
    return False


def all_stopped(pid):
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] not in "TtZX":
                    return False
    except OSError:
        return False
    return True


class Collector(Worker):
    """Collects again and again, and is stopped and killed as others are."""

    def step(self):
        time.sleep(self.random.uniform(0, 0.05))
        started = time.monotonic()
        process = self.shared.start("--json", "gc", "--grace", "0s")
        chance = self.random.random()
        if chance < 0.10:
            time.sleep(self.random.uniform(0, 1.2 * self.typical))
            if chance < 0.07:
                if self.kill(process, None, False):
                    return
            elif process.poll() is None:
                self.stop_for(process, self.random.uniform(0.01, 1.0), None)
        out, err, code = self.shared.finish(process, "gc")
        if code == 0:
            self.typical += 0.1 * (time.monotonic() - started - self.typical)
            self.shared.count("collections")
            self.shared.count("blobs removed", json.loads(out)["removed"])
        elif code != 11:
            self.shared.report(f"gc: exit code {code}: {err[-500:]}")


class Auditor(Worker):
    """Looks at every name under `blobs/`, again and again: it stands for its bytes, always."""

    def step(self):
        folder = os.path.join(self.shared.root, "blobs/sha256")
        for name in os.listdir(folder):
            if self.shared.check_blob(f"sha256:{name}") == "has other bytes":
                self.shared.report(f"blobs/sha256/{name} has other bytes")
        self.shared.count("sweeps of all names")
        self.shared.stop.wait(1.0)


class Overtaker(Worker):
    """Stops a process that downloads, and has another pull the same image meanwhile: the other
    does not wait for ever, and the stopped one ends well when it goes on."""

    def step(self):
        shared, registry = self.shared, self.shared.registry
        image = shared.content.lone_image(self.random.randrange(1 << 30))
        names = []
        pulls = []
        for which in ("a", "b"):
            repository = f"{self.name}{which}/image"
            registry.tags[repository, "v1"] = image
            names.append(f"{self.host}/{repository}:v1")
            pulls.append(Pull(self.name + which))
            registry.pulls[self.name + which] = pulls[-1]
        pulls[0].goes_on.clear()
        entries = [self.begin("pull", name, image) for name in names]
        first = shared.start("--json", "-q", "pull", "--plain-http", names[0])
        while first.poll() is None and not any(a["sent"] >= HELD_AT for a in list(pulls[0].asked.values())):
            time.sleep(0.01)
        # Ended before the second is ready, if the run ends.
        if not stop_process(first):
            shared.report(f"pull {names[0]} ended before it could be stopped")
        pulls[0].goes_on.set()
        shared.count("stops")
        pulls[0].stopped = time.monotonic()
        shared.run("--json", "-q", "pull", "--plain-http", names[1])
        shared.check_image(names[1], image, "though its pull has overtaken another")
        pulls[0].is_out()
        first.send_signal(signal.SIGCONT)
        _, err, code = shared.finish(first, f"pull {names[0]}")
        if code != 0:
            shared.report(f"overtaken pull {names[0]}: exit code {code}: {err[-500:]}")
        elif not pulls[0].overtaken:
            shared.report(f"pull {names[1]} did not wait for the one that was stopped")
        else:
            shared.count("overtaken")
        for pull in pulls:
            pull.killed = True  # they have ended
        shared.count("pulls", 2)
        shared.check_image(names[0], image, "though its name is there")
        for entry, name in zip(entries, names):
            shared.ledger.done(entry)
            entry = self.begin("rm", name)
            shared.run("rm", name)
            shared.ledger.done(entry)
