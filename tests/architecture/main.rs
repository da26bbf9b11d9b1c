//! What the compiler does not check about the shape of the crate: the direction of imports, and
//! which module may do what. Each rule is tried on planted violations first, so that it is known
//! to be able to fail.

mod lexer;
mod planted;
mod rules;
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;

use rules::Violation;
use source::Source;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["src", "tests", "examples", "benches", "fuzz/fuzz_targets", "model/src"] {
        rust_files(&root().join(folder), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        Source::new(path.strip_prefix(root()).unwrap().to_str().unwrap(), &text)
    };
    paths.into_iter().map(read).collect()
}

/// What is broken in a set of files. A file that only tests include is a test.
fn violations(mut sources: Vec<Source>) -> Vec<Violation> {
    let tests: Vec<Vec<String>> =
        sources.iter().flat_map(|source| source.test_modules.clone()).collect();
    for source in &mut sources {
        let modules = source.modules();
        if source.path.starts_with("src/") && tests.iter().any(|test| modules.starts_with(test)) {
            source.product.clear();
        }
    }
    sources.iter().flat_map(rules::all).collect()
}

#[test]
fn the_crate_keeps_its_shape() {
    let sources = sources();
    assert!(
        sources.iter().any(|source| source.path == "src/lib.rs"),
        "no sources found in {}",
        root().display()
    );
    let broken: Vec<String> = violations(sources).iter().map(Violation::to_string).collect();
    assert!(broken.is_empty(), "{} rules are broken:\n{}", broken.len(), broken.join("\n"));
}

/// The crates that the library is built from with these features.
fn dependencies(features: &[&str]) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args(features)
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().filter_map(|line| line.split(' ').next()).map(str::to_string).collect()
}

#[test]
fn the_core_is_built_without_the_network() {
    let network = ["tokio", "reqwest", "hyper", "rustls"];
    let core = dependencies(&["--no-default-features"]);
    assert!(core.iter().any(|name| name == "sha2"), "cargo tree listed {core:?}");
    let found: Vec<_> = core.iter().filter(|name| network.contains(&name.as_str())).collect();
    assert!(found.is_empty(), "the core is built with {found:?}");
    // The same question about the whole crate has to find them.
    let all = dependencies(&["--all-features"]);
    assert!(
        network.iter().all(|name| all.iter().any(|listed| listed == name)),
        "cargo tree listed {all:?}"
    );
}
