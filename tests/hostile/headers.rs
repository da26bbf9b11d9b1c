//! Bodies that were packed on their way, and headers that are not what they should be.

use std::io::Write as _;

use crate::case::{Case, refused, well};
use crate::support::{Action, Fault, media_type};

fn header(name: &str, value: &str) -> Action {
    Action::SetHeader(name.to_owned(), value.to_owned())
}

/// A gzipped GiB of zeros, which is a MiB, packed once more.
fn bomb() -> Vec<u8> {
    let pack = |bytes: &[u8], times: usize| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        (0..times).for_each(|_| packed.write_all(bytes).unwrap());
        packed.finish().unwrap()
    };
    pack(&pack(&vec![0; 1 << 20], 1024), 1)
}

pub(crate) fn encodings() -> Vec<Case> {
    const PACKED: &str = "Content-Encoding";
    vec![
        refused("gzip that was not asked for", 6, PACKED, |scene| scene.on_layer(Action::Gzip)),
        refused("brotli that was not asked for", 6, PACKED, |scene| {
            scene.on_layer(header("Content-Encoding", "br"));
        }),
        refused("an encoding that nobody knows", 6, PACKED, |scene| {
            scene.on_layer(header("Content-Encoding", "x-rot13"));
        }),
        refused("packed twice", 6, PACKED, |scene| {
            let fault = Fault::on("GET", &scene.layer()).then(Action::Gzip);
            scene.on(fault.then(Action::AddHeader("Content-Encoding".into(), "gzip".into())));
        }),
        refused("a manifest that unpacks to a GiB", 6, PACKED, |scene| {
            let headers =
                [("Content-Type", media_type::MANIFEST), ("Content-Encoding", "gzip, gzip")];
            scene.on_manifest(Action::status(200, &headers, bomb()));
        }),
        refused("a layer that unpacks to a GiB", 6, PACKED, |scene| {
            scene.on_layer(Action::status(200, &[("Content-Encoding", "gzip, gzip")], bomb()));
        }),
    ]
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        refused("a header of a MiB", 6, "cannot", |scene| {
            scene.on_manifest(Action::HugeHeader(1 << 20));
        })
        .impatient(),
        refused("ten thousand headers", 6, "cannot", |scene| {
            let mut fault = Fault::on("GET", "/manifests/1");
            for n in 0..10_000 {
                fault = fault.then(Action::AddHeader(format!("X-{n}"), "x".to_owned()));
            }
            scene.on(fault);
        })
        .impatient(),
        refused("headers of 100 KiB together", 6, "headers exceed", |scene| {
            let mut fault = Fault::on("GET", "/manifests/1");
            for n in 0..50 {
                fault = fault.then(Action::AddHeader(format!("X-{n}"), "x".repeat(2048)));
            }
            scene.on(fault);
        }),
        refused("a line break in a header", 6, "cannot", |scene| {
            scene.on_manifest(header("X-One", "a\r\nX Two: b"));
        })
        .impatient(),
        refused("two lengths", 6, "cannot", |scene| {
            scene.on_layer(Action::AddHeader("Content-Length".into(), "7".into()));
        })
        .impatient(),
        refused("a length beside chunks", 6, "it ended after byte", |scene| {
            let fault = Fault::on("GET", &scene.layer()).then(Action::Short(0));
            scene.on(fault.then(Action::Chunked).then(header("Content-Length", "200000")));
        })
        .impatient(),
        refused("the digest of something else", 7, "does not match its digest", |scene| {
            scene.on_manifest(Action::wrong_digest());
        }),
        refused("a digest that is none", 6, "digest", |scene| {
            scene.on_manifest(header("Docker-Content-Digest", "sha256:../../../etc/passwd"));
        }),
        refused("the type of something else", 1, "it was announced as", |scene| {
            scene.on_manifest(Action::content_type(media_type::INDEX));
        }),
        refused("a control character in a header", 6, "cannot", |scene| {
            scene.on_manifest(header("X-Bell", "\x07\x1b[2J"));
        })
        .impatient(),
        refused("a message that steers the terminal", 4, "answered 404", |scene| {
            scene.on_manifest(Action::error(404, "GONE\x1b[2J", "\x1b]0;owned\x07\r\n\u{9b}2J"));
        }),
        well("a header that says nothing", |scene| scene.on_layer(header("X-Empty", ""))),
    ]
}
