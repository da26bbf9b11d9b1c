//! `store images`.

use std::num::NonZeroUsize;
use std::{panic, thread};

use layerstore::oci::{MediaType, Platform};
use layerstore::{BlobStore, Digest, Ref};
use serde::Serialize;

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::image::Image;
use crate::output::{Column, Output};

/// How many images are read before another thread pays.
const FEW: usize = 32;

/// One image, as the list has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: Option<String>,
    digest: Digest,
    media_type: MediaType,
    platforms: Vec<String>,
    /// Bytes of what is there.
    size: u64,
    blobs: u64,
    missing: u64,
    /// Foreign layers that are not there, which is no damage.
    foreign: u64,
    /// Whether the name is pinned.
    pinned: bool,
    /// When it was used last.
    last_used: Option<u64>,
    error: Option<String>,
}

impl Row {
    /// Reads the image of a ref; when it was used is looked for only if that is going to be told.
    fn new(store: &BlobStore, entry: &Ref, with_use: bool) -> Row {
        let mut row = Row {
            name: entry.name.clone(),
            digest: entry.descriptor.digest,
            media_type: entry.descriptor.media_type.clone(),
            platforms: Vec::new(),
            size: 0,
            blobs: 0,
            missing: 0,
            foreign: 0,
            pinned: entry.is_pinned(),
            last_used: None,
            error: None,
        };
        match with_use.then(|| store.last_used(&row.digest)).transpose() {
            Ok(last) => row.last_used = last.flatten().map(human::unix),
            Err(error) => row.error = Some(error.to_string()),
        }
        match Image::read(store, &entry.descriptor) {
            Ok(image) => {
                row.platforms = image.platforms(store).iter().map(Platform::to_string).collect();
                row.size = image.size();
                row.blobs = image.blobs();
                row.missing = image.missing();
                row.foreign = image.foreign();
            }
            Err(error) => row.error = Some(error.to_string()),
        }
        row
    }

    fn shown_name(&self) -> &str {
        self.name.as_deref().unwrap_or("<none>")
    }

    fn cells(&self) -> [String; 5] {
        let platforms = match self.platforms.is_empty() {
            true => "-".to_owned(),
            false => self.platforms.join(","),
        };
        let mark = match (&self.error, self.missing) {
            (Some(_), _) => "unreadable".to_owned(),
            (None, 0) if self.foreign > 0 => {
                format!("without {}", human::count(self.foreign, "foreign layer"))
            }
            (None, 0) => String::new(),
            (None, missing) => format!("incomplete: {} missing", human::count(missing, "blob")),
        };
        let mark = match (self.pinned, mark.is_empty()) {
            (false, _) => mark,
            (true, true) => "pinned".to_owned(),
            (true, false) => format!("pinned, {mark}"),
        };
        let name = self.shown_name().to_owned();
        [name, human::short(&self.digest), platforms, human::size(self.size), mark]
    }
}

pub(super) fn run(store: &BlobStore, out: &mut Output) -> Outcome {
    let mut rows = rows(store, &store.refs()?, out.is_json());
    rows.sort_by(|a, b| (&a.name, a.digest).cmp(&(&b.name, b.digest)));
    print(&rows, out)?;
    let mut exit = Exit::Ok;
    for row in &rows {
        if let Some(error) = &row.error {
            out.error(format!("{}: {error}", row.shown_name()));
            exit = Exit::Partial;
        }
    }
    Ok(exit)
}

/// A row for each, read on all processors: each takes reading and parsing of a few documents.
fn rows(store: &BlobStore, entries: &[Ref], with_use: bool) -> Vec<Row> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = entries.len().div_ceil(cores).max(FEW);
    let read = |entries: &[Ref]| -> Vec<Row> {
        entries.iter().map(|entry| Row::new(store, entry, with_use)).collect()
    };
    let (own, others) = entries.split_at(share.min(entries.len()));
    thread::scope(|scope| {
        let threads: Vec<_> =
            others.chunks(share).map(|entries| scope.spawn(move || read(entries))).collect();
        let mut rows = read(own);
        for thread in threads {
            rows.extend(thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload)));
        }
        rows
    })
}

fn print(rows: &[Row], out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.array(rows.iter().map(Ok));
    }
    let titles = [
        Column::left("NAME"),
        Column::left("DIGEST"),
        Column::left("PLATFORM"),
        Column::right("SIZE"),
        Column::left(""),
    ];
    let rows: Vec<_> = rows.iter().map(Row::cells).collect();
    out.table(titles, &rows)
}
