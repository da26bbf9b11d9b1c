//! `store df`.

use layerstore::{Amount, BlobStore, Usage};

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Output, Report};

pub(super) fn run(store: &BlobStore, out: &mut Output) -> Outcome {
    let usage = store.usage()?;
    out.report(&usage)?;
    let mut exit = Exit::Ok;
    for image in &usage.images {
        if let Some(problem) = &image.problem {
            let name = image.refs.first().map_or("<none>", String::as_str);
            out.error(format!("{name}: {problem}"));
            exit = Exit::Partial;
        }
    }
    Ok(exit)
}

impl Report for Usage {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        let titles = [
            Column::left("KIND"),
            Column::right("FILES"),
            Column::right("SIZE"),
            Column::right("ON DISK"),
        ];
        let row = |kind: &str, amount: &Amount| {
            let (size, disk) = (human::size(amount.size), human::size(amount.disk));
            [kind.to_owned(), amount.count.to_string(), size, disk]
        };
        let rows = [
            row("layers", &self.layers),
            row("configs and manifests", &self.metadata),
            row("of no image", &self.unreferenced),
            row("parts", &self.parts),
            row("derived", &self.derived),
            row("other", &self.other),
            row("total", &self.total),
        ];
        out.table(titles, &rows)?;
        if self.images.is_empty() {
            return Ok(());
        }
        out.line("")?;
        let titles = [
            Column::left("DIGEST"),
            Column::right("ON DISK"),
            Column::right("SHARED"),
            Column::right("UNSHARED"),
            Column::left("NAMES"),
        ];
        let rows: Vec<_> = self
            .images
            .iter()
            .map(|image| {
                let names = match image.refs.is_empty() {
                    true => "<none>".to_owned(),
                    false => image.refs.join(" "),
                };
                let [total, shared, unique] = [image.total, image.shared, image.unique]
                    .map(|amount| human::size(amount.disk));
                [human::short(&image.digest), total, shared, unique, names]
            })
            .collect();
        out.table(titles, &rows)
    }
}
