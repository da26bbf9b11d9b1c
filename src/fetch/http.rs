use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};

use super::answer::Answer;
use super::challenge::Challenge;
use super::connections::Connections;
use super::fallback::{Attempts, Ledger};
use super::origin::{Origin, shown};
use super::range::number;
use super::session::{Door, Sessions};
use super::settings::{Endpoint, Step};
use super::transport::{Errand, Transport};
use super::{
    BlobBody, ByteRange, HttpRegistryBuilder, RawManifest, RegistryPull, RegistrySettings, Traffic,
    body,
};
use crate::error::{Error, Result};
use crate::oci::{Algorithm, Descriptor, Digest, MAX_DOCUMENT_SIZE, MediaType, Reference};
use crate::store::Version;

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
    pub(super) registries: Arc<Registries>,
}

type Steps = HashMap<(String, String, bool), Arc<[Step]>>;

/// What all requests share, also those that a body makes when it goes on elsewhere.
#[derive(Clone)]
pub(super) struct Registries {
    plain_http: Arc<BTreeSet<String>>,
    settings: Arc<RegistrySettings>,
    connections: Arc<Connections>,
    sessions: Arc<Sessions>,
    pub(super) ledger: Arc<Ledger>,
    /// Where to ask, by registry and repository, and by whether the name has a digest.
    steps: Arc<Mutex<Steps>>,
    /// What limits the connections, if they are limited here.
    traffic: Option<Traffic>,
}

impl HttpRegistry {
    /// The settings of a client, to be changed before it is made.
    pub fn builder() -> HttpRegistryBuilder {
        HttpRegistryBuilder::new()
    }
}

impl Registries {
    pub(super) fn client(
        plain_http: BTreeSet<String>,
        settings: Arc<RegistrySettings>,
        connections: Connections,
        sessions: Sessions,
    ) -> HttpRegistry {
        let registries = Registries {
            plain_http: Arc::new(plain_http),
            settings,
            connections: Arc::new(connections),
            sessions: Arc::new(sessions),
            ledger: Arc::default(),
            steps: Arc::default(),
            traffic: None,
        };
        HttpRegistry { registries: Arc::new(registries) }
    }

    /// The servers to ask for what `digest` names, or else for what the name stands for.
    pub(super) async fn attempts(
        &self,
        image: &Reference,
        digest: Option<&Digest>,
    ) -> Result<Attempts> {
        let digested = image.digest().is_some();
        let key = (image.registry().to_owned(), image.repository().to_owned(), digested);
        // Nothing that holds this lock can leave the map half changed.
        let known = self.steps.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let steps = match known {
            Some(steps) => steps,
            None => {
                let (settings, image) = (Arc::clone(&self.settings), image.clone());
                let plain = self.plain_http.contains(image.registry());
                let steps: Arc<[Step]> =
                    super::task::blocking(move || settings.steps(&image, plain)).await?.into();
                let mut all = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(key, Arc::clone(&steps));
                steps
            }
        };
        // The names of its own are part of what a server is asked for, and not of who it is.
        let named = |step: &Step| {
            let (registry, repository) = (&step.endpoint.image, step.endpoint.image.repository());
            let mut step = step.clone();
            step.endpoint.image =
                image.elsewhere(registry.registry().to_owned(), repository.to_owned());
            step
        };
        let steps: Vec<_> = steps.iter().map(named).collect();
        Ok(self.ledger.attempts(&steps, image, digest))
    }

    /// The way to the registry itself, and nothing of its mirrors; and who may be let in there.
    pub(super) async fn origin_of(&self, image: &Reference) -> Result<(Endpoint, Transport)> {
        let (settings, plain) = (Arc::clone(&self.settings), self.is_plain(image));
        let wanted = image.clone();
        let steps = super::task::blocking(move || settings.steps(&wanted, plain)).await?;
        let of_itself = |step: Step| {
            (!step.last_resort && step.endpoint.origin.serves(step.endpoint.image.registry()))
                .then_some(step.endpoint)
        };
        let endpoint = steps.into_iter().rev().find_map(of_itself);
        let endpoint = endpoint.ok_or_else(|| Error::InvalidReference {
            text: image.registry().to_owned(),
            reason: "the settings do not lead to the registry itself".to_owned(),
        })?;
        let transport = self.way_to(&endpoint);
        Ok((endpoint, transport))
    }

    fn way_to(&self, endpoint: &Endpoint) -> Transport {
        Transport::to(&self.connections, &self.ledger, self.traffic.as_ref(), endpoint)
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Asks a server for something in the image's repository, and proves who we are when it wants
    /// to know: once, since a registry that refuses what it has just asked for will refuse it
    /// again.
    ///
    /// `path` is what follows the name of the repository, with its query if it has one.
    pub(super) async fn ask(
        &self,
        endpoint: &Endpoint,
        method: Method,
        path: &str,
        errand: &Errand,
    ) -> Result<Answer> {
        let url = endpoint.url(path);
        let (origin, image) = (&endpoint.origin, &endpoint.image);
        let transport = self.way_to(endpoint);
        let repository = Some(image.repository());
        let door = Door { transport: &transport, origin, image, repository };

        let known = self.sessions.current(&door).await?;
        let answer = transport.follow(&method, &url, errand, known.as_ref()).await?;
        if !asks_for_proof(&answer, origin) {
            return Ok(answer);
        }
        let challenge = Challenge::choose(answer.challenges(), origin)
            .map_err(|why| door.closed(format!("it {why}")))?;
        answer.discard().await;
        let proof = self.sessions.answer(&door, challenge, known.as_ref()).await?;
        let answer = transport.follow(&method, &url, errand, Some(&proof)).await?;
        match asks_for_proof(&answer, origin) {
            true => Err(door.refused(Some(&proof), &answer.into_messages().await)),
            false => Ok(answer),
        }
    }

    /// A request, without credentials, to wherever an address in a manifest of `image` leads, judged
    /// as if the image's registry had sent us there.
    pub(super) async fn ask_anybody(
        &self,
        image: &Reference,
        url: &Url,
        errand: &Errand,
    ) -> Result<Answer> {
        let (_, registry) = self.origin_of(image).await?;
        registry.anonymous().follow(&Method::GET, url, errand, None).await
    }

    /// Whether the registry of `image` may be spoken to without TLS.
    pub(super) fn is_plain(&self, image: &Reference) -> bool {
        self.plain_http.contains(image.registry())
    }

    async fn head_manifest(&self, image: &Reference) -> Result<Descriptor> {
        let mut attempts = self.attempts(image, image.digest()).await?;
        while let Some(endpoint) = attempts.next() {
            match self.head_manifest_at(&endpoint).await {
                Ok(found) => return Ok(found),
                Err(error) => attempts.failed(error),
            }
        }
        Err(attempts.into_error())
    }

    async fn head_manifest_at(&self, endpoint: &Endpoint) -> Result<Descriptor> {
        let image = &endpoint.image;
        let path = manifest_path(image, None);
        let answer = self.ask(endpoint, Method::HEAD, &path, &accept_manifests()).await?;
        let told = match answer.status().as_u16() {
            200 => descriptor_of_head(&answer)?,
            408 | 429 | 500 | 502..=504 => return Err(answer.into_error().await),
            // Only the answer to a GET can say more.
            _ => None,
        };
        let url = shown(&answer.url);
        // Its connection may be the only one.
        drop(answer);
        let Some((digest, size, media_type)) = told else {
            // A registry need not tell (distribution specification, "Checking if content exists").
            return Ok(self.get_manifest_at(endpoint, None).await?.descriptor());
        };
        if size > MAX_DOCUMENT_SIZE {
            let what = format!("the answer of {url}");
            return Err(Error::TooLarge { what, limit: MAX_DOCUMENT_SIZE });
        }
        match image.digest() {
            Some(demanded) if demanded.algorithm() == digest.algorithm() && *demanded != digest => {
                let expected = *demanded;
                Err(Error::DigestMismatch { origin: url, expected, actual: Box::new(digest) })
            }
            demanded => Ok(Descriptor::new(media_type, *demanded.unwrap_or(&digest), size)),
        }
    }

    async fn get_manifest(
        &self,
        image: &Reference,
        digest: Option<&Digest>,
    ) -> Result<RawManifest> {
        let mut attempts = self.attempts(image, digest.or(image.digest())).await?;
        while let Some(endpoint) = attempts.next() {
            match self.get_manifest_at(&endpoint, digest).await {
                Ok(found) => {
                    self.ledger.served(image, &found.digest, &endpoint);
                    return Ok(found);
                }
                Err(error) => attempts.failed(error),
            }
        }
        Err(attempts.into_error())
    }

    pub(super) async fn get_manifest_at(
        &self,
        endpoint: &Endpoint,
        digest: Option<&Digest>,
    ) -> Result<RawManifest> {
        let image = &endpoint.image;
        let path = manifest_path(image, digest);
        let answer = self.ask(endpoint, Method::GET, &path, &accept_manifests()).await?;
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
}

impl RegistryPull for HttpRegistry {
    fn resolve<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<Descriptor>> {
        self.registries.head_manifest(reference).boxed()
    }

    fn manifest<'a>(
        &'a self,
        reference: &'a Reference,
        digest: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<RawManifest>> {
        self.registries.get_manifest(reference, digest).boxed()
    }

    fn blob<'a>(
        &'a self,
        reference: &'a Reference,
        blob: &'a Descriptor,
        range: Option<ByteRange>,
    ) -> BoxFuture<'a, Result<BlobBody>> {
        self.registries.get_blob(reference, blob, range).boxed()
    }

    fn tags<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<Vec<String>>> {
        self.registries.list_tags(reference).boxed()
    }

    fn referrers<'a>(
        &'a self,
        reference: &'a Reference,
        subject: &'a Digest,
        artifact_type: Option<&'a MediaType>,
    ) -> BoxFuture<'a, Result<Vec<Descriptor>>> {
        self.registries.list_referrers(reference, subject, artifact_type).boxed()
    }

    fn begin(&self, reference: &Reference, blob: &Descriptor) {
        self.registries.ledger.begin(reference, &blob.digest);
    }

    fn distrust(&self, reference: &Reference, blob: &Descriptor) -> bool {
        let ledger = &self.registries.ledger;
        if !ledger.distrust(reference, &blob.digest) {
            return false;
        }
        let all = self.registries.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let (registry, repository) = (reference.registry(), reference.repository());
        let key = (registry.to_owned(), repository.to_owned(), reference.digest().is_some());
        let steps = all.get(&key).map(|steps| &steps[..]).unwrap_or_default();
        ledger.attempts(steps, reference, Some(&blob.digest)).next().is_some()
    }

    fn lagged(&self, reference: &Reference, blob: &Descriptor) {
        self.registries.ledger.lagged(reference, &blob.digest);
    }

    fn recall(&self, _: &Reference, blob: &Descriptor, version: &Version) {
        let _ = self.registries.ledger.is_version(&blob.digest, version);
    }

    fn limited(&self, traffic: &Traffic) -> Option<Arc<dyn RegistryPull>> {
        let traffic = Some(traffic.clone());
        let registries = Arc::new(Registries { traffic, ..(*self.registries).clone() });
        Some(Arc::new(HttpRegistry { registries }))
    }

    fn origins(&self, reference: &Reference, blob: &Descriptor) -> Vec<Origin> {
        self.registries.ledger.origins(reference, &blob.digest)
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

/// What the headers of an answer say of a manifest, as far as that is all there is to know.
fn descriptor_of_head(answer: &Answer) -> Result<Option<(Digest, u64, MediaType)>> {
    let size = answer.header(CONTENT_LENGTH).and_then(number);
    let media_type = answer.header(CONTENT_TYPE).map(MediaType::new);
    Ok(content_digest(answer)?
        .zip(size)
        .zip(media_type)
        .map(|((digest, size), media_type)| (digest, size, media_type)))
}

fn accept_manifests() -> Errand {
    let types = MediaType::ACCEPTED.iter().map(|name| (ACCEPT, HeaderValue::from_static(name)));
    let mut headers = HeaderMap::new();
    for (name, value) in types {
        headers.append(name, value);
    }
    Errand::new(headers)
}

/// The digest that the registry says a manifest has.
fn content_digest(answer: &Answer) -> Result<Option<Digest>> {
    let Some(value) = answer.headers().get(DOCKER_CONTENT_DIGEST) else {
        return Ok(None);
    };
    let digest = value.to_str().ok().and_then(|text| text.parse().ok());
    digest.map(Some).ok_or_else(|| answer.unusable("its Docker-Content-Digest is not a digest"))
}
