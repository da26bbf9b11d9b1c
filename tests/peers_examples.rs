//! The examples of docs/registries.md, run as they stand there.
//!
//! Each runs in namespaces of its own, where the names in it are those of servers of this test, and
//! the home of the user is empty. No other address can be reached.
#![cfg(feature = "cli")]

#[path = "endpoints/authority.rs"]
mod authority;
#[path = "endpoints/proxy.rs"]
mod proxy;
#[path = "tools/store.rs"]
mod store;
#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use authority::{Authority, Front, Running};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proxy::Proxy;
use support::{Action, Bearer, Fault, Image, Layer, Recorded, Registry, Request};

/// Set in the process that is in the namespaces: which example it runs.
const INSIDE: &str = "LAYERSTORE_TEST_EXAMPLE";
const HOSTS: &str = "127.0.0.1 localhost\n\
                     127.0.0.2 registry-1.docker.io\n\
                     127.0.0.3 auth.docker.io\n\
                     127.0.0.4 registry.example\n\
                     127.0.0.5 registry.corp.example\n\
                     127.0.0.6 proxy.example\n";
const HOME: &str = "/home/me";
/// Who has which password at `registry.example`, and at Docker Hub.
const USERS: [(&str, &str); 3] = [("robot", "canary-robot"), ("a", "canary-a"), ("b", "canary-b")];

struct Example {
    heading: String,
    blocks: Vec<(String, Vec<String>)>,
}

/// The examples of the chapter; blocks of code elsewhere in the document would be run by nobody.
fn examples() -> Vec<Example> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/registries.md");
    let text = fs::read_to_string(path).unwrap();
    let (before, chapter) = text.split_once("\n## Worked examples\n").unwrap();
    assert!(!before.contains("```"), "an example stands outside of its chapter");
    let mut all = Vec::new();
    for section in chapter.split("\n### ").skip(1) {
        let mut lines = section.lines();
        let heading = lines.next().unwrap().to_owned();
        let mut blocks = Vec::new();
        while let Some(line) = lines.next() {
            if let Some(kind) = line.strip_prefix("```") {
                let block = lines.by_ref().take_while(|line| *line != "```");
                blocks.push((kind.to_owned(), block.map(str::to_owned).collect()));
            }
        }
        all.push(Example { heading, blocks });
    }
    all
}

#[test]
#[ignore = "needs root for namespaces, and docker-credential-pass: run ./tests/all"]
fn the_examples_of_the_document_run() {
    if let Ok(heading) = std::env::var(INSIDE) {
        let example = examples().into_iter().find(|it| it.heading == heading).unwrap();
        return inside(&example);
    }
    let hosts = tempfile::NamedTempFile::new().unwrap();
    fs::write(hosts.path(), HOSTS).unwrap();
    let script = "ip link set lo up && mount --bind \"$HOSTS\" /etc/hosts && \
        mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /home && exec \"$0\" \"$@\"";
    let all = examples();
    for example in &all {
        let status = Command::new("unshare")
            // What an example leaves running, as gpg its agent, ends with it.
            .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "the_examples_of_the_document_run", "--include-ignored"])
            .arg("--nocapture")
            .env(INSIDE, &example.heading)
            .env("HOSTS", hosts.path())
            .status()
            .expect("unshare can be run");
        assert!(status.success(), "{}: see above", example.heading);
    }
    println!("examples run: {}", all.len());
}

fn inside(example: &Example) {
    let servers = Servers::start(&example.heading);
    let mut pulls = 0;
    for (kind, lines) in &example.blocks {
        match kind.as_str() {
            "toml" => write_settings(lines),
            "console" => pulls += run_block(lines, &servers.system),
            other => panic!("{other} is not run"),
        }
    }
    assert!(pulls > 0, "nothing was pulled");
    servers.check(&example.heading);
}

/// The first line is a comment that says where it belongs.
fn write_settings(lines: &[String]) {
    let path = lines[0].strip_prefix("# ~").expect("it says where it belongs");
    let path = PathBuf::from(format!("{HOME}{path}"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, lines.join("\n")).unwrap();
}

fn shell(line: &str, system: &Path) -> Output {
    let bin = Path::new(env!("CARGO_BIN_EXE_store")).parent().unwrap();
    Command::new("sh")
        .args(["-c", line])
        .current_dir(HOME)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("HOME", HOME)
        .env("STORE_ROOT", format!("{HOME}/store"))
        .env("XDG_RUNTIME_DIR", "/run/user/1000")
        // The authorities of the system.
        .env("SSL_CERT_FILE", system)
        .output()
        .unwrap()
}

/// Runs each line after a `$`, and compares what it prints with the lines below; `…` is any rest of a
/// line. Returns how many pulls there were.
fn run_block(lines: &[String], system: &Path) -> usize {
    let mut pulls = 0;
    let mut lines = lines.iter().peekable();
    while let Some(line) = lines.next() {
        let command = line.strip_prefix("$ ").expect("a command");
        let output = shell(command, system);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors}");
        assert!(!errors.contains("canary"), "{command}: {errors}");
        let printed = String::from_utf8(output.stdout).unwrap();
        let mut expected = Vec::new();
        while let Some(next) = lines.next_if(|line| !line.starts_with("$ ")) {
            expected.push(next);
        }
        let same = |(is, shown): (&str, &&String)| match shown.split_once('…') {
            Some((beginning, "")) => is.starts_with(beginning),
            _ => is == shown.as_str(),
        };
        let counts = (printed.lines().count(), expected.len());
        assert_eq!(counts.0, counts.1, "{command}: {printed}");
        assert!(printed.lines().zip(&expected).all(same), "{command}: {printed}");
        pulls += usize::from(command.contains("store pull"));
    }
    pulls
}

struct Servers {
    hub: Registry,
    tokens: Registry,
    registry: Registry,
    corp: Registry,
    mirror: Registry,
    proxy: Proxy,
    image: Image,
    system: PathBuf,
    _fronts: Vec<Running>,
}

impl Servers {
    fn start(heading: &str) -> Servers {
        let image = Image::of(&[Layer::generated(1, 100_000), Layer::files(&[("a", b"b")])]);
        let tokens = Registry::start();
        let bearer = match heading {
            LIMITED => Bearer::user(USERS[0].0, USERS[0].1),
            _ => Bearer::anonymous(),
        };
        let bearer = bearer.service("registry.docker.io").realm("https://auth.docker.io/token");
        let hub = Registry::builder().bearer(bearer).token_server(&tokens).start();
        let (registry, corp) = (guarded(), Registry::start());
        let mirror = Registry::builder().host(Ipv4Addr::LOCALHOST).port(5000).start();
        for (server, names) in [
            (&hub, &["library/alpine:3.20"][..]),
            (&mirror, &["library/alpine:3.20"]),
            (&corp, &["demo:1", "demo:2"]),
            (&registry, &["team/app:1", "team-a/app:1", "team-b/app:1"]),
        ] {
            for name in names {
                let (repository, tag) = name.split_once(':').unwrap();
                server.push(repository, tag, &image);
            }
        }
        mirror.remove_blob(&image.layers[0].digest);
        let busy = Action::status(429, &[("Retry-After", "1")], "");
        hub.fault(Fault::on("GET", "/manifests/").times(1).then(busy));

        let (authority, ours) = (Authority::new(), Authority::new());
        fs::create_dir_all(HOME).unwrap();
        fs::create_dir_all("/run/user/1000").unwrap();
        let home = |name: &str| Path::new(HOME).join(name);
        for (user, file) in USERS.iter().zip(["token", "token-a", "token-b"]) {
            fs::write(home(file), user.1).unwrap();
        }
        fs::write(home("our-ca.crt"), &ours.pem).unwrap();
        fs::write(home("system.pem"), &authority.pem).unwrap();
        if heading == HELPER {
            prepare_pass(&home("system.pem"));
        }
        let fronts = [
            (&authority, "registry-1.docker.io", "127.0.0.2", 443, &hub),
            (&authority, "auth.docker.io", "127.0.0.3", 443, &tokens),
            (&authority, "registry.example", "127.0.0.4", 443, &registry),
            (&ours, "registry.corp.example", "127.0.0.5", 5443, &corp),
        ]
        .map(|(authority, name, host, port, server)| {
            let front = Front::new(authority.certify(name));
            Front { host, port, ..front }.start(&server.address())
        });
        let proxy = Proxy::start_at("127.0.0.6:3128", "");
        let system = home("system.pem");
        Servers {
            hub,
            tokens,
            registry,
            corp,
            mirror,
            proxy,
            image,
            system,
            _fronts: fronts.into(),
        }
    }

    /// Whether the example did what the text around it says.
    fn check(&self, heading: &str) {
        let asked = |server: &Registry| server.requests().len();
        let layer = &self.image.layers[0].digest;
        match heading {
            "A private registry" | HELPER | "Once, in a script" | "Two users of one registry" => {
                assert!(self.registry.blob_sends(layer) > 0);
                assert_eq!((asked(&self.hub), asked(&self.mirror)), (0, 0));
            }
            "A mirror of Docker Hub" | "The same mirror, as containerd has it" => {
                // containerd's way adds a query to the path.
                let other = &self.image.layers[1].digest;
                let sent = |it: &Recorded| it.path.contains(other) && it.status == 200;
                assert_eq!(self.mirror.requests().iter().filter(|it| sent(it)).count(), 1);
                let of_hub = self.hub.requests();
                assert!(!of_hub.is_empty() && of_hub.iter().all(|it| it.path.contains(layer)));
            }
            "A registry without the internet, with an authority of its own" => {
                assert!(self.corp.blob_sends(layer) > 0);
                fs::remove_dir_all(format!("{HOME}/.config")).unwrap();
                let pull = "store pull registry.corp.example:5443/demo:1";
                assert_eq!(shell(pull, &self.system).status.code(), Some(6), "without the files");
            }
            LIMITED => {
                let requests = self.hub.requests();
                assert_eq!(requests.iter().filter(|it| it.status == 429).count(), 1);
                assert!(self.hub.blob_sends(layer) == 1 && asked(&self.tokens) > 0);
                let pull = "store pull --policy missing alpine:3.20";
                assert!(shell(pull, &self.system).status.success());
                assert_eq!(asked(&self.hub), requests.len(), "it asks nobody");
            }
            "Behind a proxy" => {
                let heads = self.proxy.heads();
                let to = |name: &str| {
                    heads.iter().any(|it| it.starts_with(&format!("CONNECT {name}:443 ")))
                };
                assert!(to("registry-1.docker.io") && to("auth.docker.io"), "{heads:?}");
            }
            other => panic!("nothing says what {other:?} has to do"),
        }
    }
}

const HELPER: &str = "A password that no file has";
const LIMITED: &str = "Docker Hub and its rate limit";

/// A registry that lets each user to their own repositories.
fn guarded() -> Registry {
    let registry = Registry::start();
    let stranger = |request: &Request| {
        let may = |(user, password): &(&str, &str)| {
            let path = request.path();
            let theirs = match *user {
                "robot" => path.contains("/team/"),
                user => path.contains(&format!("/team-{user}/")),
            };
            let proof = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            request.header("authorization") == Some(&proof) && (theirs || path == "/v2/")
        };
        !USERS.iter().any(may)
    };
    let refusal = Action::status(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], "");
    registry.fault(Fault::on("", "/v2/").when(stranger).then(refusal));
    registry
}

/// What users of `pass` have done once.
fn prepare_pass(system: &Path) {
    let key = "gpg --batch --passphrase '' --quick-generate-key me@example default";
    for line in [key, "pass init me@example"] {
        let output = shell(line, system);
        assert!(output.status.success(), "{output:?}");
    }
}
