//! Manifests and indexes.

use std::time::Duration;

use layerstore::fetch::{RegistryPull as _, is_transient};
use layerstore::{Error, ErrorKind, Reference};

use super::support::{Action, Fault, Registry};
use super::{client, run, with_blob, with_image};

#[test]
fn manifests_by_tag_and_by_digest() {
    let registry = Registry::start();
    let (image, made) = with_image(&registry);
    let client = client(&registry);
    run(async {
        let by_tag = client.manifest(&image, None).await.unwrap();
        assert_eq!(by_tag.bytes, made.manifest);
        assert_eq!(by_tag.digest.to_string(), made.digest);
        assert_eq!(by_tag.media_type.as_str(), made.media_type);
        assert_eq!(client.resolve(&image).await.unwrap(), by_tag.descriptor());

        let by_digest = client.manifest(&image, Some(&by_tag.digest)).await.unwrap();
        assert_eq!(by_digest, by_tag);
        let both: Reference =
            format!("{}@{}", registry.reference("demo:gone"), made.digest).parse().unwrap();
        assert_eq!(client.manifest(&both, None).await.unwrap(), by_tag);
        assert_eq!(client.resolve(&both).await.unwrap(), by_tag.descriptor());
    });
}

#[test]
fn resolving_without_the_digest_header_takes_the_manifest() {
    for header in ["Docker-Content-Digest", "Content-Type"] {
        let registry = Registry::start();
        let (image, made) = with_image(&registry);
        let dropped = Action::DropHeader(header.to_owned());
        registry.fault(Fault::on("HEAD", "/manifests/").then(dropped));
        let resolved = run(client(&registry).resolve(&image)).unwrap();
        assert_eq!(resolved.digest.to_string(), made.digest, "{header}");
        assert_eq!(resolved.size, made.manifest.len() as u64, "{header}");
        let methods: Vec<_> = registry.requests().into_iter().map(|it| it.method).collect();
        assert_eq!(methods, ["HEAD", "GET"], "{header}");
    }
}

#[test]
fn manifests_with_another_digest_are_refused() {
    let registry = Registry::start();
    let (image, made) = with_image(&registry);
    let digest = made.digest.parse().unwrap();
    let client = client(&registry);
    let mismatch = |error: Error| matches!(error, Error::DigestMismatch { .. });

    let corrupt = registry.fault(Fault::on("GET", "/manifests/").then(Action::Corrupt(3)));
    assert!(mismatch(run(client.manifest(&image, Some(&digest))).unwrap_err()));
    assert!(mismatch(run(client.manifest(&image, None)).unwrap_err()), "by the header alone");
    corrupt.remove();

    registry.fault(Fault::on("", "/manifests/").then(Action::wrong_digest()));
    assert!(mismatch(run(client.manifest(&image, Some(&digest))).unwrap_err()));
    let by_digest = registry.reference(&format!("demo@{digest}")).parse().unwrap();
    assert!(mismatch(run(client.resolve(&by_digest)).unwrap_err()));
    registry.clear_faults();

    let nonsense = Action::SetHeader("Docker-Content-Digest".into(), "sha256:../../x".into());
    registry.fault(Fault::on("", "/manifests/").then(nonsense));
    let error = run(client.manifest(&image, None)).unwrap_err();
    assert!(matches!(error, Error::BadResponse { .. }), "{error}");
}

#[test]
fn manifests_beyond_the_limit_are_refused() {
    const MORE: u64 = 5 * 1024 * 1024;
    for actions in [vec![Action::Long(MORE)], vec![Action::Long(MORE), Action::Chunked]] {
        let registry = Registry::start();
        let (image, _) = with_image(&registry);
        let fault = actions.into_iter().fold(Fault::on("", "/manifests/"), Fault::then);
        registry.fault(fault);
        let error = run(client(&registry).manifest(&image, None)).unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 4_194_304, .. }), "{error}");
    }
}

#[test]
fn what_a_registry_says_becomes_the_error() {
    let registry = Registry::start();
    let (_, _) = with_image(&registry);
    let missing: Reference = registry.reference("demo:nope").parse().unwrap();
    for error in [
        run(client(&registry).manifest(&missing, None)).unwrap_err(),
        run(client(&registry).resolve(&missing)).map(|_| ()).unwrap_err(),
    ] {
        let Error::Registry { status: 404, errors, .. } = &error else { panic!("{error}") };
        assert_eq!(errors[0].code, "MANIFEST_UNKNOWN");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(!is_transient(&error));
        assert!(error.to_string().contains(&registry.url("/v2/demo/manifests/nope")), "{error}");
    }
}

#[test]
fn a_busy_registry_says_how_long_to_wait() {
    let registry = Registry::start();
    let (image, blob, _) = with_blob(&registry);
    let busy = Action::status(429, &[("Retry-After", "7")], "slow down");
    registry.fault(Fault::on("", "/v2/").then(busy));
    let client = client(&registry);
    for error in [
        run(client.resolve(&image)).map(|_| ()).unwrap_err(),
        run(client.blob(&image, &blob, None)).map(|_| ()).unwrap_err(),
    ] {
        assert!(is_transient(&error), "{error}");
        let Error::Registry { status: 429, retry_after, .. } = error else { panic!("{error}") };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }
}
