//! `images`, `inspect`, `tag` and `rm`.

use layerstore::oci::{Algorithm, MediaType};
use layerstore::{Descriptor, Lease, Pinned};
use serde_json::json;

use crate::sandbox::{Sandbox, keys};
use crate::store_support::{CONFIG, Image, blob_path, index_text, put, put_image};

const FULL_CONFIG: &str = r#"{
    "architecture": "arm64", "variant": "v8", "os": "linux", "created": "2024-05-01T12:00:00Z",
    "config": {
        "User": "1000", "WorkingDir": "/srv", "Entrypoint": ["/bin/a", "two words"],
        "Cmd": ["--x"], "Env": ["PATH=/bin", "A=b"], "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}}, "StopSignal": "SIGTERM", "Labels": {"k": "v", "a": "b"}
    },
    "rootfs": {"type": "layers", "diff_ids": []}
}"#;

fn add_full(sandbox: &Sandbox, name: &str) -> Image {
    let store = sandbox.library();
    let lease = store.lease("test").unwrap();
    let (image, pinned) = put_image(&store, &lease, FULL_CONFIG.as_bytes(), &[&[1; 5000], b"two"]);
    store.publish(name, &image.target, &pinned).unwrap();
    image
}

/// An index of an image for arm64 that is there, and one for amd64 that was never pulled.
fn add_index(sandbox: &Sandbox, name: &str) -> Descriptor {
    let store = sandbox.library();
    let lease: Lease = store.lease("test").unwrap();
    let (image, mut pinned) = put_image(&store, &lease, FULL_CONFIG.as_bytes(), &[b"layer"]);
    let mut there = image.target;
    there.platform = "linux/arm64".parse().ok();
    let media_type = MediaType::new(MediaType::OCI_MANIFEST);
    let mut absent = Descriptor::new(media_type, Algorithm::Sha256.digest(b"absent"), 6);
    absent.platform = "linux/amd64".parse().ok();
    let text = index_text(&[absent, there]);
    let index: Pinned = put(&store, &lease, text.as_bytes());
    let target =
        Descriptor::new(MediaType::new(MediaType::OCI_INDEX), *index.digest(), index.size());
    pinned.push(index);
    store.publish(name, &target, &pinned).unwrap();
    target
}

#[test]
fn a_pinned_name_stays() {
    let sandbox = Sandbox::new();
    add_full(&sandbox, "example.org/a:1");
    add_full(&sandbox, "docker.io/library/b:latest");
    assert_eq!(sandbox.ok(&["pin", "b"]), "pinned docker.io/library/b:latest\n");
    assert_eq!(
        sandbox.json(&["pin", "b"]),
        json!([{"name": "docker.io/library/b:latest", "pinned": true, "changed": false}])
    );
    let list = sandbox.json(&["images"]);
    assert_eq!((&list[0]["pinned"], &list[1]["pinned"]), (&json!(true), &json!(false)));
    let text = sandbox.ok(&["images"]);
    assert!(text.lines().nth(1).unwrap().ends_with("KiB  pinned"), "{text}");
    sandbox.fails(&["rm", "b"], 1, "is pinned");
    let done = sandbox.run(&["--json", "rm", "b", "example.org/a:1"]);
    assert_eq!(done.code, Some(3), "{done:?}");
    let removed: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&removed[0]["removed"], &removed[0]["pinned"]), (&json!(false), &json!(true)));
    assert_eq!((&removed[1]["removed"], &removed[1]["pinned"]), (&json!(true), &json!(false)));
    // The name moves, the pin stays; a second name has none.
    add_index(&sandbox, "docker.io/library/b:latest");
    sandbox.ok(&["tag", "b", "c"]);
    let list = sandbox.json(&["images"]);
    assert_eq!((&list[0]["pinned"], &list[1]["pinned"]), (&json!(true), &json!(false)));
    sandbox.fails(&["pin", "none"], 4, "no image");
    assert_eq!(sandbox.run(&["unpin", "b", "none"]).code, Some(3));
    sandbox.ok(&["pin", "b"]);
    assert_eq!(sandbox.ok(&["rm", "--force", "b"]), "removed docker.io/library/b:latest\n");
}

#[test]
fn touch_says_that_an_image_is_in_use() {
    let sandbox = Sandbox::new();
    let image = add_full(&sandbox, "example.org/a:1");
    let name = format!("{}-{}", image.target.digest.algorithm(), image.target.digest.hex());
    let record = sandbox.root().join(".layerstore/used").join(name);
    let used = || sandbox.json(&["images"])[0]["lastUsed"].as_u64().unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for path in [&record, &blob_path(&sandbox.library(), &image.target.digest)] {
        std::fs::File::open(path).unwrap().set_modified(old).unwrap();
    }
    assert_eq!(used(), 1_000_000_000, "neither is `images` a use");
    let line = format!("example.org/a:1@{}\n", image.target.digest);
    assert_eq!(sandbox.ok(&["touch", "example.org/a:1"]), line);
    assert!(used() > 1_000_000_000);
    let done = sandbox.run(&["touch", "example.org/a:1", "example.org/none:1"]);
    assert_eq!((done.code, done.out), (Some(3), line));
    sandbox.fails(&["touch", "example.org/none:1"], 4, "no image");
    assert_eq!(sandbox.json(&["touch", "example.org/a:1"])[0]["name"], "example.org/a:1");
}

#[test]
fn images_are_listed_by_name() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.ok(&["images"]), "NAME  DIGEST  PLATFORM  SIZE\n");
    assert_eq!(sandbox.json(&["images"]), json!([]));
    let b = add_index(&sandbox, "example.org/b:1");
    let a = add_full(&sandbox, "example.org/a:1");
    let short = |hex: String| hex[..12].to_owned();
    let expected = format!(
        "NAME             DIGEST        PLATFORM        SIZE\n\
         example.org/a:1  {}  linux/arm64/v8  6.2 KiB\n\
         example.org/b:1  {}  linux/arm64     1.7 KiB\n",
        short(a.target.digest.hex()),
        short(b.digest.hex())
    );
    let text = sandbox.ok(&["images"]);
    // The sizes are those of the documents and change with them; everything else is exact.
    let sizeless = |text: &str| text.lines().map(|line| line[..47].to_owned()).collect::<Vec<_>>();
    assert_eq!(sizeless(&text), sizeless(&expected));

    let list = sandbox.json(&["images"]);
    let row = &list[0];
    assert_eq!(
        keys(row),
        [
            "name",
            "digest",
            "mediaType",
            "platforms",
            "size",
            "blobs",
            "missing",
            "foreign",
            "pinned",
            "lastUsed",
            "error"
        ]
    );
    assert_eq!(row["name"], "example.org/a:1");
    assert_eq!(row["digest"], a.target.digest.to_string());
    assert_eq!(row["mediaType"], MediaType::OCI_MANIFEST);
    assert_eq!(row["platforms"], json!(["linux/arm64/v8"]));
    let size = a.target.size + FULL_CONFIG.len() as u64 + 5000 + 3;
    assert_eq!((&row["size"], &row["blobs"]), (&json!(size), &json!(4)));
    assert_eq!((&row["missing"], &row["error"]), (&json!(0), &json!(null)));
    assert_eq!(list[1]["platforms"], json!(["linux/arm64"]));
    assert_eq!(list[1]["missing"], 0, "a platform that was not pulled is not missing");
}

#[test]
fn an_image_with_missing_blobs_is_marked_and_an_unreadable_one_hides_no_other() {
    let sandbox = Sandbox::new();
    let a = add_full(&sandbox, "example.org/a:1");
    let b = sandbox.add_image("example.org/b:1", &[b"b"]);
    sandbox.add_image("example.org/c:1", &[b"c"]);
    let store = sandbox.library();
    std::fs::remove_file(blob_path(&store, &a.layers[0])).unwrap();
    let line = |text: &str, name: &str| {
        text.lines().find(|line| line.starts_with(name)).unwrap().to_owned()
    };
    let text = sandbox.ok(&["images"]);
    assert!(line(&text, "example.org/a:1").ends_with("incomplete: 1 blob missing"), "{text}");
    assert_eq!(sandbox.json(&["images"])[0]["missing"], 1);
    assert!(sandbox.ok(&["inspect", "example.org/a:1"]).contains("  missing\n"));

    let path = blob_path(&store, &b.target.digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, vec![b' '; b.target.size as usize]).unwrap();
    let done = sandbox.run(&["images"]);
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(line(&done.out, "example.org/b:1").ends_with("unreadable"), "{done:?}");
    assert!(line(&done.out, "example.org/c:1").ends_with("B"), "{done:?}");
    assert!(done.err.starts_with("error: example.org/b:1: "), "{done:?}");
    sandbox.fails(&["inspect", "example.org/b:1"], 7, "does not match its digest");
}

#[test]
fn inspect_shows_an_image_to_people() {
    let sandbox = Sandbox::new();
    let image = add_full(&sandbox, "docker.io/library/full:latest");
    let text = sandbox.ok(&["inspect", "full"]);
    let lines = [
        "name:          docker.io/library/full:latest\n".to_owned(),
        format!("digest:        {}\n", image.target.digest),
        "\nlinux/arm64/v8\n".to_owned(),
        format!("  config:        {}\n", image.config),
        "  created:       2024-05-01T12:00:00Z\n".to_owned(),
        "  user:          1000\n".to_owned(),
        "  entrypoint:    [\"/bin/a\",\"two words\"]\n".to_owned(),
        "  cmd:           [\"--x\"]\n".to_owned(),
        "  env:           PATH=/bin\n                 A=b\n".to_owned(),
        "  labels:        a=b\n                 k=v\n".to_owned(),
        format!("  layers:        {}  4.9 KiB\n", image.layers[0]),
    ];
    for line in lines {
        assert!(text.contains(&line), "{line:?} is not in\n{text}");
    }
    let index = add_index(&sandbox, "example.org/index:1");
    let text = sandbox.ok(&["inspect", "example.org/index:1"]);
    assert!(text.contains("\nlinux/amd64 (not pulled)\n"), "{text}");
    assert!(text.contains("\nlinux/arm64\n"), "{text}");
    assert!(!text.contains("incomplete"), "{text}");
    assert!(text.contains(&format!("digest:        {}", index.digest)), "{text}");
}

#[test]
fn inspect_shows_an_image_to_programs() {
    let sandbox = Sandbox::new();
    let image = add_full(&sandbox, "example.org/a:1");
    let value = sandbox.json(&["inspect", "example.org/a:1"]);
    assert_eq!(keys(&value), ["name", "descriptor", "size", "missing", "foreign", "manifests"]);
    assert_eq!(value["descriptor"]["digest"], image.target.digest.to_string());
    let manifest = &value["manifests"][0];
    assert_eq!(
        keys(manifest),
        [
            "digest",
            "mediaType",
            "platform",
            "attestation",
            "present",
            "artifactType",
            "config",
            "layers"
        ]
    );
    let expected = json!({
        "digest": image.config, "os": "linux", "architecture": "arm64", "variant": "v8",
        "created": "2024-05-01T12:00:00Z", "user": "1000", "workingDir": "/srv",
        "entrypoint": ["/bin/a", "two words"], "cmd": ["--x"], "env": ["PATH=/bin", "A=b"],
        "exposedPorts": ["80/tcp"], "volumes": ["/data"], "stopSignal": "SIGTERM",
        "labels": {"a": "b", "k": "v"},
    });
    assert_eq!(manifest["config"], expected);
    let layer = json!({
        "digest": image.layers[1], "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "size": 3, "present": true, "foreign": false, "urls": [],
    });
    assert_eq!(manifest["layers"][1], layer);
}

#[test]
fn a_config_that_makes_no_sense_leaves_the_rest_to_be_seen() {
    let sandbox = Sandbox::new();
    let store = sandbox.library();
    let lease = store.lease("test").unwrap();
    let (image, pinned) = put_image(&store, &lease, b"[]", &[b"layer"]);
    store.publish("example.org/a:1", &image.target, &pinned).unwrap();
    assert_eq!(pinned.len(), 3, "{CONFIG}");
    let done = sandbox.run(&["inspect", "example.org/a:1"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("is not a usable manifest"), "{done:?}");
    assert!(done.out.contains(&image.layers[0].to_string()), "{done:?}");
}

#[test]
fn a_name_is_found_in_its_short_forms_and_by_its_digest() {
    let sandbox = Sandbox::new();
    let image = sandbox.add_image("docker.io/library/a:latest", &[b"a"]);
    sandbox.add_image("v1", &[b"by another tool"]);
    let digest = image.target.digest.to_string();
    let (by_digest, by_both) = (format!("a@{digest}"), format!("a:latest@{digest}"));
    for name in ["a", "library/a", "docker.io/library/a:latest", &by_digest, &by_both] {
        assert_eq!(sandbox.json(&["inspect", name])["descriptor"]["digest"], digest, "{name}");
    }
    assert_eq!(sandbox.json(&["inspect", "v1"])["name"], "v1", "the very name comes first");
    for name in ["a:2", "b", &format!("b@{digest}"), &format!("a:2@{digest}")] {
        sandbox.fails(&["inspect", name], 4, "there is no image");
    }
}

#[test]
fn tag_gives_a_second_name() {
    let sandbox = Sandbox::new();
    let image = sandbox.add_image("docker.io/library/a:latest", &[b"a"]);
    let digest = image.target.digest;
    assert_eq!(sandbox.ok(&["tag", "a", "base:1"]), format!("docker.io/library/base:1@{digest}\n"));
    let value = sandbox.json(&["tag", "base:1", "ghcr.io/o/b"]);
    let expected = json!({
        "name": "ghcr.io/o/b:latest", "digest": digest, "source": "docker.io/library/base:1",
    });
    assert_eq!(value, expected);
    assert_eq!(sandbox.json(&["images"]).as_array().unwrap().len(), 3);
    sandbox.fails(&["tag", "nothing", "x"], 4, "there is no image \"nothing\"");
}

#[test]
fn rm_says_what_it_removed_and_what_was_not_there() {
    let sandbox = Sandbox::new();
    for name in ["docker.io/library/a:latest", "v1", "example.org/c:1", "example.org/d:1"] {
        sandbox.add_image(name, &[name.as_bytes()]);
    }
    let done = sandbox.run(&["rm", "a", "gone", "v1"]);
    assert_eq!(done.code, Some(3), "{done:?}");
    assert_eq!(done.out, "removed docker.io/library/a:latest\nremoved v1\n");
    assert_eq!(done.err, "error: there is no image \"gone\" in the store\n");
    sandbox.fails(&["rm", "a", "v1"], 4, "there is no image");
    let value = sandbox.json(&["rm", "example.org/c:1"]);
    let expected = json!([
        {"asked": "example.org/c:1", "name": "example.org/c:1", "removed": true, "pinned": false}
    ]);
    assert_eq!(value, expected);
    // One bad name, and nothing is removed.
    sandbox.fails(&["rm", "example.org/d:1", "BAD"], 2, "\"BAD\" is not an image name");
    assert_eq!(sandbox.json(&["images"]).as_array().unwrap().len(), 1);
}
