//! `store df`.

mod map;
mod page;

use layerstore::{Amount, BlobStore, BlobUsage, Usage};
use serde::Serialize;

use super::Outcome;
use crate::args::Df;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Output, Report};

pub(super) fn run(store: &BlobStore, args: &Df, verbose: bool, out: &mut Output) -> Outcome {
    let usage = store.usage()?;
    match &args.html {
        Some(path) => page::write(store.root(), &usage, path, out)?,
        None => out.report(&Shown::of(&usage, verbose))?,
    }
    let mut exit = Exit::Ok;
    for image in &usage.images {
        if let Some(problem) = &image.problem {
            let name = image.refs.first().map_or("<none>", String::as_str);
            out.error(format!("{name}: {problem}"));
            exit = Exit::Partial;
        }
    }
    for problem in &usage.problems {
        out.error(problem);
        exit = Exit::Partial;
    }
    Ok(exit)
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    usage: &'a Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    blobs: Option<Vec<Row<'a>>>,
}

/// A blob, as JSON has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    digest: String,
    kind: &'static str,
    media_type: Option<&'a str>,
    size: u64,
    disk: u64,
    group_hashes: u64,
    /// How many images have it.
    images: usize,
    /// How many names these have.
    refs: usize,
    leased: bool,
    modified: u64,
}

impl<'a> Shown<'a> {
    fn of(usage: &'a Usage, verbose: bool) -> Shown<'a> {
        let row = |blob: &'a BlobUsage| Row {
            digest: blob.digest.to_string(),
            kind: human::role(blob.role),
            media_type: blob.media_type.as_ref().map(|media_type| media_type.as_str()),
            size: blob.size,
            disk: blob.disk,
            group_hashes: blob.group_hashes,
            images: blob.images.len(),
            refs: blob.images.iter().map(|n| usage.images[*n].refs.len()).sum(),
            leased: blob.leased,
            modified: human::unix(blob.modified),
        };
        Shown { usage, blobs: verbose.then(|| usage.blobs.iter().map(row).collect()) }
    }
}

impl Report for Shown<'_> {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        kinds(self.usage, out)?;
        if !self.usage.images.is_empty() {
            out.line("")?;
            images(self.usage, out)?;
        }
        if self.blobs.is_some() {
            out.line("")?;
            blobs(self.usage, out)?;
        }
        Ok(())
    }
}

/// How people call what JSON calls so.
fn kind_title(name: &'static str) -> &'static str {
    match name {
        "blobs" => "other blobs",
        "groupHashes" => "group hashes",
        name => name,
    }
}

fn kinds(usage: &Usage, out: &mut Output) -> Result<(), Failure> {
    let titles = [
        Column::left("KIND"),
        Column::right("FILES"),
        Column::right("SIZE"),
        Column::right("ON DISK"),
    ];
    let row = |title: &str, amount: &Amount| {
        let (size, disk) = (human::size(amount.size), human::size(amount.disk));
        [title.to_owned(), amount.count.to_string(), size, disk]
    };
    let kinds = usage.kinds.named();
    let mut rows: Vec<_> =
        kinds.iter().map(|(name, amount)| row(kind_title(name), amount)).collect();
    rows.push(row("total", &usage.total));
    out.table(titles, &rows)?;
    out.line("")?;
    let titles = [
        Column::left("BLOBS KEPT"),
        Column::right("FILES"),
        Column::right("SIZE"),
        Column::right("ON DISK"),
    ];
    let rows = [
        row("by names", &usage.kept.refs),
        row("by leases alone", &usage.kept.leases),
        row("for an hour, being new", &usage.kept.young),
        row("reclaimable now", &usage.reclaimable),
    ];
    out.table(titles, &rows)
}

fn images(usage: &Usage, out: &mut Output) -> Result<(), Failure> {
    let titles = [
        Column::left("DIGEST"),
        Column::right("ON DISK"),
        Column::right("SHARED"),
        Column::right("UNSHARED"),
        Column::right("FREES"),
        Column::left("NAMES"),
    ];
    let rows: Vec<_> = usage
        .images
        .iter()
        .map(|image| {
            let names = match image.refs.is_empty() {
                true => "<none>".to_owned(),
                false => image.refs.join(" "),
            };
            let amounts = [image.total, image.shared, image.unique, image.frees];
            let [total, shared, unique, frees] = amounts.map(|amount| human::size(amount.disk));
            [human::short(&image.digest), total, shared, unique, frees, names]
        })
        .collect();
    out.table(titles, &rows)
}

fn blobs(usage: &Usage, out: &mut Output) -> Result<(), Failure> {
    let titles = [
        Column::left("DIGEST"),
        Column::left("KIND"),
        Column::right("SIZE"),
        Column::right("ON DISK"),
        Column::right("IMAGES"),
        Column::right("AGE"),
        Column::left("MEDIA TYPE"),
    ];
    let rows: Vec<_> = usage
        .blobs
        .iter()
        .map(|blob| {
            let media_type = blob.media_type.as_ref().map_or("", |media_type| media_type.as_str());
            [
                blob.digest.to_string(),
                human::role(blob.role).to_owned(),
                human::size(blob.size),
                human::size(blob.disk),
                blob.images.len().to_string(),
                human::age(blob.modified),
                media_type.to_owned(),
            ]
        })
        .collect();
    out.table(titles, &rows)
}
