//! `check`, with and without `--repair`, beside everything that changes a store, each in processes of its
//! own.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::sandbox::Sandbox;
use crate::support::{Content, Image, Registry, images};

const CHECKS: usize = 20;
const IMAGES: u64 = 4;
/// How often each of the others has to be done meanwhile; and for how long, if they are slow, checks
/// go on for that.
const OFTEN: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends all loops where one of them fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a command again and again until there is an end, with one image after the other; how often it
/// was done.
fn repeat(
    sandbox: &Sandbox,
    args: &[&str],
    names: &[String],
    end: &AtomicBool,
    done: &AtomicUsize,
) {
    let _end = End(end);
    for name in names.iter().cycle().take_while(|_| !end.load(Ordering::Relaxed)) {
        let run = sandbox.run(&[args, &[name.as_str()]].concat());
        match run.code {
            Some(0) => drop(done.fetch_add(1, Ordering::Relaxed)),
            // Its name is not there, or not any more.
            Some(4) if args[0] == "rm" => {}
            _ => panic!("{args:?} {name}: {run:?}"),
        }
    }
}

#[test]
fn checks_beside_pulls_removals_and_collections_find_no_damage() {
    let (sandbox, registry) = (Sandbox::new(), Registry::start());
    // They share layers, so that some stay where others go.
    for (n, image) in images::series_of_sizes(IMAGES, [200_000, 100_000, 70_000]).iter().enumerate()
    {
        registry.push("demo", &n.to_string(), image);
    }
    let names: Vec<_> = (0..IMAGES).map(|n| registry.reference(&format!("demo:{n}"))).collect();
    let (end, counts) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 3]);
    let is_busy = || counts.iter().all(|count| count.load(Ordering::Relaxed) >= OFTEN);
    std::thread::scope(|scope| {
        let (sandbox, names, end, counts) = (&sandbox, &names[..], &end, &counts);
        scope.spawn(|| repeat(sandbox, &["pull", "--plain-http"], names, end, &counts[0]));
        scope.spawn(|| repeat(sandbox, &["rm"], names, end, &counts[1]));
        scope.spawn(|| repeat(sandbox, &["gc", "--grace"], &["0s".to_owned()], end, &counts[2]));
        let (_end, begun) = (End(end), Instant::now());
        let depths = [&["check"][..], &["check", "--quick"], &["check", "--read-data"]];
        for (n, depth) in (1..).zip(depths.iter().cycle()) {
            let done = sandbox.run(depth);
            assert_eq!(done.code, Some(0), "check {n}: {done:?}");
            let is_enough = n >= CHECKS && (is_busy() || begun.elapsed() > PATIENCE);
            if is_enough || end.load(Ordering::Relaxed) {
                break;
            }
        }
    });
    assert!(is_busy(), "{counts:?}");
}

/// How long blobs rot.
const ROTTING: Duration = Duration::from_secs(8);
/// So many images stay; the others come and go.
const KEPT: usize = 2;

/// How often what was run, and ended with which code; and how many blobs were mended.
type Counts = Mutex<BTreeMap<(&'static str, i32), usize>>;

/// Images whose blobs rot while their store is worked with.
struct Rotting {
    sandbox: Sandbox,
    registry: Registry,
    names: Vec<String>,
    /// The blobs of those that stay, once each.
    blobs: BTreeMap<String, Content>,
    end: AtomicBool,
    counts: Counts,
}

impl Rotting {
    fn new() -> Rotting {
        let (sandbox, registry) = (Sandbox::new(), Registry::start());
        let images = images::series_of_sizes(IMAGES, [200_000, 100_000, 70_000]);
        for (n, image) in images.iter().enumerate() {
            registry.push("demo", &n.to_string(), image);
        }
        let names: Vec<_> = (0..IMAGES).map(|n| registry.reference(&format!("demo:{n}"))).collect();
        for name in &names[..KEPT] {
            sandbox.ok(&["pull", "--plain-http", name]);
        }
        let blobs = images[..KEPT].iter().flat_map(Image::closure).collect();
        let (end, counts) = (AtomicBool::new(false), Counts::default());
        Rotting { sandbox, registry, names, blobs, end, counts }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.sandbox.root().join("blobs").join(digest.replace(':', "/"))
    }

    /// Runs a command again and again, with one name after the other. It ends well, or with one of these
    /// codes and such words.
    fn repeat(&self, what: &'static str, args: &[&str], names: &[String], ends: &[(i32, &str)]) {
        let _end = End(&self.end);
        for name in names.iter().cycle().take_while(|_| !self.end.load(Ordering::Relaxed)) {
            let done = self.sandbox.run(&[args, &[name.as_str()]].concat());
            let code = done.code.unwrap();
            let is_due = |(due, words): &(i32, &str)| {
                code == *due && (done.out.contains(words) || done.err.contains(words))
            };
            assert!(code == 0 || ends.iter().any(is_due), "{args:?} {name}: {done:?}");
            let mut counts = self.counts.lock().unwrap();
            *counts.entry((what, code)).or_insert(0) += 1;
            let mended = done.out.lines().filter(|line| line.starts_with("mended: ")).count();
            *counts.entry(("mended", 0)).or_insert(0) += mended;
        }
    }

    /// Whether everything was done often.
    fn is_busy(&self) -> bool {
        let counts = self.counts.lock().unwrap();
        let is_often = |what| counts.get(&(what, 0)).is_some_and(|count| *count >= OFTEN);
        ["pull", "rm", "gc", "repair", "quick repair", "mended"].into_iter().all(is_often)
    }

    /// Makes one blob after the other rotten, in one byte, as a disk does: the file is another, or the same.
    fn rot(&self) {
        let _end = End(&self.end);
        let aside = self.sandbox.dir.path().join("aside");
        let begun = Instant::now();
        for (n, digest) in self.blobs.keys().cycle().enumerate() {
            let is_enough = begun.elapsed() > ROTTING && self.is_busy();
            if is_enough || begun.elapsed() > PATIENCE || self.end.load(Ordering::Relaxed) {
                break;
            }
            let path = self.path(digest);
            let file = File::open(&path).unwrap();
            let at = (n as u64 * 7919) % self.blobs[digest].len();
            if n % 2 == 0 {
                fs::copy(&path, &aside).unwrap();
                flip(&aside, &file, at);
                fs::rename(&aside, &path).unwrap();
            } else {
                flip(&path, &file, at);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Those that stay are named, and nothing of them goes for a moment, whatever is wrong with it.
    fn look(&self) {
        let _end = End(&self.end);
        for n in (0..).take_while(|_| !self.end.load(Ordering::Relaxed)) {
            for digest in self.blobs.keys() {
                assert!(self.path(digest).exists(), "{digest} is lost");
            }
            if n % 100 == 0 {
                let done = self.sandbox.run(&["images", "--json"]);
                assert!(matches!(done.code, Some(0 | 3)), "{done:?}");
                for name in &self.names[..KEPT] {
                    assert!(done.out.contains(&format!("\"{name}\"")), "{name} is lost: {done:?}");
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Inverts a bit where a file lies. Its mode and time are those of `like` afterwards.
fn flip(path: &Path, like: &File, at: u64) {
    let (file, like) = (File::open(path).unwrap(), like.metadata().unwrap());
    file.set_permissions(Permissions::from_mode(0o600)).unwrap();
    // Another may have got the name meanwhile.
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    let again = File::options().write(true).open(same).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    again.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.set_modified(like.modified().unwrap()).unwrap();
    file.set_permissions(like.permissions()).unwrap();
}

#[test]
fn repairs_beside_pulls_removals_and_collections_lose_nothing() {
    let world = Rotting::new();
    let (address, grace) = ([world.registry.address()], ["0s".to_owned()]);
    let repair = ["check", "--repair", "--plain-http"];
    let quick = ["check", "--quick", "--repair", "--plain-http"];
    std::thread::scope(|scope| {
        let (world, names, here) = (&world, &world.names[..], &address[..]);
        // What rots while its image is pulled fails that pull (docs/protocol.md): whoever finds it marks
        // it, or the pull itself reads it; or it seems to be another tool's, since somebody writes to it.
        let pull_ends = &[
            (1, " was not saved: "),
            (3, "another program wrote it, and "),
            (7, "error: the stored blob "),
        ];
        scope.spawn(|| world.repeat("pull", &["pull", "--plain-http"], names, pull_ends));
        scope.spawn(|| world.repeat("rm", &["rm"], &names[KEPT..], &[(4, "there is no image")]));
        let gc_ends = &[(3, "nothing was collected")];
        scope.spawn(|| world.repeat("gc", &["gc", "--grace"], &grace, gc_ends));
        let repair_ends = &[(3, "damage is left")];
        scope.spawn(|| world.repeat("repair", &repair, here, repair_ends));
        scope.spawn(|| world.repeat("quick repair", &quick, here, repair_ends));
        scope.spawn(|| world.look());
        world.rot();
    });
    println!("commands by exit code: {:?}", world.counts.lock().unwrap());
    assert!(world.is_busy());
    world.sandbox.ok(&[&repair[..], &[address[0].as_str()]].concat());
    world.sandbox.ok(&["check", "--read-data"]);
    for (digest, content) in &world.blobs {
        assert!(fs::read(world.path(digest)).unwrap() == content.to_vec(), "{digest}");
    }
    let images = world.sandbox.json(&["images"]);
    for name in &world.names[..KEPT] {
        let image = images.as_array().unwrap().iter().find(|image| image["name"] == name.as_str());
        assert_eq!(image.unwrap()["missing"], 0, "{name}");
    }
}
