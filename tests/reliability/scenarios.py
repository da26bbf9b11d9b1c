"""The operations that are disturbed, and what the store of each is made of."""

import json
from dataclasses import dataclass, field

import samples

# The lease that is there beforehand; what is put.
LEASE = "0" * 31 + "1"
PUT = b"put " * 20000


@dataclass
class Scenario:
    """One command on one store."""

    name: str
    # The command; images stand in braces: {app:v1}.
    arguments: list
    # What the ledger says of it.
    op: str
    what: dict
    # What the store is made of beforehand.
    refs: list = field(default_factory=list)
    pinned: list = field(default_factory=list)
    parts: dict = field(default_factory=dict)
    # Images that another tool wrote and named, and blobs that it wrote and named by nothing.
    others: list = field(default_factory=list)
    loose: list = field(default_factory=list)
    extra: bool = False
    exists: bool = True
    # Whether blobs and index.json are damaged beforehand, which the command is to mend.
    damaged: bool = False
    # Exit codes of the same command after it was broken off: what it removes may be gone.
    again: tuple = (0,)


def scenarios(images):
    """Every operation that changes a store, and `check`."""

    def digest(image):
        return images.images[image]["digest"]

    def pull(name, image, **more):
        without = ()
        if image == "multi:v1":
            manifests = json.loads(images.blobs[digest(image)])["manifests"]
            without = (manifests[1]["digest"],)
        what = {
            "ref": "{" + image + "}",
            "digest": digest(image),
            "wanted": images.closure(images.images[image], without),
        }
        command = ["pull", "--plain-http", "{" + image + "}"]
        return Scenario(name, command, "pull", what, **more)

    layers = json.loads(images.blobs[digest("app:v1")])["layers"]
    cut = {layer["digest"]: [(0, layer["size"] // 2)] for layer in layers[2:]}
    large = [layer["digest"] for layer in layers[2:]]
    last = layers[3]
    cut[last["digest"]] = [(0, last["size"] // 4), (last["size"] // 2, last["size"] - 100)]
    both = ["base:v1", "app:v2"]
    tagged = {"ref": "registry.test/copy:v1", "digest": digest("app:v2")}
    tagged["wanted"] = images.closure(images.images["app:v2"])
    put = samples.digest_of(PUT)
    return [
        pull("first pull", "app:v1", exists=False),
        pull("pull", "app:v1", refs=["base:v1"]),
        pull("pull of an index", "multi:v1", refs=["base:v1"]),
        pull("pull of what is there", "app:v2", refs=both),
        pull("resumed pull", "app:v1", refs=["base:v1"], parts=cut),
        pull("pull over another tool's", "app:v1", others=["base:v1"], loose=large),
        Scenario("tag", ["tag", "{app:v2}", tagged["ref"]], "tag", tagged, refs=both),
        Scenario(
            "tag of another tool's",
            ["tag", "{app:v2}", tagged["ref"]],
            "tag",
            tagged,
            refs=["base:v1"],
            others=["app:v2"],
        ),
        Scenario("pin", ["pin", "{app:v2}"], "pin", {"ref": "{app:v2}"}, refs=both),
        Scenario(
            "unpin",
            ["unpin", "{app:v2}"],
            "unpin",
            {"ref": "{app:v2}"},
            refs=both,
            pinned=["base:v1", "app:v2"],
        ),
        Scenario("touch", ["touch", "{app:v2}"], "touch", {"digest": digest("app:v2")}, refs=both),
        Scenario(
            "config",
            ["config", "max-used-space", "20G"],
            "config",
            {"key": "max-used-space", "value": "20G"},
            refs=both,
        ),
        Scenario(
            "eviction",
            ["gc", "--grace", "0s", "--max-used-space", "{cap}"],
            "gc",
            {"grace": 0, "evicts": True},
            refs=["base:v1", "app:v1", "app:v2", "other:v1"],
            pinned=["app:v2"],
        ),
        Scenario("rm", ["rm", "{app:v2}"], "rm", {"ref": "{app:v2}"}, refs=both, again=(0, 4)),
        Scenario(
            "gc", ["gc", "--grace", "0s"], "gc", {"grace": 0}, refs=both, parts=cut, extra=True
        ),
        Scenario("check", ["check", "--read-data"], "check", {}, refs=both, parts=cut, extra=True),
        Scenario(
            "repair",
            ["check", "--repair", "--plain-http", "{host}"],
            "check",
            {},
            refs=["base:v1", "app:v1"],
            damaged=True,
        ),
        Scenario(
            "lease add",
            ["lease", "add", digest("app:v2")],
            "lease-add",
            {"trees": [digest("app:v2")], "until": None},
            refs=both,
        ),
        Scenario(
            "lease add to another tool's",
            ["lease", "add", digest("app:v2")],
            "lease-add",
            {"trees": [digest("app:v2")], "until": None},
            refs=["base:v1"],
            others=["app:v2"],
        ),
        Scenario(
            "lease rm",
            ["lease", "rm", LEASE],
            "lease-rm",
            {"lease": LEASE},
            refs=both,
            extra=True,
            again=(0, 4),
        ),
        Scenario(
            "blob put",
            ["blob", "put", "{put}"],
            "put",
            {"digest": put, "size": len(PUT)},
            refs=both,
        ),
    ]
