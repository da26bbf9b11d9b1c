use std::process::{Command, Stdio};

use layerstore::oci::Algorithm;
use serde_json::json;

use crate::sandbox::{Sandbox, keys};
use crate::store_support::{blob_path, noise, replace_with_its_hashes, set_mode};

#[test]
fn put_makes_the_store_and_prints_the_digest() {
    let sandbox = Sandbox::empty();
    let file = sandbox.dir.path().join("file");
    std::fs::write(&file, b"some bytes").unwrap();
    let file = file.to_str().unwrap();
    sandbox.fails(&["blob", "put", "/nonexistent/file"], 1, "cannot read /nonexistent/file");
    assert!(!sandbox.root().exists(), "a wrong path makes no store");
    for algorithm in Algorithm::ALL {
        let digest = algorithm.digest(b"some bytes").to_string();
        let printed = sandbox.ok(&["blob", "put", file, "--algorithm", algorithm.name()]);
        assert_eq!(printed, format!("{digest}\n"));
        assert_eq!(sandbox.ok(&["blob", "cat", &digest]), "some bytes");
    }
    let default = Algorithm::Sha256.digest(b"some bytes");
    let value = sandbox.json(&["blob", "put", file]);
    assert_eq!(value, json!({ "digest": default, "size": 10 }));
    let piped = sandbox.run_with_input(&["blob", "put", "-"], b"piped");
    assert_eq!(piped.out, format!("{}\n", Algorithm::Sha256.digest(b"piped")));
    sandbox.fails(&["blob", "put", "/"], 1, "cannot read /");
}

#[test]
fn ls_and_stat() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.json(&["blob", "ls"]), json!([]));
    let image = sandbox.add_image("example.org/a:1", &[&[7; 3000]]);
    sandbox.ok(&["tag", "example.org/a:1", "example.org/b:1"]);
    let list = sandbox.json(&["blob", "ls"]);
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 3);
    assert_eq!(keys(&list[0]), ["digest", "size", "disk", "modified"]);
    let layer = image.layers[0].to_string();
    let row = list.iter().find(|row| row["digest"] == layer).unwrap();
    assert_eq!(row["size"], 3000);
    let text = sandbox.ok(&["blob", "ls"]);
    assert_eq!(text.lines().count(), 4);
    assert!(text.starts_with("DIGEST "), "{text}");
    let line = text.lines().find(|line| line.starts_with(&layer)).unwrap();
    assert!(line.contains("2.9 KiB"), "{line}");

    let value = sandbox.json(&["blob", "stat", &layer]);
    let expected = json!({
        "digest": layer, "size": 3000, "role": "layer",
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "usedBy": ["example.org/a:1", "example.org/b:1"],
    });
    assert_eq!(value, expected);
    let text = sandbox.ok(&["blob", "stat", &image.target.digest.to_string()]);
    assert!(text.contains("role:          manifest\n"), "{text}");
    assert!(text.contains("used by:       example.org/a:1\n               example.org/b:1\n"));
    let loose = sandbox.run_with_input(&["blob", "put", "-"], b"loose").out;
    let text = sandbox.ok(&["blob", "stat", loose.trim()]);
    assert!(text.contains("size:          5 B (5 bytes)\nrole:          of no image\n"), "{text}");
    let absent = Algorithm::Sha256.digest(b"absent").to_string();
    sandbox.fails(&["blob", "stat", &absent], 4, "there is no blob sha256:");
    sandbox.fails(&["blob", "cat", &absent], 4, "there is no blob sha256:");
}

#[test]
fn ranges_are_those_of_http() {
    let sandbox = Sandbox::new();
    let digest = sandbox.run_with_input(&["blob", "put", "-"], b"0123456789").out;
    let digest = digest.trim();
    let range = |range| sandbox.ok(&["blob", "cat", digest, "--range", range]);
    assert_eq!(range("0-0"), "0");
    assert_eq!(range("2-5"), "2345");
    assert_eq!(range("8-100"), "89");
    assert_eq!(range("7-"), "789");
    assert_eq!(range("-3"), "789");
    sandbox.fails(&["blob", "cat", digest, "--range", "10-"], 2, "10 bytes long");
    sandbox.fails(&["blob", "cat", digest, "--range", "-0"], 2, "10 bytes long");
}

#[test]
fn a_large_blob_comes_out_as_it_went_in() {
    let sandbox = Sandbox::new();
    let bytes = noise(3 * 1024 * 1024 + 5, 7);
    let digest = sandbox.run_with_input(&["blob", "put", "-"], &bytes).out;
    let output = sandbox.command(&["blob", "cat", digest.trim()]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == bytes);
    let output = sandbox
        .command(&["blob", "cat", digest.trim(), "--range", "1000000-2500000"])
        .output()
        .unwrap();
    assert!(output.stdout == bytes[1_000_000..=2_500_000]);
}

#[test]
fn a_damaged_blob_is_told_and_not_shown() {
    let sandbox = Sandbox::new();
    let digest = sandbox.run_with_input(&["blob", "put", "-"], b"good").out;
    let digest = digest.trim();
    let path = blob_path(&sandbox.library(), &digest.parse().unwrap());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"evil").unwrap();
    let done = sandbox.run(&["blob", "cat", digest]);
    assert_eq!((done.code, done.out.as_str()), (Some(7), ""), "{done:?}");
    assert!(done.err.contains("does not match its digest"), "{done:?}");
}

/// Of a read in which a page is wrong nothing is written, and reads are of 1 MiB.
#[test]
fn the_output_ends_before_the_page_that_is_wrong() {
    const READ: usize = 1 << 20;
    let sandbox = Sandbox::new();
    let bytes = noise(3 * READ, 9);
    let digest = sandbox.run_with_input(&["blob", "put", "-"], &bytes).out;
    let path = blob_path(&sandbox.library(), &digest.trim().parse().unwrap());
    set_mode(&path, 0o644);
    for at in [0, READ + 5000, 3 * READ - 1] {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).unwrap();
        for range in [&[][..], &["--range", "0-"]] {
            let args = [&["blob", "cat", digest.trim()], range].concat();
            let output = sandbox.command(&args).output().unwrap();
            assert_eq!(output.status.code(), Some(7), "byte {at}");
            let out = output.stdout;
            assert!(bytes.starts_with(&out), "byte {at}: nothing wrong is written");
            assert!(out.len() <= at && at < out.len() + READ, "byte {at}: {}", out.len());
        }
    }
}

#[test]
fn what_was_changed_together_with_its_hashes_ends_with_the_code_of_damage() {
    let sandbox = Sandbox::new();
    let mut bytes = noise(3 << 20, 10);
    let digest = sandbox.run_with_input(&["blob", "put", "-"], &bytes).out;
    bytes[2_000_000] ^= 1;
    replace_with_its_hashes(&sandbox.library(), &digest.trim().parse().unwrap(), &bytes);
    let output = sandbox.command(&["blob", "cat", digest.trim()]).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(output.stdout == bytes, "no page could tell");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("does not match its digest"), "{said}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sandbox = Sandbox::new();
    let bytes = noise(4 * 1024 * 1024, 8);
    let digest = sandbox.run_with_input(&["blob", "put", "-"], &bytes).out;
    let store = sandbox.library();
    for n in 0..3000u16 {
        let path = blob_path(&store, &Algorithm::Sha256.digest(&n.to_le_bytes()));
        std::fs::write(path, b"x").unwrap();
    }
    let commands: [&[&str]; 4] = [
        &["blob", "cat", digest.trim()],
        &["blob", "ls"],
        &["blob", "ls", "--json"],
        &["pull", "--help"],
    ];
    for args in commands {
        let mut child =
            sandbox.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
    // As a shell does it.
    let store = env!("CARGO_BIN_EXE_store");
    let pipe = format!("set -o pipefail; '{store}' blob ls | head -1");
    let output = Command::new("bash")
        .args(["-c", &pipe])
        .env("STORE_ROOT", sandbox.root())
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn what_is_done_is_done_although_nobody_reads_of_it() {
    let sandbox = Sandbox::new();
    sandbox.add_image("example.org/a:1", &[b"a"]);
    let mut child = sandbox
        .command(&["rm", "example.org/a:1", "gone"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(3), "the code is still that of the work");
    assert_eq!(sandbox.json(&["images"]), json!([]));
}

#[test]
fn a_full_device_is_an_error() {
    let sandbox = Sandbox::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = sandbox.command(&["blob", "ls"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot write the result"));
}

#[test]
fn several_files_are_put_at_once() {
    let sandbox = Sandbox::empty();
    let file = |name: &str, text: &str| {
        let path = sandbox.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (one, two) = (file("one", "1"), file("two", "22"));
    let digests = ["1", "22"].map(|text| Algorithm::Sha256.digest(text.as_bytes()).to_string());
    sandbox.fails(&["blob", "put", &one, "/nonexistent/file"], 1, "cannot read /nonexistent/file");
    assert!(!sandbox.root().exists(), "a wrong path makes no store, and stores none of the others");
    assert_eq!(sandbox.ok(&["blob", "put", &one, &two]), digests.join("\n") + "\n");
    let value = sandbox.json(&["blob", "put", &two, &one]);
    let put = |n: usize| json!({ "digest": digests[n], "size": n + 1 });
    assert_eq!(value, json!([put(1), put(0)]));
}

#[test]
fn put_of_files_keeps_within_the_cap() {
    let sandbox = Sandbox::new();
    let image = sandbox.add_image("example.org/a:1", &[&noise(2 << 20, 1)]);
    let paths = ["one", "two"].map(|name| sandbox.dir.path().join(name));
    for (n, path) in paths.iter().enumerate() {
        std::fs::write(path, noise(1 << 20, n as u64 + 2)).unwrap();
    }
    let [one, two] = paths.each_ref().map(|path| path.to_str().unwrap());
    let used = sandbox.json(&["df"])["total"]["disk"].as_u64().unwrap();
    let cap = (used + (1 << 20) + (1 << 19)).to_string();
    sandbox.ok(&["config", "max-used-space", &cap]);
    sandbox.ok(&["pin", "example.org/a:1"]);
    // Two are too many, and neither is there then.
    sandbox.fails(&["blob", "put", one, two], 9, &format!("may take {cap} "));
    sandbox.fails(&["blob", "put", one, two], 9, "example.org/a:1");
    assert_eq!(sandbox.json(&["blob", "ls"]).as_array().unwrap().len(), 3);
    sandbox.ok(&["blob", "put", one]);
    // What was let in counts at once.
    sandbox.fails(&["blob", "put", two], 9, "may take");
    sandbox.ok(&["unpin", "example.org/a:1"]);
    let done = sandbox.run(&["blob", "put", two]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.err.contains(&image.target.digest.to_string()) && done.err.contains("to make room"),
        "{done:?}"
    );
    assert_eq!(sandbox.json(&["images"]), json!([]));
    assert!(sandbox.json(&["df"])["total"]["disk"].as_u64().unwrap() <= cap.parse().unwrap());
    // Of a stream nobody knows how long it is.
    let piped = sandbox.run_with_input(&["blob", "put", "-"], &noise(3 << 20, 9));
    assert_eq!(piped.code, Some(0), "{piped:?}");
}
