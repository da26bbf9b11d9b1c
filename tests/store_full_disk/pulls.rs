//! The disk fills while a body comes: what came stays, and the next pull goes on from there.

use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use layerstore::BlobStore;

use crate::disk::{Disk, MIB, World, command, run};
use crate::support::{Action, Fault, Layer, Registry, images};

const SIZE: u64 = 12 * MIB;
const HELD: u64 = 5 * MIB;
/// What the disk still takes when the rest comes.
const LEFT: u64 = 2 * MIB;

fn world(disk: &Disk, layers: &[u64]) -> World {
    let (root, registry) = (disk.path().join("store"), Registry::start());
    BlobStore::init(&root).unwrap();
    let images = vec![images::synthetic(layers)];
    registry.push("demo0", "1", &images[0]);
    World { root, registry, images }
}

fn file_of(world: &World, layer: &Layer) -> PathBuf {
    world.root.join(format!(".layerstore/parts/{}.part", layer.digest.replace(':', "-")))
}

/// How long a part is.
fn part(world: &World, layer: &Layer) -> u64 {
    std::fs::metadata(file_of(world, layer)).map_or(0, |part| part.len())
}

/// Waits until so much of a layer is on disk.
fn wait_for(world: &World, layer: &Layer, len: u64) {
    let begun = Instant::now();
    while part(world, layer) < len {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of {len}", part(world, layer));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn start(world: &World, more: &[&str]) -> Child {
    let mut command = world.pull_command(0, &[&["--json"], more].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// It says that there is no space, what helps, and that nothing is lost.
fn assert_no_space(done: &Output) {
    let text = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(8), "{text}");
    for told in
        ["no space left", "are missing)", "`store gc` frees what no image uses", "continues where"]
    {
        assert!(text.contains(told), "{told}: {text}");
    }
}

fn report(done: &Output) -> serde_json::Value {
    assert!(done.status.success(), "{done:?}");
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
#[ignore = "needs root for a file system"]
fn a_disk_that_fills_amid_a_body_keeps_the_part() {
    let disk = Disk::without_reservations(32 * MIB);
    let world = world(&disk, &[100_000, SIZE]);
    let (small, layer) = (&world.images[0].layers[0], &world.images[0].layers[1]);
    let hold = Fault::on("GET", &layer.digest).times(1).then(Action::Hold(HELD));
    let hold = world.registry.fault(hold);
    // One blob after the other, and so the small one is there when the disk is full.
    let pull = start(&world, &["--max-connections", "1", "--max-concurrent-blobs", "1"]);
    wait_for(&world, layer, HELD);
    disk.fill(LEFT);
    world.registry.release();
    let done = pull.wait_with_output().unwrap();
    assert_no_space(&done);
    assert_eq!(hold.hits(), 1);
    let had = part(&world, layer);
    assert!((HELD..SIZE).contains(&had), "{had} of {HELD} and what the disk took then");
    assert!(had > HELD + LEFT / 2, "what fitted was written: {had}");
    let content = layer.content.to_vec();
    assert!(std::fs::read(file_of(&world, layer)).unwrap() == content[..had as usize]);
    let store = BlobStore::open(&world.root).unwrap();
    assert!(store.refs().unwrap().is_empty());
    let first = world.registry.bytes_sent(&layer.digest);

    // While there is no space, nothing is asked for, and nothing is lost.
    world.registry.clear_requests();
    let done = world.pull(0);
    assert_eq!(done.status.code(), Some(8), "{done:?}");
    assert_eq!(world.registry.bytes_sent(&layer.digest), 0);
    assert_eq!(part(&world, layer), had);
    run(&mut command(&world.root, &["gc"]));
    assert_eq!(part(&world, layer), had, "a collection keeps what can be continued");

    disk.make_room();
    world.registry.clear_requests();
    let done = start(&world, &["--max-connections", "1"]).wait_with_output().unwrap();
    assert_eq!(report(&done)["resumedBytes"], had);
    world.assert_whole(&store, 0);
    let asked = world.registry.requests().into_iter().filter(|it| it.path.contains("/blobs/"));
    let asked: Vec<_> = asked.map(|it| (it.path, it.range)).collect();
    let path = format!("/v2/demo0/blobs/{}", layer.digest);
    assert_eq!(asked, [(path, Some(format!("bytes={had}-")))]);
    // Twice was sent what could not be written, and of the small layer nothing.
    let (second, unwritten) = (world.registry.bytes_sent(&layer.digest), first - had);
    assert_eq!(first + second, SIZE + unwritten);
    assert_eq!(world.registry.bytes_sent(&small.digest), 0);
}

/// Where space can be set aside, it runs out before the first byte of a layer, and amid another that has
/// all its space.
#[test]
#[ignore = "needs root for a file system"]
fn a_layer_that_has_no_space_leaves_the_others_their_parts() {
    let disk = Disk::mount(32 * MIB);
    let world = world(&disk, &[4 * MIB, 6 * MIB]);
    let [small, large] = &world.images[0].layers[..] else { panic!() };
    let holds = [2 * MIB, 3 * MIB].map(Action::Hold);
    let on_small = holds.into_iter().fold(Fault::on("GET", &small.digest), Fault::then);
    world.registry.fault(on_small.times(1));
    world.registry.fault(Fault::on("GET", &large.digest).times(1).then(Action::Hold(0)));
    let pull = start(&world, &["--max-connections", "2", "--max-concurrent-blobs", "2"]);
    wait_for(&world, small, 2 * MIB);
    assert!(world.registry.wait_held(2), "the large layer was not asked for");
    disk.fill(LEFT);
    world.registry.release();
    let done = pull.wait_with_output().unwrap();
    assert_no_space(&done);
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(text.contains(" are missing") && text.contains(&large.digest[7..]), "{text}");
    let had = part(&world, small);
    assert!((2 * MIB..4 * MIB).contains(&had), "{had}");
    assert!(
        std::fs::read(file_of(&world, small)).unwrap() == small.content.to_vec()[..had as usize]
    );
    assert_eq!(part(&world, large), 0);

    disk.make_room();
    world.registry.clear_requests();
    let done = start(&world, &[]).wait_with_output().unwrap();
    assert_eq!(report(&done)["resumedBytes"], had);
    world.assert_whole(&BlobStore::open(&world.root).unwrap(), 0);
    assert_eq!(world.registry.bytes_sent(&small.digest), 4 * MIB - had);
    assert_eq!(world.registry.bytes_sent(&large.digest), 6 * MIB);
}
