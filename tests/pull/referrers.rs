//! Signatures, attestations and SBOMs: what is about an image and in no part of it.

use super::*;
use crate::support::{Action, Fault, Layer, images, media_type as media, sha256};
use layerstore::fetch::Referrers;
use layerstore::oci::MediaType;
use layerstore::{GcOptions, GcReport};
use serde_json::json;

const SBOM: &str = "application/spdx+json";
const SIGNATURE: &str = "application/vnd.example.signature+json";

impl World {
    fn with_referrers() -> World {
        World::beside(Registry::builder().referrers().page(2).start())
    }

    fn pull_with(&self, rest: &str, referrers: Referrers) -> Result<Pulled, Error> {
        run(self.puller().referrers(referrers).pull(&self.reference(rest)))
    }

    fn collect(&self) -> GcReport {
        let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
        layerstore::gc::collect(&self.store, &options).unwrap()
    }

    fn push_untagged(&self, image: &Image) {
        self.registry.push("demo", "to-be-removed", image);
        self.registry.remove_tag("demo", "to-be-removed");
    }
}

/// An image, its SBOM, two signatures of it and a signature of the SBOM.
fn signed() -> (Image, Vec<Image>) {
    let image = images::synthetic(&[1000, 2000]);
    let sbom = Image::artifact(SBOM, Some(&image), b"{\"packages\":[]}");
    let signatures = [b"first", b"other"].map(|it| Image::artifact(SIGNATURE, Some(&image), it));
    let nested = Image::artifact(SIGNATURE, Some(&sbom), b"of the SBOM");
    (image, [vec![sbom, nested], signatures.to_vec()].concat())
}

#[test]
fn referrers_are_pulled_kept_and_collected_with_their_subject() {
    let world = World::with_referrers();
    let (image, about) = signed();
    world.registry.push("demo", "1", &image);
    about.iter().for_each(|it| world.push_untagged(it));

    // Nobody asked for them.
    let pulled = world.pull("demo:1").unwrap();
    assert_eq!(pulled.referrers, 0);
    assert!(!world.has_blob(&about[0].digest));

    // The image is there; they are not.
    let pulled = world.pull_with("demo:1", Referrers::All).unwrap();
    assert_eq!(pulled.referrers, 4);
    // Four manifests, four files and the empty config that all share.
    assert_eq!((pulled.fetched_blobs, pulled.reused_blobs), (9, 4));
    about.iter().for_each(|it| world.assert_blobs(it));
    world.assert_tidy(0);
    let again = world.pull_with("demo:1", Referrers::All).unwrap();
    assert_eq!((again.referrers, again.fetched_blobs, again.reused_blobs), (4, 0, 13));

    // They stay for as long as the image does, although no ref leads to them.
    assert_eq!(world.store.refs().unwrap().len(), 1);
    assert_eq!(world.collect().removed, 0);
    about.iter().for_each(|it| world.assert_blobs(it));
    assert!(world.store.check(&Default::default(), |_| {}).unwrap().is_sound());

    // And no longer.
    let name = world.reference("demo:1").to_string();
    assert_eq!(world.store.remove_refs(&[name]).unwrap(), [true]);
    let report = world.collect();
    assert_eq!((report.removed, report.live), (13, 0));
    assert_eq!(world.names_in("blobs/sha256"), [""; 0]);
}

#[test]
fn of_one_artifact_type() {
    let world = World::with_referrers();
    let (image, about) = signed();
    world.registry.push("demo", "1", &image);
    about.iter().for_each(|it| world.push_untagged(it));
    let signatures = Referrers::OfType(MediaType::new(SIGNATURE));
    let pulled = world.pull_with("demo:1", signatures).unwrap();
    assert_eq!(pulled.referrers, 2, "what is about the SBOM goes with it");
    assert!(!world.has_blob(&about[0].digest) && world.has_blob(&about[2].digest));
    let asked = world.registry.requests();
    let filter = "artifactType=application%2Fvnd.example.signature%2Bjson";
    assert!(asked.iter().any(|it| it.path.contains(filter)), "{asked:?}");
}

#[test]
fn every_manifest_of_the_image_may_have_some() {
    let world = World::with_referrers();
    let child = images::synthetic(&[100]);
    let index = Image::index(std::slice::from_ref(&child));
    let about_index = Image::artifact(SBOM, Some(&index), b"of all");
    let about_child = Image::artifact(SBOM, Some(&child), b"of one");
    world.registry.push("demo", "1", &index);
    [&about_index, &about_child].iter().for_each(|it| world.push_untagged(it));
    assert_eq!(world.pull_with("demo:1", Referrers::All).unwrap().referrers, 2);
    [&about_index, &about_child].iter().for_each(|it| world.assert_blobs(it));
}

#[test]
fn a_registry_without_the_api_may_list_them_under_a_tag() {
    let world = World::new();
    let (image, about) = signed();
    world.registry.push("demo", "1", &image);
    about.iter().for_each(|it| world.push_untagged(it));
    // No such tag: nothing refers to the image.
    assert_eq!(world.pull_with("demo:1", Referrers::All).unwrap().referrers, 0);
    let entry = |it: &Image, artifact_type: &str| {
        json!({"mediaType": media::MANIFEST, "digest": it.digest, "size": it.manifest.len(),
               "artifactType": artifact_type})
    };
    let list = |of: &Image, entries: serde_json::Value| {
        let index = json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries});
        let tag = of.digest.replace(':', "-");
        world.registry.put_manifest("demo", Some(&tag), media::INDEX, index.to_string());
    };
    list(&image, json!([entry(&about[0], SBOM), entry(&about[2], SIGNATURE)]));
    list(&about[0], json!([entry(&about[1], SIGNATURE)]));
    let signatures = Referrers::OfType(MediaType::new(SIGNATURE));
    assert_eq!(world.pull_with("demo:1", signatures).unwrap().referrers, 1);
    assert!(!world.has_blob(&about[0].digest));
    assert_eq!(world.pull_with("demo:1", Referrers::All).unwrap().referrers, 3);
    assert_eq!(world.collect().removed, 0);

    // Some find the request wrong, and some have a page for everything.
    for answer in [
        Action::error(400, "UNSUPPORTED", "no"),
        Action::status(200, &[("Content-Type", "text/html")], "<html>"),
    ] {
        world.registry.fault(Fault::on("GET", "/referrers/").then(answer));
        assert_eq!(world.pull_with("demo:1", Referrers::All).unwrap().referrers, 3);
        world.registry.clear_faults();
    }
}

#[test]
fn circles_end_and_depth_has_its_limit() {
    // Digests allow no circle of subjects, but lists say what they like.
    let world = World::with_referrers();
    let (image, about) = signed();
    world.registry.push("demo", "1", &image);
    let entry = |it: &Image| json!({"mediaType": media::MANIFEST, "digest": it.digest, "size": it.manifest.len()});
    let index = json!({"schemaVersion": 2, "mediaType": media::INDEX,
                       "manifests": [entry(&image), entry(&about[0])]});
    world.push_untagged(&about[0]);
    let answer = Action::status(200, &[("Content-Type", media::INDEX)], index.to_string());
    world.registry.fault(Fault::on("GET", "/referrers/").then(answer));
    assert_eq!(world.pull_with("demo:1", Referrers::All).unwrap().referrers, 1);

    let world = World::with_referrers();
    world.registry.push("demo", "1", &image);
    let mut chain = vec![image];
    for n in 0..6 {
        let next = Image::artifact(SIGNATURE, chain.last(), &[n]);
        world.push_untagged(&next);
        chain.push(next);
    }
    assert_eq!(world.pull_with("demo:1", Referrers::All).unwrap().referrers, 3);
    let depth = chain.iter().take_while(|it| world.has_blob(&it.digest)).count();
    assert_eq!(depth, layerstore::oci::MAX_DEPTH);
}

#[test]
fn lists_that_lie_or_break_are_errors() {
    let (image, about) = signed();
    let other = Image::artifact(SBOM, Some(&images::synthetic(&[9])), b"of another");
    let listed = |manifests: serde_json::Value| {
        json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": manifests}).to_string()
    };
    let entry = |it: &Image, size: usize| json!({"mediaType": media::MANIFEST, "digest": it.digest, "size": size});
    let many: Vec<_> = (0..10_001u32)
        .map(|n| json!({"mediaType": "a/b", "digest": sha256(&n.to_le_bytes()), "size": 1}))
        .collect();
    let ok = |text: String| Action::status(200, &[("Content-Type", media::INDEX)], text);
    let link = |target: &str| {
        let value = format!("<{target}>; rel=\"next\"");
        let headers = [("Content-Type", media::INDEX), ("Link", value.as_str())];
        Action::status(200, &headers, listed(json!([])))
    };
    let cases = [
        ("it is about another", ok(listed(json!([entry(&other, other.manifest.len())])))),
        ("its size is wrong", ok(listed(json!([entry(&about[0], 7)])))),
        ("it is gone", ok(listed(json!([entry(&Image::artifact(SBOM, None, b"gone"), 400)])))),
        ("there are too many", ok(listed(json!(many)))),
        ("it is no JSON", ok("{".to_owned())),
        ("it is a manifest", ok(String::from_utf8(image.manifest.clone()).unwrap())),
        ("a page elsewhere", link("https://127.0.0.1:1/v2/demo/referrers/x?n=1")),
        ("a page of another list", link("/v2/demo/tags/list?n=1")),
        ("a circle", link(&format!("/v2/demo/referrers/{}?n=1", image.digest))),
        ("no more than an error", Action::error(403, "DENIED", "no")),
    ];
    for (what, answer) in cases {
        let world = World::with_referrers();
        world.registry.push("demo", "1", &image);
        [&about[0], &other].iter().for_each(|it| world.push_untagged(it));
        world.registry.fault(Fault::on("GET", "/referrers/").then(answer));
        let result = world.pull_with("demo:1", Referrers::All);
        assert!(result.is_err(), "{what}: {result:?}");
        assert_eq!(world.store.refs().unwrap(), [], "{what}");
        world.assert_tidy(0);
        // Without them the image can be had.
        world.pull("demo:1").unwrap();
    }
}

#[test]
fn what_they_are_made_of_counts_like_the_rest() {
    let world = World::with_referrers();
    let image = images::synthetic(&[10]);
    let large = Layer::generated(3, 2_000_000);
    let about = Image::artifact(SBOM, Some(&image), b"small").edited(|manifest| {
        manifest["layers"][0]["digest"] = json!(large.digest);
        manifest["layers"][0]["size"] = json!(large.size);
    });
    let about = Image { layers: vec![large.clone()], ..about };
    world.registry.push("demo", "1", &image);
    world.push_untagged(&about);
    world
        .registry
        .fault(Fault::on("GET", &large.digest).times(1).then(Action::ResetAfter(500_000)));
    let pulled = world.pull_with("demo:1", Referrers::All).unwrap();
    assert_eq!(pulled.referrers, 1);
    world.assert_blobs(&about);
}
