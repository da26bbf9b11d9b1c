//! A thousand random corruptions of real images from Debian's docker-registry: each is told by the
//! checks that claim it, none is read, and each is mended by little more than what was wrong, as nginx
//! counts it. Meanwhile the registry is down every now and then, and nothing is lost.
#![cfg(feature = "cli")]

#[path = "store_support/corrupt.rs"]
mod corrupt;
#[path = "tools/peers.rs"]
mod peers;
#[path = "tools/store.rs"]
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corrupt::{KINDS, Kind, Random, bound, corrupt, outboard, read};
use layerstore::fetch::{HttpRegistry, Puller, RetryPolicy};
use layerstore::{BlobStore, CheckOptions, Digest};
use peers::{Registry, Sent, TAGS, images};
use serde_json::Value;
use store::{Store, blob_in, closure, served};

/// Every so many batches the registry is down at first.
const DOWN: usize = 5;

/// Where at least so many bytes are missing of a blob, they may come over several connections, and what a
/// server has sent ahead on one that is closed then is sent for nothing.
const SEVERAL: u64 = 32 << 20;

/// A blob as it came.
struct Blob {
    digest: Digest,
    is_manifest: bool,
    /// The images that need it.
    images: BTreeSet<String>,
    good: Vec<u8>,
    /// The hashes of its groups, if it is large enough to have any.
    hashes: Option<Vec<u8>>,
}

/// A blob that was corrupted.
struct Victim<'a> {
    blob: &'a Blob,
    kind: Kind,
    /// What lies there now.
    found: Option<Vec<u8>>,
    /// Whether there are hashes that tell which groups are wrong.
    has_hashes: bool,
}

impl Victim<'_> {
    fn is_bad(&self) -> bool {
        !self.kind.leaves_blob_good()
    }

    /// Whether `--quick` claims it: it reads manifests, and of the others looks at the length.
    fn is_for_quick(&self) -> bool {
        let len = self.found.as_ref().map(Vec::len);
        self.is_bad() && (self.blob.is_manifest || len != Some(self.blob.good.len()))
    }

    /// Of a blob that has only grown all is there.
    fn needs_registry(&self) -> bool {
        self.is_bad() && self.bound() > 0
    }

    fn bound(&self) -> u64 {
        bound(&self.blob.good, self.found.as_deref().unwrap_or_default(), self.has_hashes)
    }
}

#[derive(Default)]
struct Totals {
    kinds: BTreeMap<String, usize>,
    checks: usize,
    told: usize,
    down: usize,
    mended: usize,
    sent: u64,
    taken: u64,
    allowed: u64,
    ahead: u64,
    sizes: u64,
}

/// Images that were pulled, and where from.
struct Scene {
    registry: Registry,
    store: Store,
    library: BlobStore,
    blobs: Vec<Blob>,
    index: Vec<u8>,
    /// How many bytes were sent to pull them.
    pulled: u64,
}

impl Scene {
    fn pull(folder: &Path, registry: Registry, tags: &[&str]) -> Scene {
        let store = Store::at(folder.join("store"));
        let names = tags.iter().map(|tag| format!("{}/real/{tag}:v1", registry.address));
        let names: Vec<String> = names.collect();
        names.iter().for_each(|name| drop(store.pull(name)));
        let library = BlobStore::open(store.root()).unwrap();
        let leaves = served(store.root(), "");
        let closures: Vec<_> = names.iter().map(|name| closure(store.root(), name)).collect();
        let blob = |text: &String| {
            let digest: Digest = text.parse().unwrap();
            let needs = names.iter().zip(&closures).filter(|(_, all)| all.contains_key(text));
            Blob {
                digest,
                is_manifest: !leaves.contains_key(text),
                images: needs.map(|(name, _)| name.clone()).collect(),
                good: fs::read(blob_in(store.root(), text)).unwrap(),
                hashes: fs::read(outboard(&library, &digest)).ok(),
            }
        };
        let blobs = store.live().keys().map(blob).collect();
        let index = fs::read(store.root().join("index.json")).unwrap();
        let pulled = leaves.values().sum();
        assert_eq!(total(&registry.sent_after(pulled)), pulled);
        Scene { registry, store, library, blobs, index, pulled }
    }

    fn path(&self, blob: &Blob) -> PathBuf {
        blob_in(self.store.root(), &blob.digest.to_string())
    }

    /// Chooses a blob for each kind, so that images lead to each of them still: nobody can know what a
    /// manifest needs that is damaged.
    fn choose(&self, random: &mut Random, kinds: &[Kind]) -> (Vec<(&Blob, Kind)>, Vec<&Blob>) {
        loop {
            let (mut rest, mut chosen) = (self.blobs.iter().collect::<Vec<_>>(), Vec::new());
            for kind in kinds {
                let may = |blob: &&Blob| blob.hashes.is_some() || !kind.needs_hashes();
                chosen.push((random.take(&mut rest, may).unwrap(), *kind));
            }
            let manifests = chosen.iter().filter(|(blob, _)| blob.is_manifest);
            let broken: BTreeSet<_> = manifests.flat_map(|(blob, _)| &blob.images).collect();
            let is_led_to = |blob: &Blob| blob.images.iter().any(|name| !broken.contains(name));
            if chosen.iter().all(|(blob, _)| blob.is_manifest || is_led_to(blob)) {
                return (chosen, rest);
            }
        }
    }

    fn corrupt(&self, random: &mut Random, kinds: &[Kind]) -> Vec<Victim<'_>> {
        let (chosen, rest) = self.choose(random, kinds);
        let mut victims = Vec::new();
        for (blob, kind) in chosen {
            let other = &rest[random.below(rest.len())].digest;
            corrupt(&self.library, random, kind, &blob.digest, other);
            let found = fs::read(self.path(blob)).ok();
            let has_hashes = blob.hashes.is_some() && self.hashes_are_right(blob);
            victims.push(Victim { blob, kind, found, has_hashes });
        }
        victims
    }

    fn hashes_are_right(&self, blob: &Blob) -> bool {
        fs::read(outboard(&self.library, &blob.digest)).ok() == blob.hashes
    }

    /// What `check` tells; it must be about blobs, and end as it says.
    fn check(&self, options: &[&str]) -> (BTreeSet<Digest>, Value) {
        let output =
            self.store.command(&[&["--json", "check"], options].concat()).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
        });
        let damage = report["damage"].as_array().unwrap();
        let digest = |it: &Value| it["digest"].as_str().unwrap_or_else(|| panic!("{it}")).parse();
        let told: BTreeSet<Digest> = damage.iter().map(|it| digest(it).unwrap()).collect();
        let left = report.get("repair").unwrap_or(&report)["damage"].as_array().unwrap();
        let code = if left.is_empty() { 0 } else { 3 };
        assert_eq!(output.status.code(), Some(code), "{report}");
        (told, report)
    }

    /// Corrupts, checks, reads and mends.
    fn batch(&self, n: usize, random: &mut Random, kinds: &[Kind], totals: &mut Totals) {
        let victims = self.corrupt(random, kinds);
        for victim in &victims {
            *totals.kinds.entry(format!("{:?}", victim.kind)).or_default() += 1;
        }
        self.check_all(n, random, &victims, totals);
        let is_down = n % DOWN == DOWN / 2;
        if is_down {
            self.repair_without_registry(&victims);
            totals.down += digests(&victims, Victim::needs_registry).len();
        }
        self.repair(&victims, is_down, totals);
    }

    /// Each check tells what it claims, and nothing else; hashes that are wrong are written anew.
    fn check_all(
        &self,
        n: usize,
        random: &mut Random,
        victims: &[Victim<'_>],
        totals: &mut Totals,
    ) {
        let what = || victims.iter().map(|it| (it.kind, it.blob.digest)).collect::<Vec<_>>();
        let quick = digests(victims, Victim::is_for_quick);
        assert_eq!(self.check(&["--quick"]).0, quick, "--quick of {:?}", what());
        // Readers first in some batches: then they meet what no check has marked.
        if n % 4 < 2 {
            self.read(random, victims.iter().filter(|it| it.is_bad()));
        }
        let options: &[&str] = if n.is_multiple_of(2) { &[] } else { &["--read-data"] };
        let bad = digests(victims, Victim::is_bad);
        assert_eq!(self.check(options).0, bad, "check {options:?} of {:?}", what());
        for victim in victims.iter().filter(|it| !it.is_bad()) {
            let is_right = self.hashes_are_right(victim.blob);
            assert!(is_right, "{:?} of {}: not written anew", victim.kind, victim.blob.digest);
        }
        self.read(random, victims.iter().filter(|it| n % 4 >= 2 || !it.is_bad()));
        (totals.checks, totals.told) = (totals.checks + 2, totals.told + quick.len() + bad.len());
    }

    fn read<'a>(&self, random: &mut Random, victims: impl Iterator<Item = &'a Victim<'a>>) {
        for Victim { blob, kind, .. } in victims {
            read(&self.library, random, *kind, &blob.digest, &blob.good);
        }
    }

    /// While there is nobody to have it from, nothing is mended, and nothing gets worse.
    fn repair_without_registry(&self, victims: &[Victim<'_>]) {
        self.registry.cut();
        let quick = CheckOptions { quick: true, ..CheckOptions::default() };
        let found = self.library.check(&quick, |_| {}).unwrap();
        let report = run(self.impatient().repair(&found));
        let failed: BTreeSet<Digest> = report.failed.iter().map(|it| it.digest).collect();
        assert_eq!(failed, digests(victims, Victim::needs_registry), "{report:?}");
        self.assert_nothing_lost(victims);
        let before = self.files();
        // It may refuse, where a manifest is damaged, and must remove nothing.
        let output = self.store.command(&["gc", "--grace", "0s"]).output().unwrap();
        assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
        assert_eq!(self.files(), before, "a collection after a repair that failed");
        self.registry.revive();
    }

    /// What `check --repair` mends with, of less patience.
    fn impatient(&self) -> Puller {
        let registry = HttpRegistry::builder().plain_http(&self.registry.address).build().unwrap();
        let mut patience = RetryPolicy::default();
        patience.first_delay = Duration::from_millis(1);
        patience.max_delay = Duration::from_millis(5);
        Puller::new(self.library.clone(), Arc::new(registry)).retry(patience)
    }

    /// Refs and good blobs are as they were; what is damaged has its name still, or is in quarantine.
    fn assert_nothing_lost(&self, victims: &[Victim<'_>]) {
        assert!(fs::read(self.store.root().join("index.json")).unwrap() == self.index);
        for blob in &self.blobs {
            let victim =
                victims.iter().find(|it| it.blob.digest == blob.digest && it.needs_registry());
            let there = fs::read(self.path(blob)).ok();
            match victim {
                None => assert!(there.as_ref() == Some(&blob.good), "{} changed", blob.digest),
                Some(victim) => {
                    let put_away = blob.digest.to_string().replace(':', "-");
                    let put_away = self.private("quarantine").join(put_away);
                    let there = there.or_else(|| fs::read(put_away).ok());
                    assert!(there == victim.found, "{:?} of {} lost", victim.kind, blob.digest);
                }
            }
        }
    }

    fn private(&self, folder: &str) -> PathBuf {
        self.store.root().join(".layerstore").join(folder)
    }

    /// The blobs, what is in quarantine, and the parts: names and lengths.
    fn files(&self) -> BTreeMap<PathBuf, u64> {
        let blobs = self.store.root().join("blobs/sha256");
        let folders = [blobs, self.private("quarantine"), self.private("parts")];
        let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
        let entry = |entry: fs::DirEntry| (entry.path(), entry.metadata().unwrap().len());
        entries.map(|it| entry(it.unwrap())).collect()
    }

    /// Mends, by no more than what is wrong; afterwards all is as it was pulled.
    fn repair(&self, victims: &[Victim<'_>], was_down: bool, totals: &mut Totals) {
        let before = self.registry.sent();
        // What the check before has marked, this one tells without reading it.
        let options = ["--quick", "--repair", "--plain-http", &self.registry.address];
        let (_, report) = self.check(&options);
        let mended = report["repair"]["mended"].as_array().unwrap();
        let mended: BTreeMap<Digest, u64> = mended
            .iter()
            .map(|it| {
                let digest = it["digest"].as_str().unwrap().parse().unwrap();
                (digest, it["fetchedBytes"].as_u64().unwrap())
            })
            .collect();
        let is_bad = if was_down { Victim::needs_registry } else { Victim::is_bad };
        let bad = digests(victims, is_bad);
        assert_eq!(mended.keys().copied().collect::<BTreeSet<_>>(), bad, "{report}");
        // Manifests do not count as blobs in the log.
        let leaves = victims.iter().filter(|it| is_bad(it) && !it.blob.is_manifest);
        let fetched: u64 = leaves.clone().map(|it| mended[&it.blob.digest]).sum();
        let after = self.registry.sent_after(total(&before) + fetched);
        for victim in leaves {
            let text = victim.blob.digest.to_string();
            let sent = |at: &BTreeMap<String, Sent>| at.get(&text).map_or(0, |it| it.bytes);
            let (sent, bound) = (sent(&after) - sent(&before), victim.bound());
            let what = (victim.kind, victim.blob.good.len(), &text);
            let taken = mended[&victim.blob.digest];
            assert!(taken <= bound, "{what:?}: {taken} bytes taken, and not {bound}");
            let ahead = if bound < SEVERAL { 0 } else { bound / 2 };
            assert!(sent <= bound + ahead, "{what:?}: {sent} bytes sent, and not {bound}");
            (totals.sent, totals.taken) = (totals.sent + sent, totals.taken + taken);
            (totals.allowed, totals.ahead) = (totals.allowed + bound, totals.ahead + ahead);
            totals.sizes += victim.blob.good.len() as u64;
        }
        totals.mended += bad.len();
        self.assert_as_pulled();
    }

    fn assert_as_pulled(&self) {
        assert!(fs::read(self.store.root().join("index.json")).unwrap() == self.index);
        for blob in &self.blobs {
            assert!(fs::read(self.path(blob)).unwrap() == blob.good, "{} differs", blob.digest);
            assert!(self.hashes_are_right(blob), "hashes of {} differ", blob.digest);
        }
        let names: BTreeSet<PathBuf> = self.blobs.iter().map(|blob| self.path(blob)).collect();
        let files = self.files().into_keys().filter(|path| !path.ends_with(".lock"));
        assert_eq!(files.collect::<BTreeSet<_>>(), names, "nothing is left beside");
    }
}

fn total(sent: &BTreeMap<String, Sent>) -> u64 {
    sent.values().map(|sent| sent.bytes).sum()
}

/// Those victims that are so.
fn digests<'a>(victims: &[Victim<'a>], are: impl Fn(&Victim<'a>) -> bool) -> BTreeSet<Digest> {
    victims.iter().filter(|it| are(it)).map(|it| it.blob.digest).collect()
}

fn run<T>(future: impl Future<Output = layerstore::Result<T>>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(60), future).await };
    runtime.block_on(limited).expect("it hangs").unwrap()
}

/// The files of the real Debian in layers of a little more than 1 MiB, in the folder of a registry.
fn split_image(data: &Path) {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/large-image");
    store::must(Command::new(tool).arg(data).arg("--split").arg(images()).arg("debian"));
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn a_thousand_corruptions_of_real_images_are_told_and_mended() {
    let mut random = Random(store::Random::new().below(u64::MAX));
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (mut kinds, mut totals) = (KINDS.into_iter().cycle(), Totals::default());
    let mut corrupt_all = |scene: &Scene, count: usize, at_once: usize| {
        let (started, before) = (Instant::now(), totals.allowed + totals.ahead);
        for n in 0..count.div_ceil(at_once) {
            let some = at_once.min(count - n * at_once);
            let mut kinds: Vec<Kind> = kinds.by_ref().take(some).collect();
            // Few blobs have hashes, in images as they are: these first.
            kinds.sort_by_key(|kind| !kind.needs_hashes());
            scene.batch(n, &mut random, &kinds, &mut totals);
        }
        // What is logged late is in this.
        let sent = total(&scene.registry.sent()) - scene.pulled;
        let allowed = totals.allowed + totals.ahead - before;
        assert!(sent <= allowed, "{sent} bytes in all, and not {allowed}");
        let (blobs, time) = (scene.blobs.len(), started.elapsed());
        println!("{count} corruptions of {blobs} blobs in {time:?}");
    };
    // As they are: nine blobs, of which three are layers of 28 to 63 MB.
    let folder = temp.path().join("whole");
    let registry = Registry::start(&folder.join("registry"));
    corrupt_all(&Scene::pull(&folder, registry, &TAGS.map(|(tag, _)| tag)), 15, 5);
    // In many layers, of which most can be wrong at once.
    let (folder, data) = (temp.path().join("split"), temp.path().join("data"));
    split_image(&data);
    let registry = Registry::start_over(&folder.join("registry"), &data, "0");
    let scene = Scene::pull(&folder, registry, &["debian-split"]);
    assert!(scene.blobs.iter().filter(|blob| blob.good.len() > 1_000_000).count() >= 40);
    corrupt_all(&scene, 985, 40);

    let Totals { kinds, checks, told, down, mended, sent, taken, allowed, sizes, .. } = totals;
    let count: usize = kinds.values().sum();
    println!(
        "corruptions: {count}, lost: 0; told {told} times by {checks} checks, {down} put up with while the \
         registry was down, {mended} mended by {taken} bytes of {sizes}, {sent} sent, {allowed} allowed; {kinds:?}"
    );
    assert!(count == 1000 && kinds.values().all(|count| *count >= 111), "{kinds:?}");
}
