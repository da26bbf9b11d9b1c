//! `gc`, `df` and `check`.

use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use crate::sandbox::{Sandbox, keys};
use crate::store_support::{blob_path, noise};

#[test]
fn gc_removes_what_no_name_keeps() {
    let sandbox = Sandbox::new();
    sandbox.add_image("example.org/a:1", &[b"shared", b"a"]);
    sandbox.add_image("example.org/b:1", &[b"shared", &[9; 5000]]);
    sandbox.ok(&["rm", "example.org/b:1"]);
    let young = sandbox.json(&["gc"]);
    assert_eq!((&young["removed"], &young["keptYoung"]), (&json!(0), &json!(3)));
    let dry = sandbox.ok(&["gc", "--dry-run", "--grace", "0s"]);
    assert!(dry.starts_with("would remove:  3 blobs, 5."), "{dry}");
    assert_eq!(sandbox.json(&["blob", "ls"]).as_array().unwrap().len(), 7);

    let report = sandbox.json(&["gc", "--grace", "0s"]);
    let wanted = [
        "live",
        "liveBytes",
        "removed",
        "removedBytes",
        "keptYoung",
        "keptLeased",
        "partsRemoved",
        "seconds",
    ];
    for key in wanted {
        assert!(keys(&report).contains(&key), "{key} is not in {report}");
    }
    assert_eq!((&report["live"], &report["removed"]), (&json!(4), &json!(3)));
    assert_eq!(sandbox.json(&["blob", "ls"]).as_array().unwrap().len(), 4);
    let text = sandbox.ok(&["gc", "--grace", "0s"]);
    assert!(text.starts_with("removed:       0 blobs, 0 B\nkept:          4 blobs, "), "{text}");
}

#[test]
fn a_lease_keeps_a_blob_from_gc() {
    let sandbox = Sandbox::new();
    let kept = sandbox.run_with_input(&["blob", "put", "-"], b"kept").out;
    sandbox.run_with_input(&["blob", "put", "-"], b"lost");
    sandbox.ok(&["lease", "add", kept.trim()]);
    let text = sandbox.ok(&["gc", "--grace", "0s"]);
    let lines = "kept:          0 blobs, 0 B\n               1 blob by a lease\n";
    assert!(text.ends_with(lines), "{text}");
    assert_eq!(sandbox.json(&["blob", "ls"])[0]["digest"], kept.trim());
}

#[test]
fn gc_does_not_wait_for_another() {
    let sandbox = Sandbox::new();
    let path = sandbox.root().join(".layerstore/locks/gc");
    let lock = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    fs2::FileExt::lock_exclusive(&lock).unwrap();
    sandbox.fails(&["gc"], 11, "held by");
}

#[test]
fn gc_removes_nothing_when_a_root_cannot_be_read() {
    let sandbox = Sandbox::new();
    let image = sandbox.add_image("example.org/a:1", &[b"a"]);
    std::fs::remove_file(blob_path(&sandbox.library(), &image.target.digest)).unwrap();
    sandbox.fails(&["gc", "--grace", "0s"], 3, "nothing was collected");
    assert_eq!(sandbox.json(&["blob", "ls"]).as_array().unwrap().len(), 2);
}

#[test]
fn df_adds_up() {
    let sandbox = Sandbox::new();
    let a = sandbox.add_image("example.org/a:1", &[&[1; 9000], b"a"]);
    sandbox.add_image("example.org/b:1", &[&[1; 9000], b"b"]);
    let usage = sandbox.json(&["df"]);
    let keys_of_usage = ["kinds", "total", "kept", "reclaimable", "problems", "images"];
    assert_eq!(keys(&usage), keys_of_usage);
    let kinds = [
        "indexes",
        "manifests",
        "configs",
        "layers",
        "blobs",
        "parts",
        "groupHashes",
        "trash",
        "quarantine",
        "reserve",
        "other",
    ];
    assert_eq!(keys(&usage["kinds"]), kinds);
    assert_eq!(usage["kinds"]["layers"]["count"], 3);
    assert_eq!(usage["kinds"]["layers"]["size"], 9002);
    let disk = |amount: &serde_json::Value| amount["disk"].as_u64().unwrap();
    let sum = kinds.iter().map(|kind| disk(&usage["kinds"][kind])).sum::<u64>();
    assert_eq!(sum, disk(&usage["total"]));
    assert_eq!(keys(&usage["kept"]), ["refs", "leases", "young"]);
    let image = &usage["images"][0];
    assert_eq!(keys(image), ["digest", "refs", "total", "shared", "unique", "frees"]);
    assert_eq!(image["digest"], a.target.digest.to_string());
    assert_eq!(image["shared"]["size"], 9000);

    let text = sandbox.ok(&["df"]);
    assert!(text.starts_with("KIND "), "{text}");
    for start in ["layers  ", "manifests  ", "parts  ", "group hashes  ", "total  "] {
        assert!(text.lines().any(|line| line.starts_with(start)), "{start:?}: {text}");
    }
    let titles = text.lines().find(|line| line.starts_with("DIGEST")).unwrap();
    assert_eq!(
        titles.split_whitespace().collect::<Vec<_>>(),
        ["DIGEST", "ON", "DISK", "SHARED", "UNSHARED", "FREES", "NAMES"]
    );
    assert!(text.contains("example.org/b:1"), "{text}");

    let usage = sandbox.json(&["df", "-v"]);
    let blobs = usage["blobs"].as_array().unwrap();
    assert_eq!(blobs.len(), 7);
    let wanted = [
        "digest",
        "kind",
        "mediaType",
        "size",
        "disk",
        "groupHashes",
        "images",
        "refs",
        "leased",
        "modified",
    ];
    assert_eq!(keys(&blobs[0]), wanted);
    assert_eq!((&blobs[0]["kind"], &blobs[0]["images"]), (&json!("layer"), &json!(2)));
    let text = sandbox.ok(&["df", "-v"]);
    assert!(text.contains(&format!("{}  layer ", blobs[0]["digest"].as_str().unwrap())), "{text}");
}

#[test]
fn check_finds_damage_and_says_whom_it_concerns() {
    let sandbox = Sandbox::new();
    let a = sandbox.add_image("example.org/a:1", &[b"first", b"second"]);
    sandbox.add_image("example.org/b:1", &[b"first"]);
    let text = sandbox.ok(&["check", "--quick"]);
    assert!(text.starts_with("no damage: looked at 2 image names and 6 blobs"), "{text}");
    assert!(!text.contains("read to the end"), "{text}");
    for depth in [&["check"][..], &["check", "--read-data", "--limit-rate", "1G"]] {
        let text = sandbox.ok(depth);
        assert!(text.contains(", 6 blobs read to the end"), "{text}");
    }
    let report = sandbox.json(&["check"]);
    for key in ["refs", "blobs", "blobBytes", "readBlobs", "readBytes", "damage", "notes"] {
        assert!(keys(&report).contains(&key), "{key} is not in {report}");
    }

    let store = sandbox.library();
    let corrupt = blob_path(&store, &a.layers[0]);
    std::fs::remove_file(&corrupt).unwrap();
    std::fs::write(&corrupt, b"fIrst").unwrap();
    assert!(sandbox.ok(&["check", "--quick"]).contains("no damage"), "the size is right");
    assert!(sandbox.run(&["check"]).out.contains("1 thing damaged: "));
    std::fs::remove_file(blob_path(&store, &a.layers[1])).unwrap();
    let done = sandbox.run(&["check", "--read-data"]);
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.out.contains("2 things damaged: "), "{done:?}");
    let line = format!("damage: blobs/sha256/{}: ", a.layers[0].hex());
    let found = done.out.lines().position(|found| found.starts_with(&line)).unwrap();
    assert!(done.out.lines().nth(found + 1).unwrap().starts_with("  needed by example.org/"));
    let done = sandbox.run(&["check", "--quick", "--json"]);
    assert_eq!(done.code, Some(3));
    let report: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    // What was found before is known now.
    assert_eq!(report["damage"][0]["kind"], "wrongDigest");
    assert_eq!(report["damage"][1]["kind"], "missingBlob");
    assert_eq!(report["damage"][1]["refs"], json!(["example.org/a:1"]));
}

#[test]
fn check_tells_programs_how_far_it_is() {
    let sandbox = Sandbox::new();
    sandbox.add_image("example.org/a:1", &[&[3; 100_000]]);
    let done = sandbox.run(&["check", "--progress", "json"]);
    let first = done.err.lines().next().expect("one line at least");
    let value: serde_json::Value = serde_json::from_str(first).unwrap();
    assert_eq!(keys(&value), ["event", "blobs", "totalBlobs", "bytes", "totalBytes"]);
    assert_eq!(sandbox.run(&["check", "--read-data", "--progress", "none"]).err, "");
}

/// Three large blobs, which were read one, two and three hours ago, and two small ones, which are read
/// each time.
#[test]
fn check_reads_no_more_than_since_and_subset_say() {
    let sandbox = Sandbox::new();
    let layers: Vec<Vec<u8>> = (1..=3).map(|seed| noise(100_000, seed)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let image = sandbox.add_image("example.org/a:1", &layers);
    let read = |options: &[&str]| {
        for (hours, layer) in (1..).zip(&image.layers) {
            let hashes = sandbox.root().join(".layerstore/outboard/sha256").join(layer.hex());
            let then = SystemTime::now() - Duration::from_secs(3600 * hours);
            std::fs::File::open(hashes).unwrap().set_modified(then).unwrap();
        }
        let report = sandbox.json(&[&["check"], options].concat());
        report["readBlobs"].as_u64().unwrap()
    };
    for (options, wanted) in [
        (&[][..], 5),
        (&["--quick"], 0),
        (&["--since", "30m"], 5),
        (&["--since", "90m"], 4),
        (&["--since", "2h30m"], 3),
        (&["--since", "4h"], 2),
        (&["--subset", "5%"], 3),
        (&["--subset", "0.25%"], 3),
        (&["--subset", "50%"], 4),
        (&["--subset", "100%"], 5),
        (&["--since", "90m", "--subset", "50%"], 3),
        (&["--since", "90m", "--read-data"], 4),
    ] {
        assert_eq!(read(options), wanted, "{options:?}");
    }
}

/// Slow enough, by its own limit, for a bar to be drawn.
#[test]
fn check_shows_a_bar_on_a_terminal_and_keeps_to_its_rate() {
    let sandbox = Sandbox::new();
    sandbox.add_image("example.org/a:1", &[&noise(3 << 20, 1)]);
    let begun = Instant::now();
    let screen = sandbox.on_terminal(&["check", "--limit-rate", "2M"], &[]);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1), "3 MiB at 2 MiB a second in {took:?}");
    assert!(screen.contains("reading  ") && screen.contains("=>"), "{screen:?}");
    assert!(screen.contains("/   3.00 MiB"), "how much there is to read: {screen:?}");
    assert!(screen.ends_with(" 3 blobs read to the end (3.0 MiB)\r\n"), "{screen:?}");
    let quiet = sandbox.on_terminal(&["check", "--limit-rate", "2M", "-q"], &[]);
    assert!(!quiet.contains("reading") && quiet.starts_with("no damage"), "{quiet:?}");
}

/// Without a terminal there is a line every ten seconds, and none of what takes less.
#[test]
fn a_long_check_says_how_far_it_is() {
    let sandbox = Sandbox::new();
    sandbox.add_image("example.org/a:1", &[&noise(3 << 20, 1)]);
    let done = sandbox.run(&["check", "--limit-rate", "256k"]);
    // One, if the machine has time; it takes twelve seconds.
    let is_one = |line: &str| line.starts_with("read ") && line.ends_with(" MiB of 3.0 MiB");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!done.err.is_empty() && done.err.lines().all(is_one), "{done:?}");
    assert_eq!(sandbox.run(&["check"]).err, "");
}

#[test]
fn damage_of_no_blob_has_a_digest_that_is_null() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.root().join("blobs/stray"), "").unwrap();
    let done = sandbox.run(&["check", "--json"]);
    assert_eq!(done.code, Some(3));
    let report: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    let damage = &report["damage"][0];
    assert_eq!(keys(damage), ["kind", "path", "digest", "refs", "message"]);
    assert_eq!((&damage["kind"], &damage["digest"]), (&json!("stray"), &json!(null)));
}

#[test]
fn gc_drops_images_over_the_cap_and_says_what_is_kept() {
    let sandbox = Sandbox::new();
    let layers = [vec![1; 1 << 20], vec![2; 1 << 20], vec![3; 1 << 20]];
    for (n, layer) in layers.iter().enumerate() {
        let image = sandbox.add_image(&format!("example.org/{n}:1"), &[layer]);
        let name = format!("sha256-{}", image.target.digest.hex());
        let then = SystemTime::now() - Duration::from_secs(3600 * (3 - n as u64));
        let used = sandbox.root().join(".layerstore/used").join(name);
        for path in [used, blob_path(&sandbox.library(), &image.target.digest)] {
            std::fs::File::open(path).unwrap().set_modified(then).unwrap();
        }
    }
    let used = sandbox.json(&["df"])["total"]["disk"].as_u64().unwrap();
    let cap = (used - (1 << 19)).to_string();
    let text = sandbox.ok(&["gc", "--dry-run", "--max-used-space", &cap]);
    assert!(text.contains("would drop:    example.org/0:1, used 3 h ago, 1.0 MiB\n"), "{text}");
    let why = sandbox.ok(&["gc", "--max-used-space", &cap, "--why", "example.org/0:1"]);
    assert!(why.contains("its names would be dropped to make room"), "{why}");
    let keep = ["gc", "--max-used-space", &cap, "--keep-duration", "4h"];
    let done = sandbox.run(&keep);
    assert_eq!(done.code, Some(9), "{done:?}");
    assert!(done.err.contains("use within the keep-duration keeps "), "{done:?}");
    sandbox.ok(&["pin", "example.org/0:1"]);
    sandbox.ok(&["config", "max-used-space", &cap]);
    let report = sandbox.json(&["gc"]);
    let room = &report["room"];
    assert_eq!(keys(room), ["used", "free", "over", "dropped", "kept"]);
    assert_eq!((&room["over"], &room["kept"]), (&json!(0), &json!(null)));
    assert_eq!(room["dropped"][0]["names"], json!(["example.org/1:1"]));
    assert_eq!(room["used"], sandbox.json(&["df"])["total"]["disk"]);
    let done = sandbox.run(&["--json", "gc", "--max-used-space", "1M"]);
    assert_eq!(done.code, Some(9), "{done:?}");
    assert!(done.err.contains("pins keep ") && done.err.contains("example.org/0:1"), "{done:?}");
    assert!(done.err.contains(" bytes are its own, with the reserve"), "{done:?}");
    let report: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(report["room"]["kept"]["pinnedNames"], json!(["example.org/0:1"]));
    assert_eq!(sandbox.json(&["images"]).as_array().unwrap().len(), 1);
}

#[test]
fn gc_says_why_a_blob_is_there() {
    let sandbox = Sandbox::new();
    let a = sandbox.add_image("example.org/a:1", &[b"shared", b"a"]);
    sandbox.add_image("example.org/b:1", &[b"shared"]);
    sandbox.ok(&["pin", "example.org/a:1"]);
    let lease = sandbox.ok(&["lease", "add", &a.target.digest.to_string()]);
    let shared = a.layers[0].to_string();
    let why = sandbox.json(&["gc", "--why", &shared]);
    assert_eq!(keys(&why), ["digest", "reasons", "wouldGo", "wouldBeDropped", "young"]);
    let reasons = why["reasons"].as_array().unwrap();
    assert_eq!(
        reasons[0],
        json!({"by": "ref", "name": "example.org/a:1", "pinned": true,
            "path": [a.target.digest.to_string(), shared]})
    );
    assert_eq!((reasons.len(), &reasons[1]["name"]), (3, &json!("example.org/b:1")));
    assert_eq!((&reasons[2]["by"], &reasons[2]["id"]), (&json!("lease"), &json!(lease.trim())));
    let text = sandbox.ok(&["gc", "--why", "example.org/a:1"]);
    assert!(
        text.contains("verdict:       stays\nkept by:       the ref example.org/a:1, pinned\n")
    );

    let garbage = sandbox.run_with_input(&["blob", "put", "-"], b"nobody's").out;
    let why = sandbox.json(&["gc", "--why", garbage.trim()]);
    assert_eq!((&why["young"], &why["wouldGo"]), (&json!(true), &json!(false)));
    let text = sandbox.ok(&["gc", "--grace", "0s", "--why", garbage.trim()]);
    assert!(text.contains("would go: nothing leads to it"), "{text}");
    // What refers to an image is kept by it, with all that it is made of.
    let store = sandbox.library();
    let lease = store.lease("test").unwrap();
    let layer = *crate::store_support::put(&store, &lease, b"sbom").digest();
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":
        {{"mediaType":"a/b","digest":"{0}","size":4}},"layers":[],"subject":
        {{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{1}","size":{2}}}}}"#,
        layer, a.target.digest, a.target.size
    );
    crate::store_support::put(&store, &lease, text.as_bytes());
    drop(lease);
    let why = sandbox.json(&["gc", "--grace", "0s", "--why", &layer.to_string()]);
    assert_eq!(why["reasons"], json!([{"by": "subject", "digest": a.target.digest.to_string()}]));
    assert_eq!(why["wouldGo"], false);
    assert_eq!(sandbox.json(&["blob", "ls"]).as_array().unwrap().len(), 9, "nothing went");
    sandbox.fails(&["gc", "--why", "example.org/none:1"], 4, "no image");
    let absent = format!("sha256:{}", "0".repeat(64));
    sandbox.fails(&["gc", "--why", &absent], 4, "no blob");
}

#[test]
fn the_page_of_df_is_a_file_of_its_own() {
    let sandbox = Sandbox::new();
    sandbox.add_image("example.org/a:1", &[b"a"]);
    let hostile = "</script><b title=\"'\u{202e}&";
    let index = sandbox.root().join("index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let name = serde_json::to_string(hostile).unwrap();
    std::fs::write(&index, text.replace("\"example.org/a:1\"", &name)).unwrap();

    let page = sandbox.ok(&["df", "--html", "-"]);
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert!(!page.contains("</script><b") && !page.contains('\u{202e}'));
    assert!(page.contains("<bdi>&lt;/script&gt;&lt;b title=&quot;&#39;\\u{202e}&amp;</bdi>"));
    assert!(!page.contains("{{"), "everything is filled in");

    // A file is replaced as a whole, with the mode that the umask leaves.
    let file = sandbox.dir.path().join("page.html");
    std::fs::write(&file, "old").unwrap();
    let old = std::fs::File::open(&file).unwrap();
    assert_eq!(sandbox.ok(&["df", "--html", file.to_str().unwrap()]), "");
    assert_eq!(std::io::read_to_string(old).unwrap(), "old");
    assert!(std::fs::read_to_string(&file).unwrap().ends_with("</html>\n"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o444, 0o444, "{mode:o}");
    assert_eq!(std::fs::read_dir(sandbox.dir.path()).unwrap().count(), 2, "and nothing beside it");

    // Not into the store, where it could be index.json; nor where it cannot be.
    sandbox.fails(&["df", "--html", index.to_str().unwrap()], 2, "lies in the store");
    sandbox.fails(&["df", "--html", "/nonexistent/page.html"], 1, "/nonexistent/page.html");
    sandbox.fails(&["df", "--html", sandbox.dir.path().to_str().unwrap()], 1, "cannot write");
    assert_eq!(sandbox.ok(&["df", "--html", "/dev/null"]), "");
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}
