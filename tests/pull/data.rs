//! Blobs that a descriptor has in itself.

use super::*;
use crate::support::{Layer, images, media_type as media};
use serde_json::json;

const HELLO: &str = "aGVsbG8=";

/// An image whose first layer is `hello`, with this in its descriptor.
fn embedding(data: &str) -> Image {
    let image = Image::of(&[Layer::blob(media::LAYER, b"hello"), Layer::generated(1, 1000)]);
    image.edited(|manifest| manifest["layers"][0]["data"] = json!(data))
}

#[test]
fn embedded_data_is_used_instead_of_a_request() {
    let world = World::new();
    let image = embedding(HELLO);
    world.registry.push("demo", "1", &image);
    world.registry.remove_blob(&image.layers[0].digest);
    let pulled = world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    world.assert_tidy(0);
    let asked = world.registry.requests();
    assert!(!asked.iter().any(|it| it.path.contains(&image.layers[0].digest)), "{asked:?}");
    assert_eq!((pulled.fetched_blobs, pulled.reused_blobs), (3, 1));
    assert!(world.store.check(&Default::default(), |_| {}).unwrap().is_sound());
}

#[test]
fn wrong_data_is_an_error_also_where_the_blob_is_there() {
    for (data, part) in [
        ("aGVsbG8", "not base64"),
        ("*", "not base64"),
        ("aGVsbA==", "length"),
        ("aGFsbG8=", "digest"),
    ] {
        for is_there in [false, true] {
            let world = World::new();
            if is_there {
                world.registry.push("demo", "0", &embedding(HELLO));
                world.pull("demo:0").unwrap();
            }
            world.registry.push("demo", "1", &embedding(data));
            let error = world.pull("demo:1").unwrap_err();
            let expected = match part {
                "length" => matches!(error, Error::SizeMismatch { .. }),
                "digest" => matches!(error, Error::DigestMismatch { .. }),
                _ => matches!(error, Error::InvalidDocument { digest: Some(_), .. }),
            };
            assert!(expected, "{data}: {error:?}");
            assert_eq!(world.store.refs().unwrap().len(), usize::from(is_there));
            world.assert_tidy(0);
        }
    }
}

#[test]
fn a_manifest_may_be_in_its_index() {
    let child = images::synthetic(&[100]);
    let text = |bytes: &[u8]| base64(bytes);
    let index = Image::index(std::slice::from_ref(&child))
        .edited(|index| index["manifests"][0]["data"] = json!(text(&child.manifest)));
    let world = World::new();
    world.registry.push("demo", "1", &index);
    world.registry.remove_manifest("demo", &child.digest);
    world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &index);

    let mut other = child.manifest.clone();
    other[0] = b' ';
    let lying = index.edited(|index| index["manifests"][0]["data"] = json!(text(&other)));
    let world = World::new();
    world.registry.push("demo", "1", &lying);
    let error = world.pull("demo:1").unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
}

/// RFC 4648, section 4: written anew, as a second opinion.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0, |word, n| word << 8 | u32::from(*chunk.get(n).unwrap_or(&0)));
        for n in 0..4 {
            match n <= chunk.len() {
                true => text.push(char::from(DIGITS[(word >> (18 - 6 * n)) as usize & 63])),
                false => text.push('='),
            }
        }
    }
    text
}
