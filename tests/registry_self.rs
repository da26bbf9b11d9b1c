//! The test registry under test.
#[path = "support/mod.rs"]
mod support;

use support::{Image, Layer, Registry};

#[test]
fn it_starts_and_stops() {
    let registry = Registry::start();
    let image = Image::of(&[Layer::files(&[("etc/motd", b"hello")])]);
    registry.push("demo", "1", &image);
    assert_eq!(registry.requests().len(), 0);
}
