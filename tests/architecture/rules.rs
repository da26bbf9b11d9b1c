//! The rules, each a function from a source file to what it breaks.

use crate::source::{Named, Source};

#[derive(Debug, PartialEq)]
pub(crate) struct Violation {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// A module of the library, and the others that it may name. Which way imports run, and why, is
/// in docs/ARCHITECTURE.md.
const MODULES: [(&str, &[&str]); 7] = [
    ("error", &["oci"]),
    ("oci", &["error"]),
    ("sys", &["error"]),
    ("store", &["error", "oci", "sys"]),
    ("gc", &["error", "oci", "sys", "store"]),
    ("fetch", &["error", "oci", "sys", "store", "gc"]),
    // Doors for the fuzz targets, in no build but theirs and the unit tests'.
    ("fuzzing", &["fetch", "oci", "store"]),
];

/// Modules that are everyone's to name, so that handing on their names hides nothing.
const COMMON: [&str; 2] = ["error", "oci"];

/// The file system, and the platform under it.
const FILES: [&[&str]; 13] = [
    &["std", "fs"],
    &["std", "os", "unix", "fs"],
    &["std", "os", "linux"],
    &["tokio", "fs"],
    &["fs2"],
    &["memmap2"],
    &["rustix"],
    &["tempfile"],
    &["File", "open"],
    &["File", "options"],
    &["File", "create"],
    &["File", "create_new"],
    &["OpenOptions"],
];

/// What a library leaves to its caller: the terminal, the environment, the end of the process.
const SURROUNDINGS: [&[&str]; 6] = [
    &["std", "env"],
    &["std", "io", "stdin"],
    &["std", "io", "stdout"],
    &["std", "io", "stderr"],
    &["std", "process", "exit"],
    &["std", "process", "abort"],
];
const PRINTING: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

pub(crate) const MOST_LINES: usize = 450;

pub(crate) fn all(source: &Source) -> Vec<Violation> {
    [imports, unsafe_code, files, surroundings, length]
        .iter()
        .flat_map(|rule| rule(source))
        .collect()
}

/// Imports run one way; no module hands on what is another's; nothing goes round the modules.
pub(crate) fn imports(source: &Source) -> Vec<Violation> {
    let module = source.module();
    if !is_product(source) || module == "bin" {
        return Vec::new();
    }
    if module == "lib" {
        return around_modules(source);
    }
    let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module) else {
        let what = format!(
            "`{module}` is not on the map: give it its place in tests/architecture/rules.rs"
        );
        return vec![source.violation(1, what)];
    };
    let mut found = around_modules(source);
    for named in source.named() {
        let ["crate", rest @ ..] = &named.words()[..] else { continue };
        let target = rest.first().copied().unwrap_or("*");
        if target == module {
            continue;
        }
        let what = if !MODULES.iter().any(|(name, _)| *name == target) {
            format!("`{}` does not say which module it is from: name that module", named.text())
        } else if !allowed.contains(&target) {
            format!("`{module}` must not know `{target}`: it may name only {}", allowed.join(", "))
        } else if named.exported && !COMMON.contains(&target) {
            format!(
                "`{module}` hands on `{}`, which hides that it is from `{target}`",
                named.text()
            )
        } else {
            continue;
        };
        found.push(source.violation(named.line, what));
    }
    found
}

/// What would make the paths of a file mean something else than they say.
fn around_modules(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let words = |at: usize| -> Vec<&str> {
        source.product.iter().skip(at).take(4).map(|token| token.text.as_str()).collect()
    };
    for (at, token) in source.product.iter().enumerate() {
        let what = match words(at)[..] {
            ["#", "[", "path", ..] => "`#[path]` puts a file where its place does not show",
            ["include", "!", ..] => "`include!` puts a file where its place does not show",
            ["extern", "crate", ..] => "`extern crate` renames the root",
            _ => continue,
        };
        found.push(source.violation(token.line, what.to_string()));
    }
    found
}

/// `unsafe` stands in `src/sys` alone.
pub(crate) fn unsafe_code(source: &Source) -> Vec<Violation> {
    if source.module() == "sys" {
        return Vec::new();
    }
    let found = source.all.iter().filter(|token| token.text == "unsafe");
    found
        .map(|token| source.violation(token.line, "`unsafe` outside src/sys".to_string()))
        .collect()
}

/// Files are opened, locked, synced and renamed in `src/sys` alone; the command may read its input.
/// The type of an open file may be named: it comes from `sys`.
pub(crate) fn files(source: &Source) -> Vec<Violation> {
    if !is_product(source) || matches!(source.module(), "sys" | "bin") {
        return Vec::new();
    }
    let found = source.named().into_iter().filter(|named| {
        let is_type = named.words() == ["std", "fs", "File"] && !named.renamed;
        !is_type && FILES.iter().any(|path| named.reaches(path))
    });
    let violation =
        |named: Named| source.violation(named.line, format!("`{}` outside src/sys", named.text()));
    found.map(violation).collect()
}

/// The library prints nothing and reads no environment.
pub(crate) fn surroundings(source: &Source) -> Vec<Violation> {
    if !is_product(source) || source.module() == "bin" {
        return Vec::new();
    }
    let named = source.named().into_iter().filter(|named| {
        let constant = named.words().starts_with(&["std", "env", "consts"]);
        !constant && SURROUNDINGS.iter().any(|path| named.reaches(path))
    });
    let printed = source
        .product
        .windows(2)
        .filter(|pair| PRINTING.contains(&pair[0].text.as_str()) && pair[1].text == "!");
    let named = named.map(|named| (named.line, named.text()));
    let printed = printed.map(|pair| (pair[0].line, format!("{}!", pair[0].text)));
    let both = named.chain(printed);
    both.map(|(line, what)| source.violation(line, format!("`{what}` in the library"))).collect()
}

/// A file is short enough for one reading.
pub(crate) fn length(source: &Source) -> Vec<Violation> {
    if source.lines <= MOST_LINES {
        return Vec::new();
    }
    vec![
        source.violation(MOST_LINES + 1, format!("{} lines, more than {MOST_LINES}", source.lines)),
    ]
}

fn is_product(source: &Source) -> bool {
    source.path.starts_with("src/")
}

impl Source {
    fn violation(&self, line: usize, what: String) -> Violation {
        Violation { path: self.path.clone(), line, what }
    }
}

impl Named {
    fn words(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    fn text(&self) -> String {
        self.segments.join("::")
    }

    /// Whether this path goes through `target`, or opens a way to it that later paths do not show.
    fn reaches(&self, target: &[&str]) -> bool {
        let words = self.words();
        // `io::stdout` after `use std::io`.
        let after_import = &target[if target.len() > 2 { target.len() - 2 } else { 0 }..];
        if words.starts_with(target) || words.starts_with(after_import) {
            return true;
        }
        let (last, before) = words.split_last().expect("a path has a segment");
        (*last == "*" && target.starts_with(before)) || (self.renamed && target.starts_with(&words))
    }
}
