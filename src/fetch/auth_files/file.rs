//! What an auth file says (containers-auth.json(5), and Docker's `config.json`): parsed and changed
//! without any I/O. No error has anything in it of what the file says.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize as _};
use serde_json::{Map, Value, json};

use super::key::{LoginKey, namespaces, stands_for};
use crate::fetch::{Credentials, Secret};

/// With padding or without: tools differ.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What of an entry is a secret, or says whose.
const OWN_FIELDS: [&str; 5] = ["auth", "username", "password", "identitytoken", "registrytoken"];

/// A file, as far as it matters here.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct AuthFile {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Where a file says the credentials are.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    Here(Credentials),
    /// With this helper, which has the last word in this file.
    Helper(String),
    Nowhere,
}

impl AuthFile {
    /// The error reads after the file's name and a colon.
    pub(super) fn parse(bytes: &[u8]) -> Result<AuthFile, String> {
        parse(bytes)
    }

    /// Credentials for a repository of a registry, or for the registry.
    pub(super) fn find(&self, registry: &str, repository: Option<&str>) -> Result<Found, String> {
        if let Some(helper) = self.named_helper(registry) {
            return Ok(Found::Helper(helper.to_owned()));
        }
        let known = |key: &str| self.auths.as_ref()?.get(key)?.as_ref();
        let exact = namespaces(registry, repository);
        let exact = exact.iter().filter_map(|key| known(key));
        let spelt = self.auths.iter().flatten();
        let spelt =
            spelt.filter(|(key, _)| stands_for(key, registry)).filter_map(|it| it.1.as_ref());
        for entry in exact.chain(spelt) {
            let broken = |reason| format!("its entry for {registry} {reason}");
            if let Some(credentials) = entry.credentials().map_err(broken)? {
                return Ok(Found::Here(credentials));
            }
        }
        Ok(self.store().map_or(Found::Nowhere, |name| Found::Helper(name.to_owned())))
    }

    /// The helper that keeps the credentials of a registry.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        self.named_helper(registry).or_else(|| self.store())
    }

    /// Every helper.
    pub(super) fn helpers(&self) -> Vec<&str> {
        let named = self.helpers.iter().flatten().map(|(_, name)| name.as_str());
        let mut names: Vec<_> = named.filter(|name| !name.is_empty()).chain(self.store()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn named_helper(&self, registry: &str) -> Option<&str> {
        let mut named = self.helpers.iter().flatten();
        let found = named.find(|(key, _)| stands_for(key, registry));
        found.map(|(_, name)| name.as_str()).filter(|name| !name.is_empty())
    }

    fn store(&self) -> Option<&str> {
        self.store.as_deref().filter(|name| !name.is_empty())
    }
}

impl Entry {
    /// What is sent as it is comes before what has to be exchanged, as with `docker`.
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            // As RFC 6750 has it, section 2.1; above all no line break and no space.
            return match token.bytes().all(|b| b.is_ascii_graphic()) {
                true => Ok(Some(Credentials::RegistryToken(Secret::new(token)))),
                false => Err("has a token with characters that no token may have"),
            };
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credentials::IdentityToken(Secret::new(token))));
        }
        match (given(&self.auth), given(&self.username)) {
            (Some(auth), _) => decode(&auth).map(Some),
            (None, Some(username)) => {
                Ok(given(&self.password).map(|password| Credentials::new(username, password)))
            }
            (None, None) => Ok(None),
        }
    }
}

/// `auth`: base64 of the user, a colon and the password.
fn decode(auth: &str) -> Result<Credentials, &'static str> {
    let bytes = LENIENT.decode(auth.trim()).map_err(|_| "is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "is not text in base64")?;
    let (username, password) =
        text.split_once(':').ok_or("is not a user, a colon and a password in base64")?;
    // Older versions of docker filled up with zeros.
    Ok(Credentials::new(username, password.trim_end_matches('\0')))
}

/// An empty file says nothing, as one that is not there.
fn parse<T: for<'a> Deserialize<'a> + Default>(bytes: &[u8]) -> Result<T, String> {
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes).map_err(|error| {
        // The library's own text would show a piece of the file.
        let what = match error.is_data() {
            true => "does not have the form of an auth file",
            false => "is not JSON",
        };
        format!("it {what} (line {}, column {})", error.line(), error.column())
    })
}

/// The same file with these credentials in it; everything else is kept.
pub(super) fn with(
    bytes: &[u8],
    key: &LoginKey,
    username: &str,
    password: &Secret,
) -> Result<Vec<u8>, String> {
    let mut file: Map<String, Value> = parse(bytes)?;
    let auths = file.entry("auths").or_insert_with(|| json!({}));
    if auths.is_null() {
        *auths = json!({});
    }
    let auths = auths.as_object_mut().ok_or("its auths are not an object")?;
    // Who spelt it otherwise would not find it under a second name.
    let own = key.to_string();
    let spelt = || auths.keys().find(|it| is_of(it, key)).cloned();
    let name = if auths.contains_key(&own) { own } else { spelt().unwrap_or(own) };
    auths.retain(|it, _| *it == name || !is_of(it, key));
    let entry = auths.entry(name).or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    if let Some(entry) = entry.as_object_mut() {
        entry.retain(|field, _| !OWN_FIELDS.contains(&field.as_str()));
        let auth = STANDARD.encode(format!("{username}:{}", password.expose()));
        entry.insert("auth".to_owned(), Value::String(auth));
    }
    written(&file)
}

/// The same file without credentials for `key`, or without any; nothing if there are none.
pub(super) fn without(bytes: &[u8], key: Option<&LoginKey>) -> Result<Option<Vec<u8>>, String> {
    let mut file: Map<String, Value> = parse(bytes)?;
    let Some(auths) = file.get_mut("auths").and_then(Value::as_object_mut) else {
        return Ok(None);
    };
    let before = auths.len();
    auths.retain(|it, _| key.is_some_and(|key| !is_of(it, key)));
    match auths.len() == before {
        true => Ok(None),
        false => written(&file).map(Some),
    }
}

fn is_of(entry: &str, key: &LoginKey) -> bool {
    entry == key.to_string() || (key.is_whole_registry() && stands_for(entry, key.registry()))
}

/// As docker and podman write it.
fn written(file: &Map<String, Value>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, format);
    file.serialize(&mut serializer).map_err(|_| "it cannot be written as JSON")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// For fuzz targets: a login can be read again, changes nothing else, and a logout takes it away.
#[cfg(any(test, fuzzing))]
pub(in crate::fetch) fn check(bytes: &[u8]) {
    for name in ["quay.io", "docker.io", "quay.io/team/app"] {
        let Ok(key) = name.parse::<LoginKey>() else { unreachable!("it is a registry") };
        let image = key.as_image();
        let find =
            |bytes: &[u8]| AuthFile::parse(bytes)?.find(key.registry(), Some(image.repository()));
        let before = find(bytes);
        let changed = with(bytes, &key, "me", &Secret::new("s:t"));
        if before.is_ok() {
            let others = |bytes: &[u8]| {
                let mut file: Map<String, Value> = parse(bytes).unwrap_or_default();
                file.remove("auths");
                file
            };
            // What is not looked at may still be what no JSON is.
            let Ok(changed) = changed else { continue };
            assert_eq!(others(&changed), others(bytes));
            match find(&changed) {
                Ok(Found::Here(found)) => assert_eq!(found, Credentials::new("me", "s:t")),
                Ok(Found::Helper(_)) => {}
                other => unreachable!("a login is lost: {}", other.is_ok()),
            }
            let gone = without(&changed, Some(&key));
            let Ok(Some(gone)) = gone else { unreachable!("there is something to forget") };
            assert_eq!(without(&gone, Some(&key)), Ok(None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(user: &str) -> String {
        STANDARD.encode(format!("{user}:pass:word"))
    }

    fn find(file: &str, registry: &str, repository: Option<&str>) -> Result<Found, String> {
        AuthFile::parse(file.as_bytes())?.find(registry, repository)
    }

    fn user(name: &str) -> Result<Found, String> {
        Ok(Found::Here(Credentials::new(name, "pass:word")))
    }

    #[test]
    fn the_longest_namespace_wins() {
        let entry = |key: &str| format!("{key:?}:{{\"auth\":{:?}}}", auth(&key.replace(':', " ")));
        let entries = ["r.io", "r.io/a", "r.io/a/b", "r.io:5000"].map(entry).join(",");
        let file = format!("{{\"auths\":{{{entries}}}}}");
        for (registry, repository, expected) in [
            ("r.io", "a/b", "r.io/a/b"),
            ("r.io", "a/b/c", "r.io/a/b"),
            ("r.io", "a/bc", "r.io/a"),
            ("r.io", "b", "r.io"),
            ("r.io:5000", "a/b", "r.io 5000"),
        ] {
            assert_eq!(find(&file, registry, Some(repository)), user(expected), "{repository}");
        }
        for other in ["r.io:443", "io", "x.r.io", "r.io.evil"] {
            assert_eq!(find(&file, other, Some("a/b")), Ok(Found::Nowhere), "{other}");
        }
    }

    #[test]
    fn spellings_of_old() {
        let file = |key: &str| format!(r#"{{"auths":{{"{key}":{{"auth":"{}"}}}}}}"#, auth("u"));
        for (key, registry) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("docker.io/library", "docker.io"),
            ("https://r.io/v2/", "r.io"),
            ("http://r.io", "r.io"),
        ] {
            assert_eq!(find(&file(key), registry, Some("library/x")), user("u"), "{key}");
            assert_eq!(find(&file(key), "q.io", Some("library/x")), Ok(Found::Nowhere), "{key}");
        }
    }

    #[test]
    fn kinds_of_entries() {
        let password = auth("u");
        let cases = [
            (format!(r#""auth":"{password}""#), user("u").unwrap()),
            (format!(r#""auth":"{}""#, password.trim_end_matches('=')), user("u").unwrap()),
            (r#""username":"u","password":"pass:word""#.to_owned(), user("u").unwrap()),
            (
                format!(r#""auth":"{password}","identitytoken":"i""#),
                Found::Here(Credentials::IdentityToken(Secret::new("i"))),
            ),
            (
                r#""identitytoken":"i","registrytoken":"r""#.to_owned(),
                Found::Here(Credentials::RegistryToken(Secret::new("r"))),
            ),
            (r#""auth":"","email":"e""#.to_owned(), Found::Nowhere),
            (String::new(), Found::Nowhere),
        ];
        for (entry, expected) in cases {
            let file = format!(r#"{{"auths":{{"r.io":{{{entry}}}}},"x":[1]}}"#);
            assert_eq!(find(&file, "r.io", None).unwrap(), expected, "{entry}");
        }
        let padded = STANDARD.encode("u:p\0\0");
        assert_eq!(decode(&padded), Ok(Credentials::new("u", "p")));
    }

    #[test]
    fn helpers() {
        let file = format!(
            r#"{{"auths":{{"r.io":{{"auth":"{0}"}},"h.io":{{"auth":"{0}"}},"e.io":{{}}}},
            "credHelpers":{{"h.io":"own","docker.io":"hub"}},"credsStore":"all"}}"#,
            auth("u")
        );
        let helper = |name: &str| Ok(Found::Helper(name.to_owned()));
        assert_eq!(find(&file, "r.io", None), user("u"));
        assert_eq!(find(&file, "h.io", Some("x")), helper("own"));
        assert_eq!(find(&file, "docker.io", None), helper("hub"));
        assert_eq!(find(&file, "e.io", None), helper("all"));
        assert_eq!(find(&file, "other.io", None), helper("all"));
        let file = AuthFile::parse(file.as_bytes()).unwrap();
        assert_eq!((file.helper("h.io"), file.helper("r.io")), (Some("own"), Some("all")));
        assert_eq!(file.helpers(), ["all", "hub", "own"]);
    }

    #[test]
    fn broken_files_are_not_echoed() {
        for file in [
            "canary",
            r#"{"auths":{"r.io":{"auth":"canary"#,
            r#"{"auths":{"r.io":{"auth":["canary"]}}}"#,
            r#"{"auths":{"r.io":"canary"}}"#,
            r#"{"auths":"canary"}"#,
            r#"{"credHelpers":{"canary":7}}"#,
            r#"{"credsStore":{"canary":1}}"#,
            r#"["canary"]"#,
            r#"{"auths":{"r.io":{"auth":"canary!"}}}"#,
            r#"{"auths":{"r.io":{"auth":"Y2FuYXJ5"}}}"#,
            r#"{"auths":{"r.io":{"registrytoken":"canary\n"}}}"#,
        ] {
            let error = find(file, "r.io", None).unwrap_err();
            assert!(
                !error.contains("canary") && error.starts_with("its") | error.starts_with("it ")
            );
            assert!(error.contains("line") || error.contains("r.io"), "{error}");
        }
        assert_eq!(find(" \n", "r.io", None), Ok(Found::Nowhere));
        assert_eq!(find(r#"{"auths":null,"x":null}"#, "r.io", None), Ok(Found::Nowhere));
    }

    #[test]
    fn a_login_keeps_everything_else() {
        let file = r#"{"z":{"k":[1,2.50]},"auths":{"q.io":{"auth":"eHg="},
            "r.io":{"auth":"old","identitytoken":"old","email":"e"},"https://r.io/v1/":{}},"a":1}"#;
        let password = Secret::new("p");
        let bytes = with(file.as_bytes(), &"r.io".parse().unwrap(), "u", &password).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["auths"]["r.io"], json!({"email": "e", "auth": "dTpw"}));
        assert_eq!(value["auths"].as_object().unwrap().len(), 2, "{text}");
        assert_eq!((&value["z"], &value["a"]), (&json!({"k": [1, 2.5]}), &json!(1)));
        assert!(text.find("\"z\"") < text.find("\"auths\""), "{text}");

        let gone = without(&bytes, Some(&"r.io".parse().unwrap())).unwrap().unwrap();
        let gone: Value = serde_json::from_slice(&gone).unwrap();
        assert_eq!(gone["auths"], json!({"q.io": {"auth": "eHg="}}));
        assert_eq!(without(&bytes, Some(&"s.io".parse().unwrap())), Ok(None));
        let none = without(&bytes, None).unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&none).unwrap()["auths"], json!({}));
        assert_eq!(without(b"", None), Ok(None));
    }

    #[test]
    fn a_login_uses_the_spelling_that_is_there() {
        let file = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"eHg="}}}"#;
        let hub = "docker.io".parse().unwrap();
        let bytes = with(file.as_bytes(), &hub, "u", &Secret::new("p")).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["auths"], json!({"https://index.docker.io/v1/": {"auth": "dTpw"}}));
        let fresh = with(b"", &"r.io/team".parse().unwrap(), "u", &Secret::new("p")).unwrap();
        let value: Value = serde_json::from_slice(&fresh).unwrap();
        assert_eq!(value, json!({"auths": {"r.io/team": {"auth": "dTpw"}}}));
    }
}
