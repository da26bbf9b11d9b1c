//! A damaged store is mended by way of the mirrors of the registry that its images came from.

use std::path::PathBuf;

use layerstore::CheckOptions;
use layerstore::fetch::{HttpRegistryBuilder, RepairReport};

use super::corrupt::flip;
use super::support::{Action, Fault, Image, Registry};
use super::{World, image, nobody, run, with};

const GROUP: u64 = 16 * 1024;

/// A store with an image from a registry that is gone, which is told by its address.
fn bereft(image: &Image) -> (World, String) {
    let (world, origin) = (World::new(), with(image, "demo"));
    let client = world.client("").plain_http(origin.address());
    world.pull(client, &origin.reference("demo:1")).unwrap();
    let address = origin.address();
    drop(origin);
    (world, address)
}

fn path(world: &World, digest: &str) -> PathBuf {
    world.store.root().join("blobs").join(digest.replace(':', "/"))
}

fn repair(world: &World, client: HttpRegistryBuilder) -> RepairReport {
    let found = world.store.check(&CheckOptions::default(), |_| {}).unwrap();
    assert!(!found.damage.is_empty());
    run(world.puller(client).concurrency(1).repair(&found)).unwrap()
}

/// A `registries.conf` by which the registry at `origin` has these mirrors.
fn conf(origin: &str, mirrors: &[&str]) -> String {
    let one = |it: &&str| format!("[[registry.mirror]]\nlocation = \"{it}\"\ninsecure = true\n");
    let mirrors: String = mirrors.iter().map(one).collect();
    format!("[[registry]]\nlocation = \"{origin}\"\ninsecure = true\n{mirrors}")
}

/// A `hosts.toml` that says the same.
fn hosts(world: &World, origin: &str, mirrors: &[&str]) {
    let one = |it: &&str| format!("[host.\"http://{it}\"]\ncapabilities = [\"pull\"]\n");
    let mirrors: String = mirrors.iter().map(one).collect();
    let name = origin.replace(':', "_");
    let text = format!("server = \"http://{origin}\"\n{mirrors}");
    world.write(&format!("certs.d/{name}_/hosts.toml"), text);
}

fn url(registry: &Registry) -> String {
    format!("http://{}", registry.address())
}

/// Three bad groups of the large layer, the short last one among them, and no small layer.
fn damage(world: &World, image: &Image) -> u64 {
    for at in [700, 1_500_000, 2_999_999] {
        flip(&path(world, &image.layers[0].digest), at, 3);
    }
    std::fs::remove_file(path(world, &image.layers[1].digest)).unwrap();
    2 * GROUP + 3_000_000 % GROUP
}

/// Mends, and looks what was sent: by the one mirror that has the image, and by nobody else.
fn comes_from(world: &World, image: &Image, origin: &str, mirror: &Registry, conf: &str) {
    let wanted = damage(world, image);
    mirror.clear_requests();
    let report = repair(world, world.client(conf));
    assert!(report.is_sound(), "{report:?}");
    let (large, small) = (&image.layers[0], &image.layers[1]);
    let whole = small.content.len();
    assert_eq!(mirror.bytes_sent(&large.digest), wanted);
    assert_eq!(mirror.bytes_sent(&small.digest), whole);
    assert_eq!((report.mended.len(), report.fetched_bytes), (2, wanted + whole));
    for mended in &report.mended {
        assert_eq!(mended.from, Some(format!("{origin}/demo")), "as it was recorded");
        assert_eq!(mended.servers, [url(mirror)]);
    }
    let asked = mirror.requests().into_iter().filter(|it| it.path.contains(&large.digest));
    let ranges: Vec<_> = asked.filter_map(|it| it.range).collect();
    assert_eq!(ranges, ["bytes=0-16383", "bytes=1490944-1507327", "bytes=2998272-"]);
    world.has(&format!("{origin}/demo:1"), image);
    println!("fetched from a mirror: {wanted} bytes of 3000000, and {whole} of a lost blob");
}

#[test]
fn of_an_origin_that_is_down_the_mirror_sends_what_is_bad_and_no_more() {
    let image = image();
    let (world, origin) = bereft(&image);
    let (empty, mirror) = (Registry::start(), with(&image, "demo"));
    let addresses = [nobody(), empty.address(), mirror.address()];
    let mirrors = addresses.each_ref().map(String::as_str);
    comes_from(&world, &image, &origin, &mirror, &conf(&origin, &mirrors));
    hosts(&world, &origin, &mirrors);
    comes_from(&world, &image, &origin, &mirror, "");
}

#[test]
fn an_origin_that_has_it_no_more_or_fails_is_made_up_for_by_its_mirror() {
    let image = image();
    let (world, address) = bereft(&image);
    let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let origin = Registry::builder().port(port).start();
    let mirror = with(&image, "demo");
    let mirrored = conf(&address, &[&mirror.address()]);
    for answer in [
        Action::error(404, "BLOB_UNKNOWN", "no"),
        Action::error(503, "UNAVAILABLE", "later"),
        Action::error(500, "UNKNOWN", "broken"),
    ] {
        let fault = origin.fault(Fault::on("", "").then(answer));
        damage(&world, &image);
        let report = repair(&world, world.client("").plain_http(&*address));
        assert!(!report.is_sound() && fault.hits() > 0, "without the mirror: {report:?}");
        assert_eq!(report.failed.len(), 2);
        // What was put in quarantine is made use of.
        mirror.clear_requests();
        let report = repair(&world, world.client(&mirrored));
        assert!(report.is_sound(), "{report:?}");
        let wanted = 2 * GROUP + 3_000_000 % GROUP;
        assert_eq!(mirror.bytes_sent(&image.layers[0].digest), wanted);
        world.has(&format!("{address}/demo:1"), &image);
        fault.remove();
    }
}

#[test]
fn after_a_mirror_with_wrong_bytes_the_next_server_is_asked() {
    let image = image();
    let (world, origin) = bereft(&image);
    let layer = &image.layers[0].digest;
    let (bad, good) = (with(&image, "demo"), with(&image, "demo"));
    let fault = bad.fault(Fault::on("GET", layer).then(Action::Corrupt(100)));
    flip(&path(&world, layer), 1_500_000, 3);
    let conf = conf(&origin, &[&bad.address(), &good.address()]);
    let report = repair(&world, world.client(&conf));
    assert!(report.is_sound() && fault.hits() > 0, "{report:?}");
    assert_eq!(report.mended[0].servers, [url(&good)], "who sent what was kept");
    assert_eq!((report.fetched_bytes, good.bytes_sent(layer)), (GROUP, GROUP));
    // Once in case what was there was bad, and once more.
    assert_eq!(bad.bytes_sent(layer), 2 * GROUP);
    world.has(&format!("{origin}/demo:1"), &image);
}

#[test]
fn wrong_bytes_of_the_only_mirror_harm_nothing_and_are_told() {
    let image = image();
    let (world, origin) = bereft(&image);
    // The one that is tried first has the mirror's wrong bytes; the other has to be mended all the same.
    let mut layers = [&image.layers[0], &image.layers[1]].map(|it| it.digest.clone());
    layers.sort();
    let [first, second] = layers;
    for digest in [&first, &second] {
        flip(&path(&world, digest), 10, 3);
    }
    let damaged = std::fs::read(path(&world, &first)).unwrap();
    let mirror = with(&image, "demo");
    let fault = mirror.fault(Fault::on("GET", &first).then(Action::Corrupt(9)));
    let conf = conf(&origin, &[&mirror.address()]);
    let report = repair(&world, world.client(&conf));
    let [failed] = &report.failed[..] else { panic!("{report:?}") };
    assert_eq!((failed.digest.to_string(), failed.quarantined), (first.clone(), true));
    assert!(failed.reason.contains("does not match its digest"), "{failed:?}");
    assert!(failed.reason.contains(&origin), "and the origin is down: {failed:?}");
    assert_eq!(failed.refs, [format!("{origin}/demo:1")]);
    let [mended] = &report.mended[..] else { panic!("{report:?}") };
    assert_eq!((mended.digest.to_string(), &mended.servers[..]), (second, &[url(&mirror)][..]));
    // No wrong byte has the blob's name, and what was damaged is as it was.
    assert!(!path(&world, &first).exists());
    let quarantine = world.store.root().join(".layerstore/quarantine");
    assert!(std::fs::read(quarantine.join(first.replace(':', "-"))).unwrap() == damaged);
    assert!(world.store.find_ref(&format!("{origin}/demo:1")).is_ok());
    fault.remove();
    assert!(repair(&world, world.client(&conf)).is_sound(), "as soon as the mirror is sound");
    world.has(&format!("{origin}/demo:1"), &image);
}
