//! What a registry asks for with `WWW-Authenticate`: parsed and judged, without any I/O.

use http_auth::{ChallengeRef, ParamValue};
use reqwest::Url;

use super::origin::{Origin, Scheme};

/// The longest scope that is repeated to a token server, in bytes.
const MAX_SCOPE: usize = 2048;

/// Token servers on another host than their registry, where that is known to be right: the
/// registry's host, and the token server's.
const KNOWN_REALMS: [(&str, &str); 2] =
    [("registry-1.docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

/// One way to prove who one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with every request (RFC 7617).
    Basic,
    /// A token from a token server (distribution: "Token Authentication Specification").
    Bearer(Bearer),
}

/// Where a token is to be had, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
}

impl Challenge {
    /// Picks from the values of `WWW-Authenticate` what can be answered: Bearer before Basic,
    /// since a token is worth less to a thief than a password.
    ///
    /// The error reads after "the registry".
    pub(super) fn choose<'a>(
        values: impl IntoIterator<Item = &'a str>,
        registry: &Origin,
    ) -> Result<Challenge, String> {
        let (mut basic, mut broken) = (false, false);
        let mut others = Vec::new();
        for value in values {
            let Ok(challenges) = http_auth::parse_challenges(value) else {
                broken = true;
                continue;
            };
            for challenge in challenges {
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    return Bearer::read(&challenge, registry).map(Challenge::Bearer);
                }
                match challenge.scheme.eq_ignore_ascii_case("basic") {
                    true => basic = true,
                    false => others.push(challenge.scheme.to_owned()),
                }
            }
        }
        match basic {
            true => Ok(Challenge::Basic),
            false if broken => {
                Err("asks for credentials in a way that cannot be parsed".to_owned())
            }
            false if others.is_empty() => Err("does not say how to authenticate".to_owned()),
            false => Err(format!(
                "only knows authentication that this program does not: {}",
                others.join(", ")
            )),
        }
    }
}

impl Bearer {
    fn read(challenge: &ChallengeRef<'_>, registry: &Origin) -> Result<Bearer, String> {
        let parameter = |name: &str| {
            let mut found =
                challenge.params.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
            found.next().map(|(_, value)| ParamValue::to_unescaped(value))
        };
        let realm = parameter("realm").ok_or("asks for a token and does not say from where")?;
        let realm =
            Url::parse(&realm).map_err(|_| "names a token server that is not an address")?;
        check_realm(&realm, registry)?;
        let scope = parameter("scope").as_deref().and_then(pull_only);
        Ok(Bearer { realm, service: parameter("service"), scope })
    }
}

/// Whether tokens may be had from there at all.
fn check_realm(realm: &Url, registry: &Origin) -> Result<(), &'static str> {
    let Some(origin) = Origin::of(realm) else {
        return Err("names a token server that is neither http nor https");
    };
    if origin.scheme() == Scheme::Http && registry.scheme() == Scheme::Https {
        return Err("names a token server without encryption although it has encryption itself");
    }
    if !realm.username().is_empty() || realm.password().is_some() {
        return Err("names a token server with a user in its address");
    }
    Ok(())
}

/// Whether credentials for `registry` may go to this token server without anybody being asked:
/// on the same host they may, whatever the port.
pub(super) fn is_known_realm(registry: &Origin, realm: &Origin) -> bool {
    let hosts = (registry.host(), realm.host());
    hosts.0 == hosts.1 || (realm.scheme() == Scheme::Https && KNOWN_REALMS.contains(&hosts))
}

/// The scope that a registry asks for, less what a pull has no need of: a token goes back to the
/// registry, which could otherwise ask for the right to push, and use it. Nothing where the scope
/// is not a list of scope tokens (RFC 6749, section 3.3).
fn pull_only(scope: &str) -> Option<String> {
    let sound = |b: u8| b == b' ' || (b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'));
    if scope.len() > MAX_SCOPE || !scope.bytes().all(sound) {
        return None;
    }
    let reduced: Vec<_> = scope
        .split_ascii_whitespace()
        .map(|token| match token.rsplit_once(':') {
            Some((resource, _)) if resource.starts_with("repository:") => {
                format!("{resource}:pull")
            }
            _ => token.to_owned(),
        })
        .collect();
    (!reduced.is_empty()).then(|| reduced.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(&text.parse().unwrap()).unwrap()
    }

    fn choose(values: &[&str]) -> Result<Challenge, String> {
        Challenge::choose(values.iter().copied(), &origin("https://r.example"))
    }

    fn bearer(value: &str) -> Bearer {
        match choose(&[value]) {
            Ok(Challenge::Bearer(bearer)) => bearer,
            other => panic!("{value}: {other:?}"),
        }
    }

    #[test]
    fn bearer_as_registries_write_it() {
        let hub = bearer(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#,
        );
        assert_eq!(hub.realm.as_str(), "https://auth.docker.io/token");
        assert_eq!(hub.service.as_deref(), Some("registry.docker.io"));
        assert_eq!(hub.scope.as_deref(), Some("repository:library/alpine:pull"));

        let odd = bearer(r#"bearer Realm="https://r.example/t?a=\"b\"" , SERVICE=plain"#);
        assert_eq!(odd.realm.as_str(), "https://r.example/t?a=%22b%22");
        assert_eq!((odd.service.as_deref(), odd.scope), (Some("plain"), None));
    }

    #[test]
    fn bearer_is_chosen_before_basic() {
        let (basic, bearer) = (r#"Basic realm="x""#, r#"Bearer realm="https://r.example/t""#);
        assert_eq!(choose(&[basic]), Ok(Challenge::Basic));
        for values in [&[basic, bearer][..], &[bearer, basic], &[&format!("{basic}, {bearer}")]] {
            assert!(matches!(choose(values), Ok(Challenge::Bearer(_))), "{values:?}");
        }
        assert_eq!(choose(&["Negotiate", basic]), Ok(Challenge::Basic));
        assert_eq!(choose(&["Bearer realm=\"", basic]), Ok(Challenge::Basic));
    }

    #[test]
    fn challenges_without_an_answer() {
        let cases = [
            (&[][..], "does not say how"),
            (&["Negotiate", r#"Digest realm="x", nonce="y""#][..], "Negotiate, Digest"),
            (&[r#"Bearer realm="https://r"#, "Negotiate"][..], "cannot be parsed"),
            (&[r#"Bearer service="s""#][..], "does not say from where"),
            (&[r#"Bearer realm="/token""#][..], "not an address"),
            (&[r#"Bearer realm="http://r.example/token""#][..], "without encryption"),
            (&[r#"Bearer realm="file:///etc/passwd""#][..], "neither http nor https"),
            (&[r#"Bearer realm="https://u:p@r.example/t""#][..], "with a user"),
        ];
        for (values, reason) in cases {
            let error = choose(values).unwrap_err();
            assert!(error.contains(reason), "{values:?}: {error}");
        }
    }

    #[test]
    fn a_registry_without_encryption_may_have_such_a_token_server() {
        let realm = r#"Bearer realm="http://127.0.0.1:5001/token""#;
        assert!(Challenge::choose([realm], &origin("http://127.0.0.1:5000")).is_ok());
    }

    #[test]
    fn credentials_go_to_known_token_servers_only() {
        let known = |registry, realm| is_known_realm(&origin(registry), &origin(realm));
        assert!(known("https://r.example", "https://r.example:8443"));
        assert!(known("https://registry-1.docker.io", "https://auth.docker.io"));
        assert!(known("https://registry.gitlab.com", "https://gitlab.com"));
        assert!(!known("https://r.example", "https://auth.docker.io"));
        assert!(!known("https://r.example", "https://auth.r.example"));
        assert!(!known("https://registry-1.docker.io", "https://auth.docker.io.evil.example"));
        assert!(!known("http://registry-1.docker.io", "http://auth.docker.io"));
    }

    #[test]
    fn a_scope_is_reduced_to_pulling() {
        let cases = [
            ("repository:a/b:pull", Some("repository:a/b:pull")),
            ("repository:a/b:pull,push,delete", Some("repository:a/b:pull")),
            ("repository:a/b:*  repository:c:push", Some("repository:a/b:pull repository:c:pull")),
            ("repository:host:5000/a:push", Some("repository:host:5000/a:pull")),
            ("aws", Some("aws")),
            ("", None),
            (" ", None),
            ("repository:a:pull\r\nX: y", None),
            ("repository:a:pull\0", None),
            ("répository:a:pull", None),
        ];
        for (scope, expected) in cases {
            assert_eq!(pull_only(scope).as_deref(), expected, "{scope:?}");
        }
        assert_eq!(pull_only(&"a".repeat(MAX_SCOPE + 1)), None);
    }

    proptest::proptest! {
        #[test]
        fn choosing_never_panics(value in "(Bearer|Basic|X)?[ =,a-z\"\\\\:/]{0,60}") {
            let _ = choose(&[&value]);
        }
    }
}
