//! A blob from several servers: where one breaks off, the next goes on.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::BlobBody;
use super::fallback::Attempts;
use super::http::Registries;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Reference};

/// A body under way, and who else can be asked for the rest of it.
pub(super) struct Relay {
    pub(super) registries: Arc<Registries>,
    pub(super) attempts: Attempts,
    pub(super) image: Reference,
    pub(super) blob: Descriptor,
}

impl Relay {
    /// The bytes of `body`, which has those up to and without `end`, whoever sends them.
    pub(super) fn over(self, body: BlobBody, end: u64) -> BlobBody {
        let BlobBody { start, total, stream, version, connection, resumable } = body;
        let state = (self, stream, start);
        let step = move |(mut relay, mut stream, at): (Relay, BoxStream<'static, _>, u64)| async move {
            loop {
                match stream.next().await {
                    None => return Ok(None),
                    Some(Ok(chunk)) => {
                        let chunk: Bytes = chunk;
                        let at = at + chunk.len() as u64;
                        return Ok(Some((chunk, (relay, stream, at))));
                    }
                    // All that was wanted is there, and its digest is going to be looked at.
                    Some(Err(Error::SizeMismatch { more: true, .. })) if at == end => {
                        return Ok(None);
                    }
                    Some(Err(error)) => {
                        relay.attempts.failed(error);
                        // The next may need the leave to have a connection that it holds.
                        drop(stream);
                        (relay, stream) = relay.go_on(at, end).await?;
                    }
                }
            }
        };
        let body = BlobBody::new(start, total, stream::try_unfold(state, step).boxed());
        BlobBody { version, connection, resumable, ..body }
    }

    async fn go_on(
        mut self,
        at: u64,
        end: u64,
    ) -> Result<(Relay, BoxStream<'static, Result<Bytes>>)> {
        while let Some(endpoint) = self.attempts.next() {
            let rest = Some((at..end).into());
            match self.registries.get_blob_at(&endpoint, &self.blob, rest).await {
                Ok(body) if body.start == at => {
                    self.registries.ledger.served(&self.image, &self.blob.digest, &endpoint);
                    return Ok((self, body.stream));
                }
                Ok(_) => self.attempts.failed(Error::BadResponse {
                    url: endpoint.id(),
                    reason: "it sends the whole blob where the rest was asked for".to_owned(),
                }),
                Err(Error::UnusableRange { url, reason, .. }) => {
                    self.attempts.failed(Error::BadResponse { url, reason });
                }
                Err(error) => self.attempts.failed(error),
            }
        }
        Err(self.attempts.into_error())
    }
}
