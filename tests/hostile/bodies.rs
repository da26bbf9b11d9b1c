//! Bodies that are not what they should be: of a layer, since that is the most bytes.

use serde_json::json;

use crate::case::{Case, refused, well};
use crate::support::{Action, Fault};

const LENGTH: &str = "wrong length";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        refused("a byte of a layer is wrong", 7, "does not match its digest", |scene| {
            scene.on_layer(Action::Corrupt(150_000));
        }),
        refused("a byte of a manifest is wrong", 7, "does not match its digest", |scene| {
            scene.on_manifest(Action::Corrupt(3));
        }),
        refused("a layer is too short, and says so", 7, LENGTH, |scene| {
            scene.on_layer(Action::Short(100_000));
        }),
        refused("a layer is too long, and says so", 7, LENGTH, |scene| {
            scene.on_layer(Action::Long(1));
        }),
        refused("a layer is empty", 7, LENGTH, |scene| scene.on_layer(Action::Short(0))),
        well("a layer has no length, and all its bytes", |scene| scene.on_layer(Action::NoLength)),
        refused("a layer has no length, and breaks off", 6, "cannot read the answer", |scene| {
            let fault = Fault::on("GET", &scene.layer());
            scene.on(fault.then(Action::NoLength).then(Action::CloseAfter(0)));
        })
        .impatient(),
        refused("the length is no number", 6, "cannot", |scene| {
            let fault = Fault::on("GET", &scene.layer()).then(Action::NoLength);
            scene.on(fault.then(Action::SetHeader("Content-Length".into(), "20e4".into())));
        })
        .impatient(),
        refused("chunks break off", 6, "cannot read the answer", |scene| {
            scene.on_layer(Action::ChunkedAbort(0));
        })
        .impatient(),
        well("bytes trail the body", |scene| scene.on_layer(Action::Trailing(1000))),
        refused("more bytes than promised, without a length", 7, LENGTH, |scene| {
            let fault = Fault::on("GET", &scene.layer()).then(Action::Long(1));
            scene.on(fault.then(Action::NoLength));
        }),
        refused("a layer without end", 7, LENGTH, |scene| {
            let fault = Fault::on("GET", &scene.layer());
            scene.on(fault.then(Action::Long(1 << 50)).then(Action::NoLength));
        }),
        refused("chunks without end", 7, LENGTH, |scene| {
            let fault = Fault::on("GET", &scene.layer());
            scene.on(fault.then(Action::Long(1 << 50)).then(Action::Chunked));
        }),
        refused("a digest with the length of another algorithm", 1, "digest", |scene| {
            let hex = scene.layer()["sha256:".len()..].to_owned();
            scene.edited(|it| it["layers"][0]["digest"] = json!(format!("sha512:{hex}")));
        }),
    ]
}
