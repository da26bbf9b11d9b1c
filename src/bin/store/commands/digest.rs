//! `store digest`.

use layerstore::fetch::{RetryPolicy, digest_of};
use layerstore::oci::{MediaType, PlatformChoice};
use layerstore::{Descriptor, Digest, Reference};
use serde::Serialize;

use super::{Outcome, pull};
use crate::args::{Connection, RemoteDigest};
use crate::credentials;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Report};
use crate::registries;
use crate::runtime;

/// What a name stands for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    #[serde(rename = "ref")]
    name: String,
    digest: Digest,
    media_type: MediaType,
    /// The length in bytes of the index or manifest, not of the image.
    size: u64,
}

pub(super) fn run(args: &RemoteDigest, out: &mut Output) -> Outcome {
    let RemoteDigest { image, platform, connection } = args;
    let Connection { plain_http, ca_file, auth_file } = connection;
    let settings = registries::settings(ca_file.as_deref())?;
    let image: Reference = settings.expand(image).parse()?;
    let files = credentials::auth_files(auth_file);
    let registry = pull::registry(settings, files, std::slice::from_ref(&image), *plain_http)?;
    let platform = platform.clone().map(PlatformChoice::One);
    let found = digest_of(&registry, &image, platform.as_ref(), RetryPolicy::default());
    let Descriptor { digest, media_type, size, .. } = runtime::start()?.block_on(found)?;
    out.report(&Found { name: image.to_string(), digest, media_type, size })?;
    Ok(Exit::Ok)
}

impl Report for Found {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        out.line(self.digest.to_string())
    }
}
