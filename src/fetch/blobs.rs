//! Blobs by HTTP: from which server, in which version, and which bytes of them.

use std::sync::Arc;

use reqwest::Method;

use super::blob_request::BlobRequest;
use super::http::Registries;
use super::origin::shown;
use super::relay::Relay;
use super::settings::Endpoint;
use super::{BlobBody, ByteRange};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Reference};

impl Registries {
    pub(super) async fn get_blob(
        self: &Arc<Self>,
        image: &Reference,
        blob: &Descriptor,
        range: Option<ByteRange>,
    ) -> Result<BlobBody> {
        let wanted = BlobRequest::new(blob, range)?;
        let elsewhere = match self.get_foreign(image, blob, &wanted).await {
            Some(Err(error)) if !matches!(error, Error::UnusableRange { .. }) => Some(error),
            Some(got) => return got,
            None => None,
        };
        match (self.get_from_registries(image, blob, range).await, elsewhere) {
            // That the registry has no such layer is as it should be.
            (Err(Error::Registry { status: 404, .. }), Some(error)) => Err(error),
            (got, _) => got,
        }
    }

    async fn get_from_registries(
        self: &Arc<Self>,
        image: &Reference,
        blob: &Descriptor,
        range: Option<ByteRange>,
    ) -> Result<BlobBody> {
        let mut attempts = self.attempts(image, Some(&blob.digest)).await?;
        while let Some(endpoint) = attempts.next() {
            match self.get_blob_at(&endpoint, blob, range).await {
                Ok(body) => {
                    self.ledger.served(image, &blob.digest, &endpoint);
                    if attempts.is_over() {
                        return Ok(body);
                    }
                    // A server that ignores ranges sends more than was asked for.
                    let end = range.filter(|range| range.start == body.start);
                    let end = end.and_then(|range| range.end).unwrap_or(blob.size);
                    let (registries, image, blob) = (Arc::clone(self), image.clone(), blob.clone());
                    return Ok(Relay { registries, attempts, image, blob }.over(body, end));
                }
                // Another server's bytes would not be of that version either.
                Err(error @ Error::BlobChanged { .. }) => return Err(error),
                Err(error) => attempts.failed(error),
            }
        }
        Err(attempts.into_error())
    }

    pub(super) async fn get_blob_at(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        range: Option<ByteRange>,
    ) -> Result<BlobBody> {
        let digest = &blob.digest;
        let mut wanted = BlobRequest::new(blob, range)?;
        wanted.of_versions(&self.ledger.versions(digest));
        let path = format!("blobs/{digest}");
        let answer = self.ask(endpoint, Method::GET, &path, &wanted.errand).await?;
        let url = shown(&answer.url);
        let body = wanted.body(answer).await?;
        if let Some(version) = &body.version {
            if range.is_none() {
                self.ledger.forget_version(digest, &version.origin);
            }
            if !self.ledger.is_version(digest, version) {
                return Err(Error::BlobChanged { url });
            }
        }
        Ok(body)
    }
}
