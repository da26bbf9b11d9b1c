//! The page of `df --html`: one file that a browser shows without anything else.
//!
//! Names are those of strangers. In the page's own HTML they stand escaped; to its script they come
//! as JSON in which no `<` is left, and it makes nothing but text of them. A policy permits the one
//! script and the one style by their hashes, and no request to anybody.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use layerstore::oci::Algorithm;
use layerstore::{Error, Usage};
use serde::Serialize;

use super::kind_title;
use super::map::{self, Class, Map};
use crate::escape;
use crate::exit::Failure;
use crate::human;
use crate::output::Output;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// How many images the table has. Programs take `--json`.
const MOST_ROWS: usize = 2000;
/// How many names of an image it has.
const MOST_NAMES: usize = 8;

/// Writes the page to a file as a whole, or to the standard output.
pub(super) fn write(
    root: &Path,
    usage: &Usage,
    path: &Path,
    out: &mut Output,
) -> Result<(), Failure> {
    let page = page(root, usage)?;
    if path.as_os_str() == "-" {
        return out.bytes(page.as_bytes());
    }
    replace(root, path, page.as_bytes())
}

/// Puts the bytes into a file aside, and that into the place of one that is there.
fn replace(root: &Path, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |source: io::Error| {
        let (action, path) = ("write", path.to_path_buf());
        Failure::Store(match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::NoSpace { action, path, needed: None, available: None }
            }
            _ => Error::Io { action, path, source },
        })
    };
    // A device takes what is written; a file put into its place would be no device.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
        return fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(failed);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = fs::canonicalize(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    if fs::canonicalize(root).is_ok_and(|root| parent.starts_with(root)) {
        let path = path.display();
        return Err(Failure::Usage(format!("{path} lies in the store, which the page is about")));
    }
    let mut aside = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(parent)
        .map_err(failed)?;
    aside.write_all(bytes).map_err(failed)?;
    aside.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn page(root: &Path, usage: &Usage) -> Result<String, Failure> {
    let map = Map::of(usage);
    let data = json(&map)?;
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    let images = usage.images.len();
    let more = match images.saturating_sub(MOST_ROWS) {
        0 => String::new(),
        more => format!("<p class=\"muted\">{more} smaller ones: <code>store df --json</code></p>"),
    };
    Ok(fill(
        TEMPLATE,
        &[
            ("policy", policy),
            ("root", html(&whole_path(root))),
            ("made", made()),
            ("style", STYLE.to_owned()),
            ("script", SCRIPT.to_owned()),
            ("data", data),
            ("total", human::size(usage.total.disk)),
            ("reclaimable", human::size(usage.reclaimable.disk)),
            ("images", images.to_string()),
            ("bar", bar(&map)),
            ("legend", legend(&map)),
            ("problems", problems(usage)),
            ("rows", rows(usage, &map)),
            ("more", more),
            ("kinds", kinds(usage)),
        ],
    ))
}

/// Puts values in the place of `{{names}}`, each looked for in the template alone: what is in a
/// value stays as it is.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        let value = values.iter().find(|(known, _)| *known == name);
        debug_assert!(value.is_some(), "nothing is known of {name:?}");
        filled.push_str(value.map_or("", |(_, value)| value));
        rest = after;
    }
    filled + rest
}

/// A source of the policy (Content Security Policy Level 3, section 6.7.3).
fn hash(text: &str) -> String {
    let digest = Algorithm::Sha256.digest(text.as_bytes());
    format!("'sha256-{}'", STANDARD.encode(digest.as_bytes()))
}

/// JSON that cannot end the element that it stands in, nor begin a comment in it.
fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::Output(error.into()))?;
    Ok(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

/// Text between tags, or in quotes, with what hides or reorders text made visible.
fn html(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in escape::line(text).chars() {
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '"' => shown.push_str("&quot;"),
            '\'' => shown.push_str("&#39;"),
            c => shown.push(c),
        }
    }
    shown
}

fn whole_path(root: &Path) -> String {
    fs::canonicalize(root).unwrap_or_else(|_| root.to_path_buf()).display().to_string()
}

fn made() -> String {
    let now = i64::try_from(human::unix(SystemTime::now())).ok();
    let now = now.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    now.map_or(String::new(), |now| now.strftime("%-d %B %Y, %H:%M UTC").to_string())
}

fn bar(map: &Map<'_>) -> String {
    let total = map.classes().iter().map(|(_, disk)| *disk).sum::<u64>().max(1);
    let per_mille = |disk: u64| disk as f64 * 1000.0 / total as f64;
    let mut x = 0.0;
    let mut bar = String::new();
    for (class, disk) in map.classes() {
        let width = per_mille(disk);
        let name = class.name();
        bar += &format!("<rect class=\"{name}\" x=\"{x:.3}\" width=\"{width:.3}\" height=\"10\"/>");
        x += width;
    }
    bar
}

fn legend(map: &Map<'_>) -> String {
    let item = |(class, disk): (Class, u64)| {
        let (name, title, size) = (class.name(), class.title(), human::size(disk));
        let mark = format!(
            "<svg class=\"{name}\" viewBox=\"0 0 1 1\" aria-hidden=\"true\"><rect width=\"1\" height=\"1\"/></svg>"
        );
        format!("<li>{mark}{title} <b>{size}</b></li>")
    };
    map.classes().into_iter().map(item).collect()
}

fn problems(usage: &Usage) -> String {
    let image = |image: &layerstore::ImageUsage| {
        let name = image.refs.first().map_or("<none>", String::as_str);
        image.problem.as_ref().map(|problem| format!("{name}: {problem}"))
    };
    let images = usage.images.iter().filter_map(image);
    let all = images.chain(usage.problems.iter().cloned());
    all.take(20).map(|problem| format!("<p class=\"note\">{}</p>\n", html(&problem))).collect()
}

fn rows(usage: &Usage, map: &Map<'_>) -> String {
    let cell = |class: &str, disk: u64| {
        format!("<td class=\"{class}\" data-bytes=\"{disk}\">{}</td>", human::size(disk))
    };
    let row = |(rank, n): (usize, &usize)| {
        let image = &usage.images[*n];
        let mut names: String = image
            .refs
            .iter()
            .take(MOST_NAMES)
            .map(|name| format!("<bdi>{}</bdi>", html(name)))
            .collect();
        if names.is_empty() {
            names = "<bdi>no name</bdi>".to_owned();
        }
        if let more @ 1.. = image.refs.len().saturating_sub(MOST_NAMES) {
            names += &format!("<small>and {}</small>", human::count(more as u64, "more name"));
        }
        format!(
            "<tr data-image=\"{rank}\"><td>{names}<small>{}</small></td>{}{}{}{}</tr>\n",
            map::short(&image.digest),
            cell("n", image.total.disk),
            cell("n wide", image.shared.disk),
            cell("n wide", image.unique.disk),
            cell("n", image.frees.disk),
        )
    };
    map.order().iter().take(MOST_ROWS).enumerate().map(row).collect()
}

fn kinds(usage: &Usage) -> String {
    let row = |(name, amount): (&'static str, layerstore::Amount)| {
        let (title, disk) = (kind_title(name), human::size(amount.disk));
        let count = amount.count;
        format!(
            "<tr><td>{title}</td><td class=\"n\">{count}</td><td class=\"n\">{disk}</td></tr>\n"
        )
    };
    usage.kinds.named().into_iter().filter(|(_, amount)| amount.count > 0).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_looked_into() {
        let values = [("a", "{{b}}".to_owned()), ("b", "x".to_owned())];
        assert_eq!(fill("1 {{a}} 2 {{b}} 3", &values), "1 {{b}} 2 x 3");
    }

    #[test]
    fn the_template_and_its_parts_do_not_end_early() {
        assert!(!SCRIPT.to_lowercase().contains("</script") && !SCRIPT.contains("<!--"));
        assert!(!STYLE.to_lowercase().contains("</style"));
        assert_eq!(SCRIPT.matches("innerHTML").count() + SCRIPT.matches("eval").count(), 0);
    }

    #[test]
    fn nothing_in_a_name_is_markup() {
        let name = "</script><script>alert(1)</script>\u{202e}'\"&";
        let escaped =
            "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}&#39;&quot;&amp;";
        assert_eq!(html(name), escaped);
        let data = json(&name).unwrap();
        assert!(!data.contains(['<', '>', '&']), "{data}");
        assert_eq!(serde_json::from_str::<String>(&data).unwrap(), name);
    }
}
