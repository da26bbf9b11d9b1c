//! Each rule against what it has to catch, and against what it must let pass.

use crate::rules::MOST_LINES;
use crate::source::Source;
use crate::violations;

/// The lines of the violations found in `text` if it stood at `path`.
#[track_caller]
fn caught(path: &str, text: &str) -> Vec<usize> {
    let found = violations(vec![Source::new(path, text)]);
    assert!(found.iter().all(|violation| violation.path == path));
    let mut lines: Vec<usize> = found.iter().map(|violation| violation.line).collect();
    lines.dedup();
    lines
}

#[test]
fn each_module_knows_only_those_below_it() {
    let allowed = [
        ("error", "oci"),
        ("oci", "error"),
        ("sys", "error"),
        ("store", "error oci sys"),
        ("gc", "error oci sys store"),
        ("fetch", "error oci sys store gc"),
    ];
    for (module, allowed) in allowed {
        for target in ["error", "oci", "sys", "store", "gc", "fetch"] {
            let fine = target == module || allowed.split(' ').any(|name| name == target);
            let text = format!("use crate::{target}::Thing;");
            for path in [
                format!("src/{module}.rs"),
                format!("src/{module}/mod.rs"),
                format!("src/{module}/a/b.rs"),
            ] {
                assert_eq!(caught(&path, &text).is_empty(), fine, "{path}: {text}");
            }
        }
    }
}

#[test]
fn an_import_is_seen_in_every_form() {
    let forms = [
        "use crate::fetch::Puller;",
        "use crate::{error::Error, fetch::{Puller, Plan}};",
        "use crate::{\n    error::Error,\n    fetch,\n};",
        "use crate::fetch as f;",
        "use super::super::fetch::Puller;",
        "use super::super::{fetch::*};",
        "use self::super::super::fetch;",
        "pub(crate) use crate::fetch::Puller;",
        "fn f() -> crate::fetch::Puller { todo }",
        "fn f() { crate::fetch::pull(); }",
        "fn f() { g::<crate::fetch::Puller>() }",
        "fn f() { println_like!(\"{}\", crate::fetch::NAME); }",
        "macro_rules! m { () => { $crate::fetch::pull() }; }",
        "impl crate::fetch::Registry for X {}",
        "mod inner { use super::super::super::fetch::Puller; }",
        "mod inner { mod more {} fn f() { super::super::super::fetch::f() } }",
        "#[derive(Debug)]\nstruct X(crate::fetch::Plan);",
        "use r#crate::fetch::Puller;",
        "use /* here */ crate // and there\n    ::fetch::Puller;",
    ];
    for text in forms {
        assert_eq!(caught("src/store/blob.rs", text).len(), 1, "{text}");
    }
    assert_eq!(
        caught(
            "src/store/blob.rs",
            "use crate::oci::Digest;\n\nuse crate::{\n  oci::A,\n  gc::B,\n};"
        ),
        [5]
    );
}

#[test]
fn the_root_of_the_crate_is_no_way_round() {
    for text in [
        "use crate::*;",
        "use crate::Puller;",
        "use crate as root;",
        "use super::super::*;",
        "fn f() { crate::pull() }",
    ] {
        assert_eq!(caught("src/store/blob.rs", text), [1], "{text}");
    }
    assert_eq!(caught("src/oci/mod.rs", "use super::*;"), [1]);
    assert_eq!(caught("src/oci/digest.rs", "use super::*;"), []);
    assert_eq!(caught("src/gc/mod.rs", "pub(crate) use crate::store::Lease;"), [1]);
    assert_eq!(
        caught("src/gc/mod.rs", "pub use crate::oci::Digest;\nuse crate::store::Lease;"),
        []
    );
    assert_eq!(caught("src/util.rs", "fn f() {}"), [1], "a module that is not on the map");
    assert_eq!(caught("src/oci/mod.rs", "#[path = \"../fetch/mod.rs\"] mod other;"), [1]);
    assert_eq!(caught("src/oci/mod.rs", "include!(\"../fetch/mod.rs\");"), [1]);
    assert_eq!(caught("src/lib.rs", "extern crate self as layerstore;"), [1]);
}

#[test]
fn what_is_no_import_is_let_pass() {
    let text = r##"
        //! [`Error`](crate::fetch::Error), use crate::fetch::Puller;
        /* use crate::fetch; */
        const A: &str = "use crate::fetch::Puller; unsafe { std::fs::read() }";
        const B: &str = r#"println!("crate::fetch") "#;
        use fetching::crate_fetch;
        use oci_spec::image::fetch;
        fn f<'unsafe_ish>(fetch: &'unsafe_ish str) -> char { 'u' }
        fn g() -> impl Iterator + use<'_> { self::helper(); fetch.fetch() }
        pub(in crate::store) fn h() {}
    "##;
    assert_eq!(caught("src/store/blob.rs", text), []);
    assert_eq!(
        caught("src/lib.rs", "mod fetch;\npub use fetch::Puller;\npub use crate::gc::collect;"),
        []
    );
    assert_eq!(
        caught(
            "src/bin/store/main.rs",
            "mod output;\nuse crate::output::print;\nuse layerstore::Puller;"
        ),
        []
    );
}

#[test]
fn tests_may_know_everything() {
    let text = "#[cfg(test)]\nmod tests {\n    use crate::fetch::Puller;\n    fn f() { std::fs::read(x); }\n}\nuse crate::gc::A;";
    assert_eq!(caught("src/store/blob.rs", text), [6], "what follows the tests is checked again");
    assert_eq!(
        caught(
            "src/store/blob.rs",
            "#[cfg(test)]\n#[allow(unused)]\nuse crate::gc::A;\nuse crate::gc::B;"
        ),
        [4]
    );
    assert_eq!(
        caught(
            "src/store/blob.rs",
            "struct S {\n #[cfg(test)] a: crate::gc::A,\n b: crate::gc::B }"
        ),
        [3]
    );
    assert_eq!(
        caught(
            "src/store/blob.rs",
            "#[cfg(test)]\nfn f<A, B>() -> crate::gc::A {}\nuse crate::gc::B;"
        ),
        [3]
    );
    for other in ["#[cfg(not(test))]", "#[cfg(any(test, unix))]", "#[cfg(unix)]"] {
        assert_eq!(
            caught("src/store/blob.rs", &format!("{other}\nuse crate::gc::A;")),
            [2],
            "{other}"
        );
    }
    let found = violations(vec![
        Source::new("src/store/mod.rs", "mod blob;\n#[cfg(test)]\nmod tests;"),
        Source::new("src/store/tests.rs", "use crate::gc::A;"),
        Source::new("src/store/tests/more.rs", "fn f() { std::fs::read(x) }"),
        Source::new("src/store/blob.rs", "use crate::gc::A;"),
    ]);
    assert_eq!(
        found.iter().map(|violation| violation.path.as_str()).collect::<Vec<_>>(),
        ["src/store/blob.rs"]
    );
}

#[test]
fn unsafe_stands_in_sys_alone() {
    for path in [
        "src/lib.rs",
        "src/store/blob.rs",
        "src/bin/store/main.rs",
        "tests/crash.rs",
        "examples/quickstart.rs",
    ] {
        assert_eq!(caught(path, "fn f() {\n    unsafe { g() }\n}"), [2], "{path}");
        assert_eq!(
            caught(path, "#[cfg(test)]\nmod tests {\n    unsafe fn f() {}\n}"),
            [3],
            "{path}"
        );
    }
    assert_eq!(caught("src/sys/map.rs", "fn f() { unsafe { g() } }"), []);
    assert_eq!(caught("src/store/blob.rs", "#![deny(unsafe_code)] // unsafe"), []);
}

#[test]
fn files_are_opened_in_sys_alone() {
    let forms = [
        "use std::fs;",
        "use std::{io, fs::Metadata};",
        "use std::fs::File as Opener;",
        "fn f() { std::fs::File::open(x); }",
        "use ::std::fs::read;",
        "use tokio::{fs, io};",
        "use std::os::unix::fs::OpenOptionsExt;",
        "use std::os::{fd, unix::fs::MetadataExt};",
        "use rustix::fs::fsync;",
        "use tempfile::NamedTempFile;",
        "fn f() { std::fs::read(x); }",
        "fn f() { ::std::fs::read(x); }",
        "fn f() { fs2::available_space(x); }",
        "fn f() { File::open(x); }",
        "fn f() { OpenOptions::new(); }",
        "fn f() { memmap2::Mmap::map(x); }",
    ];
    for text in forms {
        assert_eq!(caught("src/store/blob.rs", text), [1], "{text}");
        assert_eq!(caught("src/lib.rs", text), [1], "{text}");
        for path in
            ["src/sys/dir.rs", "src/bin/store/blob.rs", "tests/pull.rs", "examples/quickstart.rs"]
        {
            assert_eq!(caught(path, text), [], "{path}: {text}");
        }
    }
    for text in ["use std::*;", "use std as s;", "use std::{self as s};"] {
        assert_eq!(caught("src/store/blob.rs", text), [1], "{text}");
    }
    assert_eq!(
        caught(
            "src/store/blob.rs",
            "use std::fs::File;\nuse std::io::{self, Read};\nuse std::os::fd::OwnedFd;\nfn f() { self.fs.read() }"
        ),
        []
    );
}

#[test]
fn the_library_leaves_its_surroundings_alone() {
    let forms = [
        "fn f() { println!(\"\"); }",
        "fn f() { eprintln!(\"\"); }",
        "fn f() { std::eprint!(\"\"); }",
        "fn f() { dbg!(x); }",
        "fn f() { std::env::var(\"HOME\"); }",
        "use std::env;",
        "use std::{env::temp_dir, io};",
        "use std::io::stdout;",
        "use std::io::*;",
        "fn f() { io::stderr().lock(); }",
        "fn f() { std::process::exit(1) }",
        "fn f() { process::abort() }",
    ];
    for text in forms {
        assert_eq!(caught("src/gc/mark.rs", text), [1], "{text}");
        assert_eq!(caught("src/sys/dir.rs", text), [1], "{text}");
        for path in ["src/bin/store/main.rs", "tests/pull.rs", "examples/quickstart.rs"] {
            assert_eq!(caught(path, text), [], "{path}: {text}");
        }
    }
    let fine = "const A: &str = std::env::consts::ARCH;\nconst B: &str = env!(\"CARGO_PKG_VERSION\");\nfn f() { writeln!(out, \"println!\") }";
    assert_eq!(caught("src/oci/platform.rs", fine), []);
}

#[test]
fn no_file_outgrows_one_reading() {
    let longest = "\n".repeat(MOST_LINES);
    for path in ["src/store/blob.rs", "src/bin/store/main.rs", "tests/pull.rs"] {
        assert_eq!(caught(path, &longest), [], "{path}");
        assert_eq!(caught(path, &format!("{longest}\n")), [MOST_LINES + 1], "{path}");
    }
}
