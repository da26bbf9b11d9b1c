use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE,
};
use reqwest::{Method, StatusCode};

use super::answer::Answer;
use super::challenge::Challenge;
use super::origin::{Origin, Scheme, registry_url, shown};
use super::range::number;
use super::session::{Door, Sessions};
use super::transport::{Settings, Transport};
use super::{Anonymous, AuthProvider, BlobBody, ByteRange, RawManifest, RegistryPull, body};
use crate::error::{Error, Result};
use crate::oci::{Algorithm, Descriptor, Digest, MAX_DOCUMENT_SIZE, MediaType, Reference};

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Registries, by HTTP: the client side of the OCI distribution specification, "Pull".
///
/// One value serves any number of registries and pulls at once, and keeps their connections and
/// tokens for the next request.
///
/// ```no_run
/// use layerstore::fetch::{Credentials, HttpRegistry, RegistryPull, StaticCredentials};
///
/// # async fn pull() -> layerstore::Result<()> {
/// let registry = HttpRegistry::builder()
///     .plain_http("localhost:5000")
///     .auth(StaticCredentials::new("localhost:5000", Credentials::new("me", "secret")))
///     .build()?;
/// let image = "localhost:5000/app:v1".parse()?;
/// let manifest = registry.manifest(&image, None).await?;
/// println!("{} is {}", image, manifest.digest);
/// # Ok(()) }
/// ```
pub struct HttpRegistry {
    pub(super) plain_http: BTreeSet<String>,
    pub(super) transport: Transport,
    pub(super) sessions: Sessions,
}

impl HttpRegistry {
    /// The settings of a client, to be changed before it is made.
    pub fn builder() -> HttpRegistryBuilder {
        HttpRegistryBuilder {
            plain_http: BTreeSet::new(),
            auth: Arc::new(Anonymous),
            settings: Settings {
                user_agent: concat!("layerstore/", env!("CARGO_PKG_VERSION")).to_owned(),
                connect_timeout: Duration::from_secs(10),
                read_timeout: Duration::from_secs(30),
            },
        }
    }

    /// Asks the registry of `image` for something in its repository, and proves who we are when
    /// it wants to know: once, since a registry that refuses what it has just asked for will
    /// refuse it again.
    async fn ask(
        &self,
        method: Method,
        image: &Reference,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Answer> {
        let unusable = || Error::InvalidReference {
            text: image.to_string(),
            reason: "its registry is not a host that can be connected to".to_owned(),
        };
        let plain = self.plain_http.contains(image.registry());
        let scheme = if plain { Scheme::Http } else { Scheme::Https };
        let mut url = registry_url(scheme, image.registry()).ok_or_else(unusable)?;
        url.set_path(&format!("/v2/{}/{path}", image.repository()));
        let origin = Origin::of(&url).ok_or_else(unusable)?;
        let repository = Some(image.repository());
        let door = Door { transport: &self.transport, origin: &origin, image, repository };

        let known = self.sessions.current(&door).await?;
        let answer = self.transport.follow(&method, &url, headers, known.as_ref()).await?;
        if !asks_for_proof(&answer, &origin) {
            return Ok(answer);
        }
        let challenge = Challenge::choose(answer.challenges(), &origin)
            .map_err(|why| door.closed(format!("it {why}")))?;
        answer.discard().await;
        let proof = self.sessions.answer(&door, challenge, known.as_ref()).await?;
        let answer = self.transport.follow(&method, &url, headers, Some(&proof)).await?;
        match asks_for_proof(&answer, &origin) {
            true => Err(door.refused(Some(&proof), &answer.into_messages().await)),
            false => Ok(answer),
        }
    }

    async fn head_manifest(&self, image: &Reference) -> Result<Descriptor> {
        let path = manifest_path(image, None);
        let answer = self.ask(Method::HEAD, image, &path, &accept_manifests()).await?;
        match answer.status().as_u16() {
            200 => {}
            // Only the answer to a GET can say more.
            408 | 429 | 500 | 502..=504 => return Err(answer.into_error().await),
            _ => return Ok(self.get_manifest(image, None).await?.descriptor()),
        }
        let size = answer.header(CONTENT_LENGTH).and_then(number);
        let media_type = answer.header(CONTENT_TYPE).map(MediaType::new);
        let (Some(digest), Some(size), Some(media_type)) =
            (content_digest(&answer)?, size, media_type)
        else {
            // A registry need not tell (distribution specification, "Checking if content exists").
            return Ok(self.get_manifest(image, None).await?.descriptor());
        };
        if size > MAX_DOCUMENT_SIZE {
            let what = format!("the answer of {}", shown(&answer.url));
            return Err(Error::TooLarge { what, limit: MAX_DOCUMENT_SIZE });
        }
        match image.digest() {
            Some(demanded) if demanded.algorithm() == digest.algorithm() && *demanded != digest => {
                let (origin, expected) = (shown(&answer.url), *demanded);
                Err(Error::DigestMismatch { origin, expected, actual: Box::new(digest) })
            }
            demanded => Ok(Descriptor::new(media_type, *demanded.unwrap_or(&digest), size)),
        }
    }

    async fn get_manifest(
        &self,
        image: &Reference,
        digest: Option<&Digest>,
    ) -> Result<RawManifest> {
        let path = manifest_path(image, digest);
        let answer = self.ask(Method::GET, image, &path, &accept_manifests()).await?;
        if answer.status() != StatusCode::OK {
            return Err(unexpected(answer).await);
        }
        body::check_encoding(&answer)?;
        let declared = content_digest(&answer)?;
        let media_type = MediaType::new(answer.header(CONTENT_TYPE).unwrap_or_default());
        let origin = shown(&answer.url);
        let bytes = answer.document(MAX_DOCUMENT_SIZE).await?;
        let demanded = digest.or(image.digest());
        for expected in demanded.into_iter().chain(&declared) {
            let actual = Box::new(expected.algorithm().digest(&bytes));
            if *actual != *expected {
                return Err(Error::DigestMismatch { origin, expected: *expected, actual });
            }
        }
        let digest = demanded.copied().or(declared);
        let digest = digest.unwrap_or_else(|| Algorithm::Sha256.digest(&bytes));
        Ok(RawManifest { bytes, media_type, digest })
    }

    async fn get_blob(
        &self,
        image: &Reference,
        blob: &Descriptor,
        range: Option<ByteRange>,
    ) -> Result<BlobBody> {
        let mut headers = HeaderMap::new();
        let mut wanted = None;
        if let Some(range) = range {
            let text = range.to_string();
            let Some(bytes) = range.within(blob.size) else {
                let reason = format!("the blob has {} bytes", blob.size);
                return Err(Error::UnusableRange {
                    url: blob.digest.to_string(),
                    range: text,
                    reason,
                });
            };
            // A range is made of digits, which every header may have.
            headers.extend(HeaderValue::try_from(text).map(|value| (RANGE, value)));
            wanted = Some(bytes);
        }
        let answer =
            self.ask(Method::GET, image, &format!("blobs/{}", blob.digest), &headers).await?;
        match (answer.status().as_u16(), wanted) {
            (200, _) => body::whole(answer, blob.size),
            (206, Some(wanted)) => body::part(answer, wanted, blob.size),
            (416, Some(wanted)) => {
                Err(body::unusable_range(&answer, wanted, "it answered 416, no such range"))
            }
            _ => Err(unexpected(answer).await),
        }
    }
}

impl RegistryPull for HttpRegistry {
    fn resolve<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<Descriptor>> {
        self.head_manifest(reference).boxed()
    }

    fn manifest<'a>(
        &'a self,
        reference: &'a Reference,
        digest: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<RawManifest>> {
        self.get_manifest(reference, digest).boxed()
    }

    fn blob<'a>(
        &'a self,
        reference: &'a Reference,
        blob: &'a Descriptor,
        range: Option<ByteRange>,
    ) -> BoxFuture<'a, Result<BlobBody>> {
        self.get_blob(reference, blob, range).boxed()
    }
}

/// The settings of an [`HttpRegistry`]; what [`HttpRegistry::builder`] makes.
#[must_use]
pub struct HttpRegistryBuilder {
    plain_http: BTreeSet<String>,
    auth: Arc<dyn AuthProvider>,
    settings: Settings,
}

impl HttpRegistryBuilder {
    /// Speaks HTTP without TLS with this registry, named as in [`Reference::registry`]. All others
    /// are spoken to by TLS, those on this machine too: nothing falls back to less by itself.
    pub fn plain_http(mut self, registry: impl Into<String>) -> Self {
        self.plain_http.insert(registry.into());
        self
    }

    /// Who to be at which registry. Default: [`Anonymous`].
    pub fn auth(mut self, provider: impl AuthProvider + 'static) -> Self {
        self.auth = Arc::new(provider);
        self
    }

    /// The `User-Agent`. Default: `layerstore/VERSION`.
    pub fn user_agent(mut self, text: impl Into<String>) -> Self {
        self.settings.user_agent = text.into();
        self
    }

    /// How long connecting may take, TLS included. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How long a server may take to begin its answer, and to send the next bytes of a body.
    /// Default: 30 s.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.settings.read_timeout = timeout;
        self
    }

    /// Makes the client; it connects when it is asked for something.
    ///
    /// # Errors
    ///
    /// [`Error::Network`] where a setting is unusable, as a user agent with a line break in it.
    pub fn build(self) -> Result<HttpRegistry> {
        Ok(HttpRegistry {
            plain_http: self.plain_http,
            transport: Transport::new(self.settings)?,
            sessions: Sessions::new(self.auth),
        })
    }
}

/// Whether the registry itself wants to know who we are: a `401` from where a redirect led is
/// just an error, since credentials do not go there.
pub(super) fn asks_for_proof(answer: &Answer, registry: &Origin) -> bool {
    answer.status() == StatusCode::UNAUTHORIZED
        && Origin::of(&answer.url).as_ref() == Some(registry)
}

/// The error of an answer whose status is none of those that were hoped for.
pub(super) async fn unexpected(answer: Answer) -> Error {
    match answer.status().is_success() {
        true => answer.unusable(format!("its status {} makes no sense here", answer.status())),
        false => answer.into_error().await,
    }
}

fn manifest_path(image: &Reference, digest: Option<&Digest>) -> String {
    match (digest.or(image.digest()), image.tag()) {
        (Some(digest), _) => format!("manifests/{digest}"),
        (None, tag) => format!("manifests/{}", tag.unwrap_or("latest")),
    }
}

fn accept_manifests() -> HeaderMap {
    let types = MediaType::ACCEPTED.iter().map(|name| (ACCEPT, HeaderValue::from_static(name)));
    let mut headers = HeaderMap::new();
    for (name, value) in types {
        headers.append(name, value);
    }
    headers
}

/// The digest that the registry says a manifest has.
fn content_digest(answer: &Answer) -> Result<Option<Digest>> {
    let Some(value) = answer.headers().get(DOCKER_CONTENT_DIGEST) else {
        return Ok(None);
    };
    let digest = value.to_str().ok().and_then(|text| text.parse().ok());
    digest.map(Some).ok_or_else(|| answer.unusable("its Docker-Content-Digest is not a digest"))
}
