use std::fmt;
use std::sync::Arc;

use reqwest::Url;
use reqwest::header::HeaderMap;

use super::{Origin, Scheme, Tls, registry_url, shown};
use crate::error::{Error, Result};
use crate::oci::Reference;

/// A server that may have an image.
#[derive(Clone)]
pub(in crate::fetch) struct Endpoint {
    /// What all paths of the API begin with: ends in `/v2` as a rule.
    base: Url,
    pub(in crate::fetch) origin: Origin,
    /// The image as this server knows it: whose credentials are asked for, and which repository.
    pub(in crate::fetch) image: Reference,
    pub(in crate::fetch) tls: Arc<Tls>,
    /// Headers for this server, and no other.
    pub(in crate::fetch) headers: HeaderMap,
    /// The registry whose images a server that mirrors several is asked for.
    namespace: Option<String>,
    /// Whether there is another server to ask in its place.
    pub(in crate::fetch) has_stand_in: bool,
}

/// A place in the order of asking.
#[derive(Clone, Debug)]
pub(in crate::fetch) struct Step {
    pub(in crate::fetch) endpoint: Endpoint,
    /// Whether it may say what a tag stands for.
    pub(in crate::fetch) resolves: bool,
    /// Whether it may be asked for what a digest names.
    pub(in crate::fetch) pulls: bool,
    /// Whether it is asked only where the server before it did not speak TLS.
    pub(in crate::fetch) last_resort: bool,
}

/// Headers may be secrets.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", shown(&self.base))
    }
}

impl Endpoint {
    pub(super) fn new(base: Url, image: Reference, tls: Tls) -> Result<Endpoint> {
        let origin = Origin::of(&base).ok_or_else(|| unusable(&image))?;
        let (tls, headers) = (Arc::new(tls), HeaderMap::new());
        Ok(Endpoint { base, origin, image, tls, headers, namespace: None, has_stand_in: false })
    }

    pub(super) fn of_registry(scheme: Scheme, image: &Reference, tls: Tls) -> Result<Endpoint> {
        let mut base = registry_url(scheme, image.registry()).ok_or_else(|| unusable(image))?;
        base.set_path("/v2");
        Endpoint::new(base, image.clone(), tls)
    }

    /// Sends `headers` along, and says whose images are wanted where the server is not `registry`.
    pub(super) fn speak_for(&mut self, registry: &str, headers: HeaderMap) {
        self.headers = headers;
        self.namespace = (!self.origin.serves(registry)).then(|| registry.to_owned());
    }

    /// The address of something in the image's repository: `path` may have a query.
    pub(in crate::fetch) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let base = self.base.path().trim_end_matches('/');
        let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
        url.set_query(query);
        url.set_path(&format!("{base}/{}/{path}", self.image.repository()));
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        url
    }

    /// What says whether this is a registry (distribution specification, "Determining Support").
    pub(in crate::fetch) fn api(&self) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/", self.base.path().trim_end_matches('/')));
        url
    }

    /// What tells it from all others.
    pub(in crate::fetch) fn id(&self) -> String {
        format!("{}/{}", shown(&self.base), self.image.repository())
    }
}

fn unusable(image: &Reference) -> Error {
    Error::InvalidReference {
        text: image.to_string(),
        reason: "its registry is not a host that can be connected to".to_owned(),
    }
}
