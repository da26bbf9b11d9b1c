//! What the page's script draws: blobs in groups, by the images that have them.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use layerstore::{BlobUsage, Digest, Usage};
use serde::Serialize;

use super::kind_title;
use crate::escape;
use crate::human;

/// How many blobs are told apart, in all and in a group. What is left is a number of bytes.
const MOST_BLOBS: usize = 8000;
const MOST_OF_GROUP: usize = 300;
/// How many sets of images that share something are told apart, and how many members they have.
const MOST_SETS: usize = 1500;
const MOST_MEMBERS: usize = 200_000;
/// How many images there are names and digests of.
const MOST_IMAGES: usize = 10_000;
/// How many names of each.
const MOST_NAMES: usize = 4;
/// How old what nothing keeps must be before a collection takes it.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// Who keeps bytes: the colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Class {
    Unique,
    Shared,
    Kept,
    Garbage,
    Own,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Map<'a> {
    images: Vec<Image<'a>>,
    groups: Vec<Group<'a>>,
    own: Vec<(&'a str, u64)>,
    roles: Vec<&'static str>,
    media_types: Vec<String>,
    /// The places of the images in `Usage::images`, largest first.
    #[serde(skip)]
    order: Vec<usize>,
    #[serde(skip)]
    classes: [u64; 5],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Image<'a> {
    digest: &'a Digest,
    names: Vec<String>,
    more_names: usize,
    total: u64,
    shared: u64,
    frees: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Blobs that the same images have.
#[derive(Serialize)]
struct Group<'a> {
    label: &'static str,
    #[serde(rename = "cls")]
    class: &'static str,
    /// By their places in `Map::images`.
    images: Vec<usize>,
    /// How many they are: some may not be in that list.
    count: usize,
    blobs: Vec<Blob<'a>>,
    /// The other ones: how many, and what they take.
    smaller: (u64, u64),
}

/// Digest, role, media type, length, bytes on disk, and whether a lease keeps it.
#[derive(Serialize)]
struct Blob<'a>(&'a Digest, usize, usize, u64, u64, u8);

impl Class {
    const ALL: [Class; 5] = [Class::Unique, Class::Shared, Class::Kept, Class::Garbage, Class::Own];

    pub(super) fn name(self) -> &'static str {
        match self {
            Class::Unique => "u",
            Class::Shared => "s",
            Class::Kept => "k",
            Class::Garbage => "r",
            Class::Own => "o",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Class::Unique => "One image's alone",
            Class::Shared => "Shared by several images",
            Class::Kept => "Kept without a name",
            Class::Garbage => "Kept by nothing",
            Class::Own => "Parts and the store's own",
        }
    }
}

/// The beginning of a digest, with its algorithm: enough to find it by.
pub(super) fn short(digest: &Digest) -> String {
    format!("{}:{}", digest.algorithm(), human::short(digest))
}

impl<'a> Map<'a> {
    pub(super) fn of(usage: &'a Usage) -> Map<'a> {
        let mut order: Vec<usize> = (0..usage.images.len()).collect();
        order.sort_by_key(|n| std::cmp::Reverse(usage.images[*n].total.disk));
        let mut rank = vec![0; order.len()];
        order.iter().enumerate().for_each(|(at, n)| rank[*n] = at);

        let mut map = Map {
            images: order.iter().take(MOST_IMAGES).map(|n| image(&usage.images[*n])).collect(),
            groups: Vec::new(),
            own: own(usage),
            roles: Vec::new(),
            media_types: Vec::new(),
            order,
            classes: [0; 5],
        };
        map.add_blobs(usage, &rank);
        map.classes[Class::Own as usize] = map.own.iter().map(|(_, disk)| disk).sum();
        map
    }

    /// The images by size, as their places in the usage.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    /// Each class with its bytes on disk.
    pub(super) fn classes(&self) -> [(Class, u64); 5] {
        Class::ALL.map(|class| (class, self.classes[class as usize]))
    }

    fn add_blobs(&mut self, usage: &'a Usage, rank: &[usize]) {
        let certain =
            usage.problems.is_empty() && usage.images.iter().all(|image| image.problem.is_none());
        let now = SystemTime::now();
        let mut groups = HashMap::new();
        let mut media_types = HashMap::new();
        let mut members = 0;
        for (n, blob) in usage.blobs.iter().enumerate() {
            let (class, label) = class(blob, certain, now);
            self.classes[class as usize] += blob.disk;
            let key = (class, label, &blob.images[..]);
            let at = *groups.entry(key).or_insert_with(|| {
                // The largest come first, so that what is put together is small.
                let full = self.groups.len() > MOST_SETS + self.images.len()
                    || members + blob.images.len() > MOST_MEMBERS;
                members += blob.images.len();
                let listed = blob.images.iter().map(|image| rank[*image]);
                let listed: Vec<_> = listed.filter(|at| !full && *at < MOST_IMAGES).collect();
                let (class, count) = (class.name(), blob.images.len());
                let (blobs, smaller) = (Vec::new(), (0, 0));
                self.groups.push(Group { label, class, images: listed, count, blobs, smaller });
                self.groups.len() - 1
            });
            let group = &mut self.groups[at];
            if n >= MOST_BLOBS || group.blobs.len() >= MOST_OF_GROUP {
                group.smaller.0 += 1;
                group.smaller.1 += blob.disk;
                continue;
            }
            let media_type = blob.media_type.as_ref().map_or("", |it| it.as_str());
            let media_type = *media_types.entry(media_type).or_insert_with(|| {
                self.media_types.push(escape::line(media_type).into_owned());
                self.media_types.len() - 1
            });
            let role = human::role(blob.role);
            let role = self.roles.iter().position(|known| *known == role).unwrap_or_else(|| {
                self.roles.push(role);
                self.roles.len() - 1
            });
            let leased = u8::from(blob.leased);
            let BlobUsage { digest, size, disk, .. } = blob;
            group.blobs.push(Blob(digest, role, media_type, *size, *disk, leased));
        }
    }
}

fn class(blob: &BlobUsage, certain: bool, now: SystemTime) -> (Class, &'static str) {
    let young = || !now.duration_since(blob.modified).is_ok_and(|age| age >= GRACE);
    match blob.images.len() {
        1 => (Class::Unique, ""),
        2.. => (Class::Shared, ""),
        0 if blob.leased => (Class::Kept, "kept by a lease"),
        0 if !certain => (Class::Kept, "who keeps it cannot be told"),
        0 if young() => (Class::Kept, "new, kept for an hour"),
        0 => (Class::Garbage, "kept by nothing"),
    }
}

fn image(image: &layerstore::ImageUsage) -> Image<'_> {
    let names = image.refs.iter().take(MOST_NAMES);
    Image {
        digest: &image.digest,
        names: names.map(|name| escape::line(name).into_owned()).collect(),
        more_names: image.refs.len().saturating_sub(MOST_NAMES),
        total: image.total.disk,
        shared: image.shared.disk,
        frees: image.frees.disk,
        problem: image.problem.as_ref().map(|problem| escape::line(problem).into_owned()),
    }
}

/// What is no blob, by kind.
fn own(usage: &Usage) -> Vec<(&'static str, u64)> {
    let blobs = ["layers", "configs", "manifests", "indexes", "blobs"];
    let kinds = usage.kinds.named().into_iter();
    let own = kinds.filter(|(name, amount)| !blobs.contains(name) && amount.disk > 0);
    own.map(|(name, amount)| (kind_title(name), amount.disk)).collect()
}
