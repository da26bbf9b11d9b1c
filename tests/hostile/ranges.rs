//! A layer breaks off, and the rest of it is asked for by range.
//!
//! What cannot be used as that range is no reason to give up: the whole is asked for. And a layer is
//! large and comes by several connections, each of which asks for ranges.

use crate::case::{Case, refused, well};
use crate::scene::{PASSWORD, SIZE, Scene};
use crate::support::{Action, Bearer, Fault, Image, Layer, Registry, Request};

fn header(name: &str, value: impl Into<String>) -> Action {
    Action::SetHeader(name.to_owned(), value.into())
}

/// A layer that is large enough, and comes slowly enough, for several connections.
fn large(scene: &mut Scene) -> Fault {
    scene.image = Image::of(&[Layer::generated(9, 40 << 20)]);
    let bearer = Bearer::user("user", PASSWORD);
    scene.ask_another(Registry::builder().bearer(bearer).throttle(12 << 20));
    let is_range = |request: &Request| request.header("range").is_some();
    Fault::on("GET", &scene.layer()).when(is_range)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = continued();
    cases.extend(parallel());
    cases
}

fn parallel() -> Vec<Case> {
    vec![
        refused("wrong bytes on one of several connections", 7, "does not match", |scene| {
            let fault = large(scene).times(1);
            scene.on(fault.then(Action::Corrupt(1000)));
        }),
        well("another range on one of several connections", |scene| {
            let fault = large(scene).times(1);
            scene.on(fault.then(Action::WrongOffset));
        }),
        well("the whole on each of several connections", |scene| {
            let fault = large(scene);
            scene.on(fault.then(Action::IgnoreRange));
        }),
        well("several connections that break off again and again", |scene| {
            let fault = large(scene).times(6);
            scene.on(fault.then(Action::CloseAfter(1 << 20)));
        }),
    ]
}

fn continued() -> Vec<Case> {
    vec![
        well("the whole instead of the range", |scene| scene.on_rest(Action::IgnoreRange)),
        well("another range", |scene| scene.on_rest(Action::WrongOffset)),
        well("another total", |scene| scene.on_rest(Action::WrongTotal)),
        well("a range that does not say which", |scene| {
            scene.on_rest(Action::no_content_range());
        }),
        well("a Content-Range that makes no sense", |scene| {
            scene.on_rest(header("Content-Range", "bytes 199999-60000/18446744073709551616"));
        }),
        well("several parts", |scene| scene.on_rest(Action::Multipart)),
        well("no such range", |scene| {
            scene.on_rest(Action::status(416, &[("Content-Range", "bytes */1")], ""));
        }),
        well("more bytes than the range has", |scene| scene.on_rest(Action::Long(100))),
        well("a range of a blob that goes by another tag", |scene| {
            scene.on_rest(header("ETag", "\"another\""));
        }),
        refused("a range of another blob", 7, "does not match its digest", |scene| {
            scene.on_rest(Action::Corrupt(10));
        }),
        refused("ranges that never bring a byte", 6, "cannot read the answer", |scene| {
            scene.on_rest(Action::CloseAfter(0));
        })
        .impatient(),
        well("two ranges that overlap", |scene| {
            let layer = scene.layer();
            let is_range = |request: &Request| request.header("range").is_some();
            let overlap = format!("bytes 50000-{}/{SIZE}", SIZE - 1);
            let fault = Fault::on("GET", &layer).when(is_range);
            scene.on(fault.then(header("Content-Range", overlap)));
            scene.on(Fault::on("GET", &layer).times(1).then(Action::CloseAfter(60_000)));
        }),
        refused(
            "a range that was not asked for",
            6,
            "206 Partial Content makes no sense",
            |scene| {
                let range = format!("bytes 0-{}/{SIZE}", SIZE - 1);
                let whole = move |request: &Request| request.header("range").is_none();
                let fault = Fault::on("GET", &scene.layer()).when(whole);
                let answer = Action::status(206, &[("Content-Range", &range)], "short");
                scene.on(fault.then(answer));
            },
        ),
    ]
}
