//! The honest answers: the read side of the OCI distribution specification 1.1.

use serde_json::{Value, json};

use super::http::{Request, Response};
use super::media_type as media;
use super::registry::State;

/// What a path asks for.
enum Target<'a> {
    Base,
    Manifest { repository: &'a str, reference: &'a str },
    Blob { repository: &'a str, digest: &'a str },
    Tags { repository: &'a str },
    Referrers { repository: &'a str, subject: &'a str },
}

/// Answers one request as a registry should.
pub(super) fn answer(state: &State, request: &Request) -> Response {
    let path = request.path();
    if path == "/token" {
        return token(state, request);
    }
    let target = parse(&path).filter(|target| {
        // Without that API it answers as to any unknown address (specification, "Unavailable
        // Referrers API").
        state.referrers || !matches!(target, Target::Referrers { .. })
    });
    let Some(target) = target else {
        return Response::new(404)
            .header("Content-Type", "text/plain; charset=utf-8")
            .body("404 page not found\n");
    };
    let scope = match target {
        Target::Base => None,
        Target::Manifest { repository, .. }
        | Target::Blob { repository, .. }
        | Target::Referrers { repository, .. }
        | Target::Tags { repository } => Some(format!("repository:{repository}:pull")),
    };
    let response = match state.auth.challenge(request, scope.as_deref()) {
        Some(challenge) => Response::error(401, "UNAUTHORIZED", "authentication required")
            .header("WWW-Authenticate", challenge),
        None if !matches!(request.method.as_str(), "GET" | "HEAD") => {
            Response::error(405, "UNSUPPORTED", "this registry is read-only")
        }
        None => match target {
            Target::Base => Response::json(200, &json!({})),
            Target::Manifest { repository, reference } => {
                manifest(state, request, repository, reference)
            }
            Target::Blob { digest, .. } => blob(state, request, digest),
            Target::Tags { repository } => tags(state, request, repository),
            Target::Referrers { repository, subject } => {
                referrers(state, request, repository, subject)
            }
        },
    };
    response.header("Docker-Distribution-API-Version", "registry/2.0")
}

fn parse(path: &str) -> Option<Target<'_>> {
    let rest = path.strip_prefix("/v2/")?;
    if rest.is_empty() {
        return Some(Target::Base);
    }
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        return Some(Target::Tags { repository });
    }
    let (head, last) = rest.rsplit_once('/')?;
    if let Some(repository) = head.strip_suffix("/manifests") {
        return Some(Target::Manifest { repository, reference: last });
    }
    if let Some(repository) = head.strip_suffix("/referrers") {
        return Some(Target::Referrers { repository, subject: last });
    }
    let repository = head.strip_suffix("/blobs")?;
    Some(Target::Blob { repository, digest: last })
}

fn token(state: &State, request: &Request) -> Response {
    let service = request.query("service").into_iter().chain(request.form("service")).next();
    let issuers = state.issuers.lock().unwrap();
    // The one asked for, or any, which then says that it is not that service.
    let issuer = issuers
        .iter()
        .find(|one| service.as_deref() == Some(one.service()))
        .or_else(|| issuers.first());
    match issuer {
        Some(issuer) => issuer.answer(request),
        None => Response::new(404).body("404 page not found\n"),
    }
}

fn manifest(state: &State, request: &Request, repository: &str, reference: &str) -> Response {
    let repositories = state.repositories.lock().unwrap();
    let Some(known) = repositories.get(repository) else {
        return Response::error(404, "NAME_UNKNOWN", "repository name not known to registry");
    };
    let digest = known.tags.get(reference).map_or(reference, String::as_str);
    let Some(manifest) = known.manifests.get(digest) else {
        return Response::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
    };
    if !accepts(request, &manifest.media_type) {
        let message = format!("the manifest is {}, which Accept leaves out", manifest.media_type);
        return Response::error(404, "MANIFEST_UNKNOWN", &message);
    }
    let etag = format!("\"{digest}\"");
    if request.header("if-none-match") == Some(&etag) {
        return Response::new(304).header("ETag", etag).header("Docker-Content-Digest", digest);
    }
    Response::new(200)
        .header("Content-Type", &manifest.media_type)
        .header("Docker-Content-Digest", digest)
        .header("ETag", etag)
        .body(manifest.content.clone())
}

/// Without `Accept` everything is acceptable (RFC 9110 section 12.5.1); parameters are not
/// looked at.
fn accepts(request: &Request, media_type: &str) -> bool {
    request.header_list("accept").is_none_or(|list| {
        list.split(',').any(|one| {
            let one = one.split(';').next().unwrap_or_default().trim();
            one == media_type || one == "*/*" || one == "application/*"
        })
    })
}

fn blob(state: &State, request: &Request, digest: &str) -> Response {
    let blobs = state.blobs.lock().unwrap();
    let Some(content) = blobs.get(digest) else {
        return Response::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let total = content.len();
    let etag = format!("\"{digest}\"");
    let fresh = request.header("if-range").is_none_or(|value| value == etag);
    let range = request.header("range").filter(|_| fresh && request.method == "GET");
    let response = match range.map_or(Range::Whole, |value| parse_range(value, total)) {
        Range::Whole => Response::new(200).body(content.clone()),
        Range::Part { first, last } => Response::new(206)
            .header("Content-Range", format!("bytes {first}-{last}/{total}"))
            .body(content.slice(first, last - first + 1)),
        Range::Unsatisfiable => {
            return Response::error(416, "RANGE_INVALID", "the blob ends before the range")
                .header("Content-Range", format!("bytes */{total}"));
        }
    };
    response
        .header("Content-Type", "application/octet-stream")
        .header("Docker-Content-Digest", digest)
        .header("ETag", etag)
        .header("Accept-Ranges", "bytes")
}

enum Range {
    Whole,
    Part { first: u64, last: u64 },
    Unsatisfiable,
}

/// One byte range (RFC 9110 section 14.1.2). A list of ranges, or what is no range, is
/// ignored, as a server may.
fn parse_range(value: &str, total: u64) -> Range {
    let Some((first, last)) = value.strip_prefix("bytes=").and_then(|one| one.split_once('-'))
    else {
        return Range::Whole;
    };
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(total.saturating_sub(1))),
        (Ok(first), Err(_)) if last.is_empty() => (first, total.saturating_sub(1)),
        (Err(_), Ok(0)) if first.is_empty() => return Range::Unsatisfiable,
        (Err(_), Ok(suffix)) if first.is_empty() => {
            (total.saturating_sub(suffix), total.saturating_sub(1))
        }
        _ => return Range::Whole,
    };
    if first < total { Range::Part { first, last } } else { Range::Unsatisfiable }
}

/// Tags in order, a page at a time when `n` is given (specification, "Listing Tags").
fn tags(state: &State, request: &Request, repository: &str) -> Response {
    let repositories = state.repositories.lock().unwrap();
    let Some(known) = repositories.get(repository) else {
        return Response::error(404, "NAME_UNKNOWN", "repository name not known to registry");
    };
    let all: Vec<_> = known.tags.keys().map(|tag| (tag.clone(), json!(tag))).collect();
    let (page, link) = page(state, request, all, "");
    let response = Response::json(200, &json!({"name": repository, "tags": page}));
    match link {
        Some(query) => {
            response.header("Link", format!("</v2/{repository}/tags/list?{query}>; rel=\"next\""))
        }
        None => response,
    }
}

/// The manifests of the repository whose subject this is, by digest (specification, "Listing
/// Referrers").
fn referrers(state: &State, request: &Request, repository: &str, subject: &str) -> Response {
    let repositories = state.repositories.lock().unwrap();
    let wanted = request.query("artifactType").into_iter().next();
    let mut all = Vec::new();
    for (digest, manifest) in repositories.get(repository).iter().flat_map(|it| &it.manifests) {
        let bytes = manifest.content.to_vec();
        let Ok(document) = serde_json::from_slice::<Value>(&bytes) else { continue };
        let artifact_type = match &document["artifactType"] {
            Value::Null => document["config"]["mediaType"].clone(),
            own => own.clone(),
        };
        let is_wanted = wanted.as_deref().is_none_or(|it| artifact_type == it);
        if document["subject"]["digest"] == subject && is_wanted {
            let descriptor = json!({
                "mediaType": manifest.media_type,
                "digest": digest,
                "size": bytes.len(),
                "artifactType": artifact_type,
            });
            all.push((digest.clone(), descriptor));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let filter = wanted.as_ref().map(|it| it.replace('+', "%2B"));
    let filter = filter.map(|it| format!("artifactType={it}&")).unwrap_or_default();
    let (page, link) = page(state, request, all, &filter);
    let index = json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": page});
    let mut response = Response::new(200)
        .header("Content-Type", media::INDEX)
        .body(index.to_string().into_bytes());
    if wanted.is_some() {
        response = response.header("OCI-Filters-Applied", "artifactType");
    }
    match link {
        Some(query) => {
            let target = format!("/v2/{repository}/referrers/{subject}?{query}");
            response.header("Link", format!("<{target}>; rel=\"next\""))
        }
        None => response,
    }
}

/// The entries after `last`, of which at most `n`, and at most as many as a page has here; and the
/// query that leads to the rest.
fn page(
    state: &State,
    request: &Request,
    all: Vec<(String, Value)>,
    filter: &str,
) -> (Vec<Value>, Option<String>) {
    let last = request.query("last").into_iter().next().unwrap_or_default();
    let wanted = request.query("n").first().and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
    let size = wanted.min(state.page);
    let mut left: Vec<_> = all.into_iter().filter(|(key, _)| *key > last).collect();
    let more = left.len() > size;
    left.truncate(size);
    let next = left.last().filter(|_| more);
    let next = next.map(|(last, _)| format!("{filter}n={size}&last={last}"));
    (left.into_iter().map(|(_, value)| value).collect(), next)
}
