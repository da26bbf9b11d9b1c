//! Lists that a registry gives in pages: the tags of a repository, and what refers to a manifest
//! (distribution specification, "Content Discovery").

use std::collections::HashSet;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, LINK};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::answer::Answer;
use super::body;
use super::http::{Registries, unexpected};
use super::link;
use super::origin::{Origin, shown};
use super::settings::Endpoint;
use super::transport::Errand;
use crate::error::{Error, Result, json_fault};
use crate::oci::{
    Descriptor, Digest, Document, MAX_DESCRIPTORS, MAX_DOCUMENT_SIZE, MediaType, Reference,
};

/// How many pages one list may have.
const MAX_PAGES: usize = 1000;
/// How many bytes all pages of one list may have together.
const MAX_LIST: u64 = 16 * 1024 * 1024;
/// How many tags are asked for at a time; what registries commonly allow at most.
const PAGE: usize = 1000;

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

impl Registries {
    pub(super) async fn list_tags(&self, image: &Reference) -> Result<Vec<String>> {
        let mut attempts = self.attempts(image, None).await?;
        while let Some(endpoint) = attempts.next() {
            match self.list_tags_at(&endpoint).await {
                Ok(tags) => return Ok(tags),
                Err(error) => attempts.failed(error),
            }
        }
        Err(attempts.into_error())
    }

    async fn list_tags_at(&self, endpoint: &Endpoint) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let errand = accept("application/json");
        let mut tags = Vec::new();
        let mut pages = Pages::new(format!("tags/list?n={PAGE}"));
        while let Some(path) = pages.next() {
            let answer = self.ask(endpoint, Method::GET, &path, &errand).await?;
            let (url, bytes) = pages.read(answer).await?;
            let refuse = |reason: String| Error::BadResponse { url: url.clone(), reason };
            let page: Page = serde_json::from_slice(&bytes).map_err(|error| {
                refuse(format!("it is no list of tags: {}", json_fault(&error)))
            })?;
            for tag in page.tags.unwrap_or_default() {
                if !Reference::is_tag(&tag) {
                    return Err(refuse("some of what it lists is no tag".to_owned()));
                }
                tags.push(tag);
            }
        }
        Ok(tags)
    }

    /// What the first server that knows of any lists. That there are none is believed of the last
    /// one only: many mirrors have the images and not what is about them.
    pub(super) async fn list_referrers(
        &self,
        image: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        let mut attempts = self.attempts(image, Some(subject)).await?;
        let mut none = false;
        while let Some(endpoint) = attempts.next() {
            let listed = self.list_referrers_at(&endpoint, subject, artifact_type).await;
            none = listed.as_ref().is_ok_and(Vec::is_empty);
            match listed {
                Ok(found) if !found.is_empty() => return Ok(found),
                Ok(_) => {}
                Err(error) => attempts.failed(error),
            }
        }
        if none { Ok(Vec::new()) } else { Err(attempts.into_error()) }
    }

    /// By the referrers API; where the server has none, by the tag that stands in for it.
    async fn list_referrers_at(
        &self,
        endpoint: &Endpoint,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        let errand = accept(MediaType::OCI_INDEX);
        let (mut found, mut filtered) = (Vec::new(), true);
        let mut pages = Pages::new(referrers_path(subject, artifact_type));
        while let Some(path) = pages.next() {
            let answer = self.ask(endpoint, Method::GET, &path, &errand).await?;
            if pages.is_first() && has_no_referrers(&answer) {
                answer.discard().await;
                (found, filtered) = (self.tagged_referrers(endpoint, subject).await?, false);
                break;
            }
            filtered &= is_filtered(&answer);
            let (url, bytes) = pages.read(answer).await?;
            let refuse = |reason: String| Error::BadResponse { url: url.clone(), reason };
            match Document::parse(&bytes, &MediaType::new(MediaType::OCI_INDEX)) {
                Ok(Document::Index(index)) => found.extend(index.manifests),
                Ok(Document::Manifest(_)) => return Err(refuse("it is not an index".to_owned())),
                Err(error) => return Err(refuse(error.to_string())),
            }
            if found.len() > MAX_DESCRIPTORS {
                let reason = format!("{subject} has more than {MAX_DESCRIPTORS} referrers");
                return Err(refuse(reason));
            }
        }
        if let Some(wanted) = artifact_type.filter(|_| !filtered) {
            found.retain(|descriptor| descriptor.artifact_type.as_ref() == Some(wanted));
        }
        Ok(found)
    }

    /// What clients list under a tag where the registry itself does not (specification,
    /// "Referrers Tag Schema").
    async fn tagged_referrers(
        &self,
        endpoint: &Endpoint,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>> {
        let tag = referrers_tag(subject);
        let mut endpoint = endpoint.clone();
        endpoint.image = endpoint.image.sibling(tag.clone());
        let raw = match self.get_manifest_at(&endpoint, None).await {
            Err(Error::Registry { status: 404, .. }) => return Ok(Vec::new()),
            got => got?,
        };
        match Document::parse(&raw.bytes, &raw.media_type)
            .map_err(|error| error.of_document(&raw.digest))?
        {
            Document::Index(index) => Ok(index.manifests),
            Document::Manifest(_) => {
                let reason = format!("the tag {tag} must be an index of referrers");
                Err(Error::document(reason).of_document(&raw.digest))
            }
        }
    }
}

/// The way through the pages of a list.
struct Pages {
    /// The page to be read, as [`Registries::ask`] takes it.
    next: Option<String>,
    current: String,
    read: HashSet<String>,
    bytes: u64,
}

impl Pages {
    fn new(first: String) -> Pages {
        Pages { next: Some(first), current: String::new(), read: HashSet::new(), bytes: 0 }
    }

    fn next(&mut self) -> Option<String> {
        self.current = self.next.take()?;
        Some(self.current.clone())
    }

    fn is_first(&self) -> bool {
        self.read.is_empty()
    }

    /// The page, with its address for errors; and notes which is the next one.
    async fn read(&mut self, answer: Answer) -> Result<(String, Bytes)> {
        if answer.status().as_u16() != 200 {
            return Err(unexpected(answer).await);
        }
        body::check_encoding(&answer)?;
        self.read.insert(self.current.clone());
        self.next = self.after(&answer).map_err(|reason| answer.unusable(reason))?;
        let url = shown(&answer.url);
        let bytes = answer.document(MAX_DOCUMENT_SIZE).await?;
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_LIST {
            return Err(Error::TooLarge { what: format!("the list of {url}"), limit: MAX_LIST });
        }
        Ok((url, bytes))
    }

    /// The page that the answer's `Link` leads to. It must be of the same list: on the same
    /// origin and in the same repository, or else it would be asked for with credentials that were
    /// not meant for it.
    fn after(&self, answer: &Answer) -> Result<Option<String>, String> {
        let values = answer.headers().get_all(LINK).iter();
        let texts: Option<Vec<&str>> = values.map(|value| value.to_str().ok()).collect();
        let texts = texts.ok_or("its Link is no text")?;
        let Some(target) = link::next(&texts)? else {
            return Ok(None);
        };
        let next = within(&answer.url, &self.current, target)
            .ok_or("its next page is not of the same list")?;
        if self.read.contains(&next) {
            return Err("its pages lead in a circle".to_owned());
        }
        if self.read.len() >= MAX_PAGES {
            return Err(format!("it has more than {MAX_PAGES} pages"));
        }
        Ok(Some(next))
    }
}

/// Where `target` leads from the page at `url`, in the form of `current`, which is the end of that
/// address; nothing where it leads out of the repository.
fn within(url: &Url, current: &str, target: &str) -> Option<String> {
    let asked = current.split_once('?').map_or(current, |(path, _)| path);
    let base = url.path().strip_suffix(asked)?;
    let next = url.join(target).ok()?;
    if Origin::of(&next) != Origin::of(url) || next.username() != "" || next.password().is_some() {
        return None;
    }
    // The list itself, of which only the query may differ.
    let path = next.path().strip_prefix(base)?;
    let same = path == asked || path.replace("%3A", ":").replace("%3a", ":") == asked;
    same.then_some(format!("{asked}?{}", next.query()?))
}

/// Whatever a link says, the next page is one of the same list.
#[cfg(any(test, fuzzing))]
pub(super) fn next_page(target: &str) {
    const ASKED: &str = "tags/list?n=1000";
    let Ok(url) = Url::parse("https://registry.example/v2/a/tags/list?n=1000") else {
        unreachable!("it is an address");
    };
    if let Some(next) = within(&url, ASKED, target) {
        assert!(next.starts_with("tags/list?") && !next.contains('#'), "{target:?} is {next:?}");
    }
}

fn accept(media_type: &'static str) -> Errand {
    Errand::new([(ACCEPT, HeaderValue::from_static(media_type))].into_iter().collect())
}

fn referrers_path(subject: &Digest, artifact_type: Option<&MediaType>) -> String {
    let mut path = format!("referrers/{subject}");
    if let Some(artifact_type) = artifact_type {
        path.push_str("?artifactType=");
        for byte in artifact_type.as_str().bytes() {
            match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                true => path.push(char::from(byte)),
                false => path.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    path
}

/// `sha256-HEX`. Of a longer hash the first 64 digits, so that it is a tag.
fn referrers_tag(subject: &Digest) -> String {
    let mut hex = subject.hex();
    hex.truncate(64);
    format!("{}-{hex}", subject.algorithm())
}

/// Whether the registry does not know the referrers API. It should say 404; some find the request
/// wrong, and some answer every address with a page for people.
fn has_no_referrers(answer: &Answer) -> bool {
    match answer.status().as_u16() {
        200 => {
            let media_type = answer.header(CONTENT_TYPE).map(MediaType::new);
            media_type.is_none_or(|it| it.as_str() != MediaType::OCI_INDEX)
        }
        status => matches!(status, 400 | 404 | 405 | 406 | 501),
    }
}

fn is_filtered(answer: &Answer) -> bool {
    let applied = answer.header(OCI_FILTERS_APPLIED).unwrap_or_default();
    applied.split(',').any(|filter| filter.trim() == "artifactType")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn next_pages_are_of_the_same_list() {
        let url: Url = "https://r.example/v2/a/b/tags/list?n=2".parse().unwrap();
        let within = |target| within(&url, "tags/list?n=2", target);
        for target in [
            "/v2/a/b/tags/list?n=2&last=x",
            "https://r.example/v2/a/b/tags/list?n=2&last=x",
            "https://r.example:443/v2/a/b/tags/list?n=2&last=x#fragment",
            "?n=2&last=x",
            "list?n=2&last=x",
        ] {
            assert_eq!(within(target).as_deref(), Some("tags/list?n=2&last=x"), "{target}");
        }
        for target in [
            "http://r.example/v2/a/b/tags/list?last=x",
            "https://r.example:444/v2/a/b/tags/list?last=x",
            "https://evil.example/v2/a/b/tags/list?last=x",
            "//evil.example/v2/a/b/tags/list?last=x",
            "https://u@r.example/v2/a/b/tags/list?last=x",
            "/v2/a/c/tags/list?last=x",
            "/v2/a/b/../c/tags/list?last=x",
            "/v2/a/b/manifests/1?x",
            "/admin?delete=all",
            "/v2/a/b/tags/list",
            "https://",
            "",
        ] {
            assert!(within(target) != Some("tags/list?last=x".to_owned()), "{target}");
            if !target.is_empty() {
                assert_eq!(within(target), None, "{target}");
            }
        }
    }

    #[test]
    fn the_tag_that_stands_in_for_the_api() {
        let subject = Algorithm::Sha256.digest(b"");
        assert_eq!(referrers_tag(&subject), format!("sha256-{}", subject.hex()));
        let subject = Algorithm::Sha512.digest(b"");
        let tag = referrers_tag(&subject);
        assert_eq!(tag, format!("sha512-{}", &subject.hex()[..64]));
        assert!(Reference::is_tag(&tag));
    }

    #[test]
    fn the_filter_is_written_so_that_it_stays_one() {
        let subject = Algorithm::Sha256.digest(b"");
        let path = referrers_path(&subject, Some(&MediaType::new("application/x.y+json&n=1")));
        let expected = format!("referrers/{subject}?artifactType=application%2Fx.y%2Bjson%26n%3D1");
        assert_eq!(path, expected);
    }
}
