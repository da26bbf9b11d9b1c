"""Whether what a contender brought is the image, whole, and not less."""

import hashlib
import json
import pathlib
import tempfile

import durable


class Incomplete(SystemExit):
    """Ends the program, unless that was asked for."""


def blobs_of(layout):
    """Name and size of each blob that is there."""
    folder = layout / "blobs/sha256"
    return {file.name: file.stat().st_size for file in folder.iterdir()} if folder.is_dir() else {}


def named_in(layout):
    """Name and size of each blob of the images in index.json, by their manifests."""
    named = {}

    def follow(descriptor):
        name = descriptor["digest"].removeprefix("sha256:")
        named[name] = descriptor["size"]
        if "manifest" in descriptor["mediaType"] or "index" in descriptor["mediaType"]:
            document = json.loads((layout / "blobs/sha256" / name).read_bytes())
            parts = [*document.get("manifests", ()), *document.get("layers", ())]
            for part in [*parts, document["config"]] if "config" in document else parts:
                follow(part)

    for descriptor in json.loads((layout / "index.json").read_text())["manifests"]:
        follow(descriptor)
    return named


def verify(layout, blobs, others=False, digests=True):
    """Ends the program if these blobs are not there with their sizes, each with the bytes that its name
    is the digest of, and unless there may be `others`, nothing else."""
    if not blobs:
        raise Incomplete(f"{layout}: nothing was expected, so nothing could be missed")
    folder = layout / "blobs/sha256"
    if others:
        found = {name: (folder / name).stat().st_size for name in blobs if (folder / name).exists()}
    else:
        found = blobs_of(layout)
    if found != blobs:
        wrong = sorted(name for name in found.keys() | blobs.keys() if found.get(name) != blobs.get(name))
        raise Incomplete(f"{layout} has {len(found)} blobs where {len(blobs)} are the image; "
                         f"{', '.join(wrong[:5])} differ")
    for name in blobs if digests else ():
        with (folder / name).open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != name:
                raise Incomplete(f"{layout}: the content of {name} is another")


def brought(command, root, log):
    """The blobs of an image, by a pull of ours into a new store that is not timed, and stays. By its system
    calls it has to be durable, and all that the image's manifest names has to be there."""
    calls = durable.traced(command, log)
    blobs = named_in(root)
    verify(root, blobs)
    if wrong := durable.complaint(calls, blobs):
        raise Incomplete(f"{' '.join(map(str, command))[:300]} was not durable: {wrong}")
    return blobs


def verify_reused(said, blobs):
    """Ends the program unless `store --json pull` said in a file that it fetched nothing."""
    said = json.loads(said.read_text())
    if said["fetchedBlobs"] or said["fetchedBytes"] or said["reusedBlobs"] != len(blobs):
        raise Incomplete(f"a pull of what is there fetched {said['fetchedBlobs']} blobs, "
                         f"{said['fetchedBytes']} bytes, and used {said['reusedBlobs']} of {len(blobs)}")


def self_test():
    """A small image, and what is less than it."""
    def put(data):
        name = hashlib.sha256(data).hexdigest()
        (folder / name).write_bytes(data)
        return {"mediaType": "application/octet-stream", "digest": f"sha256:{name}", "size": len(data)}

    with tempfile.TemporaryDirectory() as scratch:
        layout = pathlib.Path(scratch)
        folder = layout / "blobs/sha256"
        assert refused(layout, {"a": 1}), "no folder"
        folder.mkdir(parents=True)
        assert refused(layout, {"a": 1}) and refused(layout, {}), "an empty folder"
        layer, config = put(b"layer"), put(b"config")
        manifest = put(json.dumps({"config": config, "layers": [layer]}).encode())
        manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
        (layout / "index.json").write_text(json.dumps({"manifests": [manifest]}))
        blobs = named_in(layout)
        assert len(blobs) == 3 and not refused(layout, blobs), "what is right"
        file = folder / layer["digest"].removeprefix("sha256:")
        for others in (False, True):
            for data in (b"other", b"laye", None):
                file.unlink() if data is None else file.write_bytes(data)
                assert refused(layout, blobs, others), f"{data} in place of a layer"
            put(b"layer")
        put(b"more")
        assert refused(layout, blobs) and not refused(layout, blobs, others=True), "one blob more"
        said = layout / "said"
        for fetched, reused, wrong in ((0, 3, False), (1, 2, True), (0, 2, True)):
            said.write_text(json.dumps({"fetchedBlobs": fetched, "fetchedBytes": fetched,
                                        "reusedBlobs": reused}))
            try:
                verify_reused(said, blobs)
                assert not wrong, f"fetched {fetched}, reused {reused}"
            except Incomplete:
                assert wrong, "nothing was fetched"


def refused(*arguments, **options):
    try:
        verify(*arguments, **options)
        return False
    except Incomplete:
        return True


if __name__ == "__main__":
    self_test()
