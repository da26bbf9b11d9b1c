//! Servers that take their time, or ask for ours.

use std::time::Duration;

use crate::case::{Case, refused, well};
use crate::scene::SIZE;
use crate::support::{Action, Fault, Request};

/// Longer than any case may take.
const NEVER: Duration = Duration::from_secs(3600);

fn busy(status: u16, headers: &[(&str, &str)]) -> Action {
    Action::status(status, headers, "")
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        refused("headers a byte at a time", 6, "timed out", |scene| {
            scene.on_manifest(Action::SlowHeaders(Duration::from_millis(300)));
        })
        .impatient(),
        refused("no answer", 6, "timed out", |scene| scene.on_manifest(Action::Delay(NEVER)))
            .impatient(),
        refused("a body a byte at a time", 6, "it brought less than", |scene| {
            scene.on_layer(Action::Throttle(10));
        })
        .impatient(),
        refused("a standstill at 99 percent", 6, "timed out", |scene| {
            let layer = scene.layer();
            let is_range = |request: &Request| request.header("range").is_some();
            let still = Action::StallAfter(0, NEVER);
            scene.on(Fault::on("GET", &layer).when(is_range).then(still));
            let almost = Action::StallAfter(SIZE / 100 * 99, NEVER);
            scene.on(Fault::on("GET", &layer).then(almost));
        })
        .impatient(),
        refused("busy for ever, without a word for how long", 6, "answered 429", |scene| {
            scene.on_layer(busy(429, &[]));
        })
        .impatient(),
        refused("busy for a century", 6, "answered 429", |scene| {
            scene.on_layer(busy(429, &[("Retry-After", "3153600000")]));
        }),
        refused("busy until the year 9999", 6, "answered 503", |scene| {
            scene.on_layer(busy(503, &[("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT")]));
        }),
        refused("busy for a time that is no number", 6, "answered 429", |scene| {
            scene.on_layer(busy(429, &[("Retry-After", "99999999999999999999999")]));
        })
        .impatient(),
        well("busy for a moment", |scene| {
            let fault = Fault::on("GET", &scene.layer()).times(1);
            scene.on(fault.then(busy(429, &[("Retry-After", "0")])));
        }),
        refused("unavailable for ever", 6, "answered 503", |scene| {
            scene.on_manifest(busy(503, &[]));
        })
        .impatient(),
        refused("the connection is closed for ever", 6, "cannot", |scene| {
            scene.on_layer(Action::Close);
        })
        .impatient(),
    ]
}
