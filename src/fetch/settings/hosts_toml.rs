//! `hosts.toml`, as containerd reads it (docs/hosts.md there).

use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::toml_file::{parse, wrong};
use crate::error::Result;

/// What a file says: where to ask, in order.
#[derive(Clone, Debug)]
pub(super) struct HostsToml {
    /// The mirrors, in the order of the file.
    pub(super) hosts: Vec<Host>,
    /// Where the images come from; its address only where the file names one.
    pub(super) server: Host,
}

/// One server.
#[derive(Clone)]
pub(super) struct Host {
    /// Its address, with the path under which its repositories are.
    pub(super) url: Option<Url>,
    /// Whether it may say what a tag stands for.
    pub(super) resolves: bool,
    /// Whether it may be asked for what a digest names.
    pub(super) pulls: bool,
    pub(super) ca: Vec<PathBuf>,
    /// Certificate and key; without a key, both are in one file.
    pub(super) client: Vec<(PathBuf, Option<PathBuf>)>,
    pub(super) skip_verify: bool,
    /// Headers to send there, which may be secrets.
    pub(super) headers: HeaderMap,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("url", &self.url.as_ref().map(super::shown)).finish()
    }
}

#[derive(Deserialize)]
struct Top {
    #[serde(default)]
    server: String,
    #[serde(default)]
    host: InOrder,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    capabilities: Vec<String>,
    ca: Option<OneOrMany<String>>,
    client: Option<Clients>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: std::collections::BTreeMap<String, OneOrMany<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// One file, or files and pairs of files.
#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    One(String),
    Many(Vec<OneOrMany<String>>),
}

impl Clients {
    fn into_vec(self) -> Vec<Vec<String>> {
        match self {
            Clients::One(file) => vec![vec![file]],
            Clients::Many(many) => many.into_iter().map(OneOrMany::into_vec).collect(),
        }
    }
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

/// The tables of `[host]`: their order is the order of asking.
#[derive(Default)]
struct InOrder(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<InOrder, D::Error> {
        struct Tables;
        impl<'de> Visitor<'de> for Tables {
            type Value = InOrder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tables of hosts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(InOrder(all))
            }
        }
        deserializer.deserialize_map(Tables)
    }
}

impl HostsToml {
    /// Parses the file at `path`, whose directory is where its relative paths start.
    pub(super) fn parse(path: &Path, text: &str) -> Result<HostsToml> {
        let top: Top = parse(path, text)?;
        let server: Entry = parse(path, text)?;
        let hosts = top.host.0.into_iter().map(|(name, entry)| entry.check(path, &name));
        Ok(HostsToml {
            hosts: hosts.collect::<Result<_>>()?,
            server: server.check(path, &top.server)?,
        })
    }
}

impl Entry {
    fn check(self, path: &Path, name: &str) -> Result<Host> {
        let (mut resolves, mut pulls) =
            (self.capabilities.is_empty(), self.capabilities.is_empty());
        for capability in &self.capabilities {
            match capability.as_str() {
                "resolve" => resolves = true,
                "pull" => pulls = true,
                "push" | "referrers" => {}
                _ => {
                    let reason = format!("a host has the unknown capability {capability:?}");
                    return Err(wrong(path, reason));
                }
            }
        }
        let url =
            (!name.is_empty()).then(|| address(path, name, self.override_path)).transpose()?;
        let base = path.parent().unwrap_or(Path::new("/"));
        let ca = self.ca.map(OneOrMany::into_vec).unwrap_or_default();
        let client = self.client.map(Clients::into_vec).unwrap_or_default();
        let client = client.into_iter().map(|pair| match &pair[..] {
            [cert] => Ok((base.join(cert), None)),
            [cert, key] if key.is_empty() => Ok((base.join(cert), None)),
            [cert, key] => Ok((base.join(cert), Some(base.join(key)))),
            _ => Err(wrong(path, "a client is a certificate, or a certificate and its key")),
        });
        Ok(Host {
            url,
            resolves,
            pulls,
            ca: ca.iter().map(|file| base.join(file)).collect(),
            client: client.collect::<Result<_>>()?,
            skip_verify: self.skip_verify,
            headers: headers(path, self.header)?,
        })
    }
}

/// The root of the distribution API on a server: `/v2` at the end of what the file says, unless
/// the path is to be taken as it is.
fn address(path: &Path, name: &str, as_it_is: bool) -> Result<Url> {
    let text = match name.contains("://") {
        true => name.to_owned(),
        false => format!("https://{name}"),
    };
    let unusable = || wrong(path, "a host is not an http or https address");
    let mut url = Url::parse(&text).map_err(|_| unusable())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(unusable());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(wrong(path, "a host has a user or a query in its address"));
    }
    url.set_fragment(None);
    let trimmed = url.path().trim_end_matches('/').to_owned();
    match as_it_is || trimmed.ends_with("/v2") {
        true => url.set_path(&trimmed),
        false => url.set_path(&format!("{trimmed}/v2")),
    }
    Ok(url)
}

fn headers(
    path: &Path,
    table: std::collections::BTreeMap<String, OneOrMany<String>>,
) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, values) in table {
        let unusable = || wrong(path, "a host has a header that cannot be sent");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
        for value in values.into_vec() {
            let mut value = HeaderValue::from_str(&value).map_err(|_| unusable())?;
            value.set_sensitive(true);
            headers.append(name.clone(), value);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Result<HostsToml> {
        HostsToml::parse(Path::new("/etc/containerd/certs.d/r.example/hosts.toml"), text)
    }

    fn urls(hosts: &HostsToml) -> Vec<&str> {
        hosts.hosts.iter().filter_map(|it| it.url.as_ref()).map(Url::as_str).collect()
    }

    const SAMPLE: &str = r#"
server = "https://registry-1.docker.io"
ca = "upstream.pem"
capabilities = ["pull", "resolve"]
key-of-a-later-version = true

[host."https://z-first.example"]
  capabilities = ["pull"]
  ca = ["/etc/ssl/a.pem", "b.pem"]
  client = [["c.cert", "c.key"], ["d.pem", ""]]
  dial_timeout = "5s"
  [host."https://z-first.example".header]
    x-token = "hunter2"
    x-many = ["1", "2"]

[host."http://127.0.0.1:5000"]
  skip_verify = true

[host."a-last.example/harbor/v2/proxy"]
  override_path = true
"#;

    #[test]
    fn a_file_as_people_write_it() {
        let hosts = hosts(SAMPLE).unwrap();
        let expected = [
            "https://z-first.example/v2",
            "http://127.0.0.1:5000/v2",
            "https://a-last.example/harbor/v2/proxy",
        ];
        assert_eq!(urls(&hosts), expected);
        let first = &hosts.hosts[0];
        assert!(first.pulls && !first.resolves && !first.skip_verify);
        let below = |name| PathBuf::from("/etc/containerd/certs.d/r.example").join(name);
        assert_eq!(first.ca, [PathBuf::from("/etc/ssl/a.pem"), below("b.pem")]);
        let clients = [(below("c.cert"), Some(below("c.key"))), (below("d.pem"), None)];
        assert_eq!(first.client, clients);
        assert_eq!(first.headers["x-token"], "hunter2");
        assert_eq!(first.headers.get_all("x-many").iter().count(), 2);
        assert!(!format!("{hosts:?}").contains("hunter2"));

        assert!(hosts.hosts[1].skip_verify && hosts.hosts[1].pulls && hosts.hosts[1].resolves);
        assert_eq!(hosts.server.url.as_ref().unwrap().as_str(), "https://registry-1.docker.io/v2");
        assert_eq!(hosts.server.ca, [below("upstream.pem")]);
    }

    #[test]
    fn all_ways_to_name_files() {
        let client = |text: &str| hosts(&format!("client = {text}\n")).unwrap().server.client;
        assert_eq!(client("\"/a.pem\""), [("/a.pem".into(), None)]);
        let two = [("/a".into(), None), ("/b".into(), None)];
        assert_eq!(client("[\"/a\", \"/b\"]"), two);
        assert_eq!(client("[[\"/a\", \"/b\"]]"), [("/a".into(), Some("/b".into()))]);
        assert!(hosts("").unwrap().server.url.is_none());
    }

    #[test]
    fn files_that_cannot_be_used() {
        let cases = [
            ("server = 7\n", "line 1"),
            ("\n[host.\"a.example\"]\ncapabilities = [\"fly\"]\n", "unknown capability \"fly\""),
            ("[host.\"ftp://a.example\"]\n", "not an http or https address"),
            ("[host.\"https://\"]\n", "not an http or https address"),
            ("[host.\"https://u:hunter2@a.example\"]\n", "a user or a query"),
            ("client = [[\"a\", \"b\", \"c\"]]\n", "a certificate and its key"),
            ("[header]\nx = \"hunter2\\n\"\n", "cannot be sent"),
            ("[header]\nx = hunter2\n", "line 2"),
            ("ca = [[\"a\"]]\n", "line 1"),
        ];
        for (text, reason) in cases {
            let error = hosts(text).unwrap_err().to_string();
            assert!(error.contains("r.example/hosts.toml"), "{error}");
            assert!(error.contains(reason), "{text:?}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(
            text in "(server=|\\[host\\.\"[a-z:/.@\\[\\]]{0,12}\"\\]\n|ca=|client=|\\[header\\]\n|\"[a-z/]{0,5}\"\n|\\PC|\n){0,30}"
        ) {
            let _ = hosts(&text);
        }
    }
}
