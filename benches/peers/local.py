"""What needs no registry: collecting, putting, checking, starting."""

import hashlib
import itertools
import json
import os
import pathlib
import shutil
import statistics
import subprocess

import durable
import whole
from measure import ROOT, in_turn, median, table, timed

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"

UNLINK = """
import os, sys
folder = os.open(sys.argv[1], os.O_RDONLY)
doomed = set(open(sys.argv[2]).read().split())
for name in os.listdir(folder):
    if name in doomed:
        os.unlink(name, dir_fd=folder)
"""


def make_layout(root, kept, dropped, layers=5):
    """A layout of small images; the names of the blobs of those that no ref leads to."""
    blobs = root / "blobs/sha256"
    blobs.mkdir(parents=True)
    root.chmod(0o700)
    refs, doomed = [], set()
    for n in range(kept + dropped):
        own = []

        def put(data, media_type):
            name = hashlib.sha256(data).hexdigest()
            (blobs / name).write_bytes(data)
            own.append(name)
            return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}

        parts = [put(b"\x1f\x8b" + f"{n}-{part} ".encode() * 100, LAYER) for part in range(layers)]
        config = {"architecture": "amd64", "os": "linux", "config": {"Env": [f"N={n}"]},
                  "rootfs": {"type": "layers", "diff_ids": [part["digest"] for part in parts]}}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST,
                    "config": put(json.dumps(config).encode(), CONFIG), "layers": parts}
        target = put(json.dumps(manifest).encode(), MANIFEST)
        if n < kept:
            name = f"registry.example/team/image-{n}:v1"
            target["annotations"] = {"org.opencontainers.image.ref.name": name,
                                     "io.containerd.image.name": name}
            refs.append(target)
        else:
            doomed.update(own)
    (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": refs}))
    return doomed


def more_garbage(root, count, seed):
    """Puts so many blobs that nothing leads to into a layout."""
    folder = root / "blobs/sha256"
    for n in range(count):
        data = b"\x1f\x8b" + f"garbage {seed} {n} ".encode() * 100
        (folder / hashlib.sha256(data).hexdigest()).write_bytes(data)


def collect(bench):
    """170,000 blobs, 100,000 of them of no use, page cache warm, a new copy for each run."""
    kept, dropped = 10_000 // bench.scale, 14_286 // bench.scale
    model = bench.folder / "model"
    doomed = make_layout(model, kept, dropped)
    subprocess.run([bench.store, "--root", model, "init"], check=True, stdout=subprocess.DEVNULL)
    (bench.folder / "doomed").write_text("\n".join(doomed))
    root = bench.folder / "gc"

    def prepare(_):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(model, root)
        return root

    def verify(name, root):
        left = set(os.listdir(root / "blobs/sha256"))
        if len(left) != 7 * kept or left & doomed:
            raise SystemExit(f"{name} left {len(left)} blobs, where {7 * kept} have to stay")

    store = [bench.store, "--root", root, "-q"]
    contenders = {
        "store": lambda _: timed([*store, "gc", "--grace", "0s"]),
        "list and unlink": lambda _: timed(
            ["python3", "-c", UNLINK, root / "blobs/sha256", bench.folder / "doomed"]),
        "umoci": lambda _: timed(["umoci", "gc", "--layout", root]),
    }
    results = in_turn(bench.rounds(3), contenders, prepare, verify)
    prepare(None)
    dry = in_turn(bench.rounds(5), {"store": lambda _: timed(
        [*store, "gc", "--dry-run", "--grace", "0s"])})
    return (f"## A collection: {7 * (kept + dropped):,} blobs, {kept:,} images\n\n{collect.__doc__}"
            f"\n\n{table(results)}\n\nThe same with `--dry-run`:\n\n{table(dry)}\n", results)


def put(bench):
    """10,000 blobs of 4 KiB, each durable under its name at the end; the files are in the page cache. The
    other program is Rust too, and makes one file after the other durable; it does not hash them."""
    count = 10_000 // bench.scale
    one_by_one = example("plain_put")
    sources = bench.folder / "sources"
    sources.mkdir()
    files = [sources / str(n) for n in range(count)]
    for n, file in enumerate(files):
        file.write_bytes(n.to_bytes(8, "little") * 512)
    roots = (bench.folder / f"put{n}" for n in itertools.count())

    def prepare(_):
        # Nothing is removed before the end: for minutes after that, ext4 looks long for an inode
        # that was not in use a moment ago.
        root = next(roots)
        root.mkdir(mode=0o700)
        return root

    def verify(name, root):
        if name == "store":
            whole.verify(root, names)
        elif {file.name: file.read_bytes() for file in root.iterdir()} != contents:
            raise SystemExit(f"{name} put other files than it was given")

    first = prepare("store")
    calls = durable.traced([bench.store, "--root", first, "blob", "put", *files], bench.folder / "trace")
    contents = {file.name: file.read_bytes() for file in files}
    names = {hashlib.sha256(file.read_bytes()).hexdigest(): 4096 for file in files}
    if wrong := durable.complaint(calls, names, with_ref=False):
        raise SystemExit(f"the put was not durable: {wrong}")
    results = in_turn(bench.rounds(3), {
        "store": lambda root: timed([bench.store, "--root", root, "blob", "put", *files]),
        "write, fsync, rename, fsync": lambda root: timed([one_by_one, root, *files]),
    }, prepare, verify)
    return f"## Many small blobs\n\n{put.__doc__}\n\n{table(results)}\n", results


def with_hashes(bench, root):
    """The images' layout as a store, with the hashes of groups."""
    root.mkdir(mode=0o700)
    subprocess.run(["cp", "-rT", bench.layout, root], check=True)
    for command in ("init", "check"):
        subprocess.run([bench.store, "--root", root, command], check=True, stdout=subprocess.DEVNULL)


def check(bench):
    """Every byte of the images' layout hashed on all cores, from the page cache: `check --read-data`
    compares digests, as `openssl dgst` makes them."""
    root = bench.folder / "check"
    with_hashes(bench, root)
    files = [str(file) for file in (root / "blobs/sha256").iterdir()]
    files.sort(key=lambda file: -os.path.getsize(file))
    listed = bench.folder / "files"
    listed.write_text("\n".join(files))
    cores = str(os.cpu_count())
    store = [bench.store, "--root", root, "-q", "check"]
    results = in_turn(bench.rounds(7), {
        "store": lambda _: timed([*store, "--read-data"]),
        "openssl": lambda _: timed(["xargs", "-a", listed, "-P", cores, "-n", "1", "openssl",
                                    "dgst", "-sha256"]),
        "store, group hashes": lambda _: timed(store),
        "b3sum": lambda _: timed(["b3sum", *files]),
    })
    size = sum(map(os.path.getsize, files)) / 1e9
    digests = {name: results[name] for name in ("store", "openssl")}
    groups = {name: results[name] for name in ("store, group hashes", "b3sum")}
    cold = in_turn(bench.rounds(3), {
        "store, group hashes": lambda _: timed(store),
        "store, `--read-data`": lambda _: timed([*store, "--read-data"]),
        "cat": lambda _: timed(["sh", "-c", 'xargs -a "$0" -P "$1" -n 1 cat >/dev/null', listed, cores]),
    }, lambda _: forget_pages())
    return (f"## A check of {size:.1f} GB\n\n{check.__doc__}\n\n{table(digests)}\n\n"
            "### A check of group hashes\n\nIn turn with those above, also from the page cache: `check` "
            "compares group hashes, which are of BLAKE3, as `b3sum` makes them.\n\n"
            f"{table(groups, 'store, group hashes')}\n\n"
            "### A check from the disk\n\nWith the page cache emptied before each run, beside a program that "
            f"only reads.\n\n{table(cold, 'store, group hashes')}\n", results)


def forget_pages():
    """Empties the page cache; needs root."""
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def read(bench):
    """1 GB read of the largest blob of the images, from the page cache, by the library: verified, as
    it always is, and from the file itself with the same calls."""
    root = bench.folder / "read"
    with_hashes(bench, root)
    largest = max((root / "blobs/sha256").iterdir(), key=os.path.getsize)
    reader = example("reader")
    ways = {"in order, 1 MiB": ("in-order", 1 << 20), "in order, 64 KiB": ("in-order", 64 << 10),
            "in order, 4 KiB": ("in-order", 4096),
            "at random, 64 KiB from a page on": ("at-pages", 64 << 10),
            "at random, a page of 4 KiB": ("at-pages", 4096),
            "at random, 4 KiB from anywhere": ("anywhere", 4096)}
    rows = []
    for name, (order, size) in ways.items():
        command = [reader, root, f"sha256:{largest.name}"]
        results = in_turn(bench.rounds(9), {
            how: lambda _, how=how: timed([*command, how, order, size, 10**9])
            for how in ("verified", "unverified")})
        pairs = zip(results["unverified"], results["verified"])
        speed = statistics.median(plain["wall"] / verified["wall"] for plain, verified in pairs)
        rows.append(f"| {name} | {median(results['verified']):.3f} | "
                    f"{median(results['unverified']):.3f} | {100 * speed:.0f} % |")
    return (f"## Verified reads\n\n{read.__doc__}\n\n"
            "| | verified, s | unverified, s | speed of verified, median of pairs |\n"
            "| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n", {})


def example(name):
    """Builds a program of ours that is measured beside the command."""
    subprocess.run(["cargo", "build", "--release", "--locked", "--example", name], cwd=ROOT, check=True)
    return ROOT / "target/release/examples" / name


def start(bench):
    """Commands that should be felt as immediate, with 1,000 refs in the store, and all files in the page
    cache, by a run before that is not timed."""
    root = bench.folder / "start"
    make_layout(root, 1_000, 0)
    subprocess.run([bench.store, "--root", root, "init"], check=True, stdout=subprocess.DEVNULL)
    store = [bench.store, "--root", root]
    results = in_turn(bench.rounds(21), {
        "store images": lambda _: timed([*store, "images"], peak=False),
        "store version": lambda _: timed([*store, "version"], peak=False),
        "/bin/true": lambda _: timed(["/bin/true"], peak=False),
    })
    return f"## Start-up\n\n{start.__doc__}\n\n{table(results, ours='store version')}\n", results
