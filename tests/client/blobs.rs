//! Blobs, whole and in part.

use std::time::Duration;

use layerstore::Error;
use layerstore::fetch::{ByteRange, RegistryPull as _, is_transient};

use super::support::{Action, Fault, Registry};
use super::{SIZE, blob_error, client, fetch, read, run, with_blob, with_image};

#[test]
fn blobs_whole_and_in_part() {
    let registry = Registry::start();
    let (image, blob, bytes) = with_blob(&registry);
    let client = client(&registry);
    run(async {
        let body = client.blob(&image, &blob, None).await.unwrap();
        assert_eq!((body.start, body.total), (0, Some(SIZE)));
        assert_eq!(read(body).await.unwrap(), bytes);
        for range in [0..1, 500..1000, SIZE - 1..SIZE, 0..SIZE] {
            let expected = &bytes[range.start as usize..range.end as usize];
            let part = fetch(&client, &image, &blob, Some(range.clone().into())).await.unwrap();
            assert_eq!(part, (range.start, expected.to_vec()), "{range:?}");
        }
        let tail = fetch(&client, &image, &blob, Some((SIZE - 9..).into())).await.unwrap();
        assert_eq!(tail, (SIZE - 9, bytes[bytes.len() - 9..].to_vec()));
    });
    let ranges = registry.requests().into_iter().filter(|it| it.status == 206).count();
    assert_eq!(ranges, 5);
}

#[test]
fn a_range_outside_the_blob_is_not_asked_for() {
    let registry = Registry::start();
    let (image, blob, _) = with_blob(&registry);
    for range in [ByteRange::from(SIZE..), (5..5).into(), (0..SIZE + 1).into()] {
        let error = run(fetch(&client(&registry), &image, &blob, Some(range))).unwrap_err();
        assert!(matches!(error, Error::UnusableRange { .. }), "{error}");
    }
    assert_eq!(registry.requests().len(), 0);
}

#[test]
fn a_registry_that_ignores_ranges_sends_the_whole() {
    let registry = Registry::start();
    let (image, blob, bytes) = with_blob(&registry);
    registry.fault(Fault::on("GET", "/blobs/").then(Action::IgnoreRange));
    let whole = run(fetch(&client(&registry), &image, &blob, Some((50..).into()))).unwrap();
    assert_eq!(whole, (0, bytes));
}

#[test]
fn ranges_that_are_not_what_was_asked_for() {
    let set = |value: &str| Action::SetHeader("Content-Range".into(), value.into());
    let cases = [
        (Action::WrongOffset, "sent bytes=49-"),
        (Action::WrongTotal, "100001 bytes in all"),
        (Action::Multipart, "several parts"),
        (Action::PartialRange(10), "sent bytes=50-59"),
        (Action::no_content_range(), "without saying which"),
        (set("bytes 50-99999/*"), "cannot be read"),
        (set("bytes 50-99999"), "cannot be read"),
        (set("bytes 51-99999/100000"), "sent bytes=51-"),
        (set("bytes 50-99998/100000"), "sent bytes=50-99998"),
        (Action::AddHeader("Content-Range".into(), "bytes 50-99999/100000".into()), "which"),
        (Action::Short(10), "Content-Length of 10"),
        (Action::error(416, "RANGE_INVALID", "no"), "416"),
    ];
    for (action, reason) in cases {
        let error = blob_error(Some((50..).into()), &[action]);
        assert!(matches!(error, Error::UnusableRange { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{reason}: {error}");
        assert!(!is_transient(&error), "{error}");
    }
    let unasked = Action::status(206, &[("Content-Range", "bytes 0-9/100000")], "0123456789");
    assert!(matches!(blob_error(None, &[unasked]), Error::BadResponse { .. }));
}

#[test]
fn blobs_of_another_length() {
    let wrong = [
        vec![Action::Short(10)],
        vec![Action::Long(1)],
        vec![Action::Long(1), Action::Chunked],
        vec![Action::Long(1), Action::NoLength],
    ];
    for actions in wrong {
        let error = blob_error(None, &actions);
        assert!(matches!(error, Error::SizeMismatch { expected: SIZE, .. }), "{error}");
    }
    let error = blob_error(Some((50..).into()), &[Action::Long(1), Action::Chunked]);
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
}

#[test]
fn bodies_that_break_off_may_be_asked_for_again() {
    let breaks = [
        vec![Action::Close],
        vec![Action::CloseAfter(10)],
        vec![Action::CloseAfter(SIZE - 1)],
        vec![Action::ResetAfter(10)],
        vec![Action::ChunkedAbort(10)],
        vec![Action::Short(10), Action::NoLength],
        vec![Action::Short(10), Action::Chunked],
        vec![Action::Hold(10)],
        vec![Action::Delay(Duration::from_secs(60))],
        vec![Action::SlowHeaders(Duration::from_millis(100))],
    ];
    for actions in breaks {
        let error = blob_error(None, &actions);
        assert!(matches!(error, Error::Network { .. }), "{error:?}");
        assert!(is_transient(&error), "{error:?}");
    }
}

#[test]
fn packed_bodies_are_refused() {
    let error = blob_error(None, &[Action::Gzip]);
    assert!(matches!(error, Error::BadResponse { .. }), "{error}");
    let set = |value: &str| Action::SetHeader("Content-Encoding".into(), value.into());
    for value in ["br", "gzip, gzip", "identity, gzip", "unheard-of"] {
        let error = blob_error(Some((50..).into()), &[set(value)]);
        assert!(matches!(error, Error::BadResponse { .. }), "{error}");
    }

    let registry = Registry::start();
    let (image, _) = with_image(&registry);
    registry.fault(Fault::on("", "/manifests/").then(set("gzip")));
    let error = run(client(&registry).manifest(&image, None)).unwrap_err();
    assert!(matches!(error, Error::BadResponse { .. }), "{error}");
    registry.clear_faults();
    registry.fault(Fault::on("", "/manifests/").then(set("identity")));
    run(client(&registry).manifest(&image, None)).unwrap();
}
