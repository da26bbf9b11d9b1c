//! What is live, and nothing else, stays.

use layerstore::oci::{Algorithm, MediaType};
use layerstore::{BlobStore, Descriptor};

use crate::images::{
    Image, assert_holds, collect, garbage, image, image_about, index, is_there, path_of, put,
    put_as, replace, store,
};

#[test]
fn images_that_share_layers() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let base: &[u8] = b"base layer";
    let first = image(&store, &lease, "first", &[base, b"only in the first"]);
    let second = image(&store, &lease, "second", &[base, b"only in the second"]);
    first.publish(&store, &lease, "example.org/first:1");
    second.publish(&store, &lease, "example.org/second:1");
    drop(lease);

    let report = collect(&store);
    assert_holds(&store, &[first.digests(), second.digests()]);
    assert_eq!((report.live, report.removed), (7, 0), "{report:?}");

    store.remove_refs(&["example.org/first:1".to_owned()]).unwrap();
    let report = collect(&store);
    assert_holds(&store, &[second.digests()]);
    assert_eq!((report.live, report.removed, report.kept_leased, report.kept_young), (4, 3, 0, 0));
    let bytes = |image: &Image| image.blobs.iter().map(|(_, size)| size).sum::<u64>();
    assert_eq!(report.live_bytes, bytes(&second));
    assert_eq!(report.removed_bytes, bytes(&first) - base.len() as u64);

    store.remove_refs(&["example.org/second:1".to_owned()]).unwrap();
    collect(&store);
    assert_holds(&store, &[]);
}

#[test]
fn two_names_of_one_image() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let it = image(&store, &lease, "it", &[b"layer"]);
    it.publish(&store, &lease, "example.org/it:1");
    store.tag(&lease, "example.org/it:1", "example.org/it:2").unwrap();
    drop(lease);
    store.remove_refs(&["example.org/it:1".to_owned()]).unwrap();
    collect(&store);
    assert_holds(&store, &[it.digests()]);
}

#[test]
fn an_index_with_absent_platforms() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let here = image(&store, &lease, "here", &[b"layer"]);
    let absent = Descriptor::new(
        MediaType::new(MediaType::OCI_MANIFEST),
        Algorithm::Sha256.digest(b"not pulled"),
        10,
    );
    let multi = index(&store, &lease, &[&here], &[absent]);
    multi.publish(&store, &lease, "example.org/multi:1");
    let dead = image(&store, &lease, "dead", &[b"layer", b"dead layer"]);
    drop(lease);
    let report = collect(&store);
    assert_holds(&store, &[multi.digests()]);
    assert_eq!((report.live, report.removed), (4, 3), "{report:?}");
    assert!(!is_there(&store, &dead.target.digest));
}

#[test]
fn indexes_nested_beyond_any_limit_are_followed() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let mut nested = image(&store, &lease, "innermost", &[b"layer"]);
    for _ in 0..60 {
        nested = index(&store, &lease, &[&nested], &[]);
    }
    nested.publish(&store, &lease, "example.org/nested:1");
    drop(lease);
    assert_eq!(collect(&store).live, 63);
    assert_holds(&store, &[nested.digests()]);
}

#[test]
fn every_algorithm() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let live = image(&store, &lease, "live", &[b"layer"]);
    live.publish(&store, &lease, "example.org/live:1");
    let kept = *put_as(&store, &lease, Algorithm::Blake3, b"kept").digest();
    store.lasting_lease("test", &[kept], None).unwrap();
    for algorithm in Algorithm::ALL {
        put_as(&store, &lease, algorithm, b"garbage");
    }
    drop(lease);
    let report = collect(&store);
    assert_eq!((report.live, report.removed, report.kept_leased), (3, 3, 1), "{report:?}");
    assert_holds(&store, &[live.digests(), [kept].into()]);
}

/// A chain of documents of which each is about the one before, the first about `subject`.
fn chain(store: &BlobStore, subject: &Descriptor, text: &str) -> Vec<Image> {
    let lease = store.lease("test").unwrap();
    let mut chain: Vec<Image> = Vec::new();
    for n in 0..20 {
        let subject = chain.last().map_or(subject, |image| &image.target).clone();
        let layer = format!("{text} {n}");
        chain.push(image_about(store, &lease, text, &[layer.as_bytes()], Some(&subject)));
    }
    chain
}

#[test]
fn what_is_about_a_live_image_stays_with_its_own_layers() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let live = image(&store, &lease, "live", &[b"live layer"]);
    live.publish(&store, &lease, "example.org/live:1");
    let dead = image(&store, &lease, "dead", &[b"dead layer"]);
    // Nowhere to be found, and no more live for being somebody's subject.
    let nowhere = Descriptor::new(
        MediaType::new(MediaType::OCI_MANIFEST),
        Algorithm::Sha256.digest(b"nowhere"),
        7,
    );
    let kept = chain(&store, &live.target, "kept");
    let mut gone = chain(&store, &dead.target, "gone");
    gone.extend(chain(&store, &nowhere, "lost"));
    drop(lease);

    let report = collect(&store);
    let mut expected: Vec<_> = kept.iter().map(Image::digests).collect();
    expected.push(live.digests());
    assert_holds(&store, &expected);
    assert_eq!(report.live, 3 + 20 * 2 + 1, "{report:?}");
    assert!(gone.iter().all(|image| !is_there(&store, &image.target.digest)));

    store.remove_refs(&["example.org/live:1".to_owned()]).unwrap();
    collect(&store);
    assert_holds(&store, &[]);
}

#[test]
fn what_is_about_a_pinned_image_stays_while_it_is_pinned() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let subject = image(&store, &lease, "subject", &[b"layer"]);
    let about = chain(&store, &subject.target, "about");
    let id = store.lasting_lease("test", &[subject.target.digest], None).unwrap();
    drop(lease);
    let mut expected: Vec<_> = about.iter().map(Image::digests).collect();
    expected.push(subject.digests());
    let report = collect(&store);
    assert_holds(&store, &expected);
    assert_eq!((report.live, report.kept_leased), (0, 3 + 20 * 2 + 1), "{report:?}");
    store.remove_lease(&id).unwrap();
    collect(&store);
    assert_holds(&store, &[]);
}

/// What does not speak of a subject is not parsed, so it must be noticed however it is written.
#[test]
fn a_subject_is_found_however_it_is_written() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let live = image(&store, &lease, "live", &[b"live layer"]);
    live.publish(&store, &lease, "example.org/live:1");
    let Descriptor { media_type, digest, size, .. } = &live.target;
    let subject = format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#);
    let long = format!(r#""annotations":{{"long":"{}"}},"#, "x".repeat(10_000));
    let about = |space: &str, before: &[u8], key: &str| {
        let text = format!(
            r#"{space}{{"schemaVersion":2,"mediaType":"{}","manifests":[],"#,
            MediaType::OCI_INDEX
        );
        let end = format!(r#""{key}":{subject}}}"#);
        *put(&store, &lease, &[text.as_bytes(), before, end.as_bytes()].concat()).digest()
    };
    let kept = [
        about("", b"", "subject"),
        about("\r\n\t ", b"", "subject"),
        about("", b"", r"sub\u006aect"),
        about("", long.as_bytes(), "subject"),
        about("", long.as_bytes(), r"\u0073ubject"),
        about("", b"\"own\":\"\xff\",", "subject"),
    ];
    about("", b"", "object");
    about("", long.as_bytes(), "subjects");
    drop(lease);
    let report = collect(&store);
    assert_holds(&store, &[live.digests(), kept.into()]);
    assert_eq!(report.removed, 2, "{report:?}");
}

#[test]
fn a_damaged_document_about_a_live_image_is_garbage() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let live = image(&store, &lease, "live", &[b"live layer"]);
    live.publish(&store, &lease, "example.org/live:1");
    let about = image_about(&store, &lease, "about", &[b"its layer"], Some(&live.target));
    drop(lease);
    let path = path_of(&store, &about.target.digest);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.push(b'\n');
    replace(&path, &bytes);
    collect(&store);
    assert_holds(&store, &[live.digests()]);
}

#[test]
fn entries_of_other_tools_keep_what_they_lead_to() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let named_otherwise = image(&store, &lease, "a", &[b"layer a"]);
    let unnamed = image(&store, &lease, "b", &[b"layer b"]);
    let blob = put(&store, &lease, b"neither index nor manifest");
    drop(lease);
    garbage(&store, b"garbage");
    let entry = |media_type: &str, digest: &layerstore::Digest, size: u64| {
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
    };
    let (a, b) = (&named_otherwise.target, &unnamed.target);
    let text = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
        entry("application/vnd.example.unknown", &a.digest, a.size),
        entry(MediaType::OCI_MANIFEST, &b.digest, b.size),
        entry("text/plain", blob.digest(), blob.size()),
    );
    std::fs::write(store.root().join("index.json"), text).unwrap();
    let report = collect(&store);
    assert_eq!((report.live, report.removed), (7, 1), "{report:?}");
    assert_holds(&store, &[named_otherwise.digests(), unnamed.digests(), [*blob.digest()].into()]);
}
