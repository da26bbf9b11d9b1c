//! What a case is played with: a registry, a user who has a login there, and a store.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, json};

use crate::front::{Authority, Front, Running};
use crate::library;
use crate::store_support;
use crate::support::{
    Action, Bearer, Builder, Content, Fault, FaultHandle, Image, Layer, Registry, Request,
    media_type,
};

pub(crate) const PASSWORD: &str = "canary-password";
/// The length of the layer that faults are about.
pub(crate) const SIZE: u64 = 200_000;

pub(crate) struct Scene {
    pub(crate) registry: Registry,
    /// Whoever else takes part, kept for as long as the scene.
    pub(crate) others: Vec<Registry>,
    fronts: Vec<Running>,
    pub(crate) image: Image,
    /// What the image is asked for as, and options before that.
    pub(crate) name: String,
    pub(crate) options: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) faults: Vec<FaultHandle>,
    logins: Map<String, serde_json::Value>,
    dir: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        let registry = Registry::builder().bearer(Bearer::user("user", PASSWORD)).start();
        let config = Layer::files(&[("etc/motd", b"hello")]);
        let image = Image::of(&[Layer::generated(7, SIZE), config]);
        registry.push("demo", "1", &image);
        let dir = tempfile::tempdir().unwrap();
        let mut scene = Scene {
            name: registry.reference("demo:1"),
            options: vec!["--plain-http".to_owned()],
            variables: Vec::new(),
            registry,
            others: Vec::new(),
            fronts: Vec::new(),
            image,
            faults: Vec::new(),
            logins: Map::new(),
            dir,
        };
        let store = layerstore::BlobStore::init(scene.root()).unwrap();
        store_support::add_image(&store, "kept.example/kept:1", &[b"a layer that was here before"]);
        scene.login(&scene.registry.address());
        scene
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn layer(&self) -> String {
        self.image.layers[0].digest.clone()
    }

    pub(crate) fn auth_file(&self) -> PathBuf {
        self.dir.path().join("auth.json")
    }

    /// Gives the user the password for one more host.
    pub(crate) fn login(&mut self, host: &str) {
        let auth = STANDARD.encode(format!("user:{PASSWORD}"));
        self.logins.insert(host.to_owned(), json!({"auth": auth}));
        std::fs::write(self.auth_file(), json!({"auths": self.logins}).to_string()).unwrap();
    }

    /// Puts a fault in place; the case fails if it never acts.
    pub(crate) fn on(&mut self, fault: Fault) {
        self.faults.push(self.registry.fault(fault));
    }

    /// Whatever is asked of the layer is answered like this.
    pub(crate) fn on_layer(&mut self, action: Action) {
        self.on(Fault::on("GET", &self.layer()).then(action));
    }

    /// The first answer breaks off, so that the rest is asked for by range; that is answered like this.
    pub(crate) fn on_rest(&mut self, action: Action) {
        let layer = self.layer();
        let is_range = |request: &Request| request.header("range").is_some();
        self.on(Fault::on("GET", &layer).when(is_range).then(action));
        self.on(Fault::on("GET", &layer).times(1).then(Action::CloseAfter(60_000)));
    }

    /// The manifest is answered like this.
    pub(crate) fn on_manifest(&mut self, action: Action) {
        self.on(Fault::on("GET", "/manifests/1").then(action));
    }

    /// The tag stands for this manifest.
    pub(crate) fn manifest(&mut self, bytes: impl Into<Vec<u8>>) {
        self.registry.put_manifest("demo", Some("1"), media_type::MANIFEST, bytes);
    }

    /// The tag stands for this index.
    pub(crate) fn index(&mut self, bytes: impl Into<Vec<u8>>) {
        self.registry.put_manifest("demo", Some("1"), media_type::INDEX, bytes);
    }

    /// The tag stands for an image whose manifest was changed.
    pub(crate) fn edited(&mut self, edit: impl FnOnce(&mut serde_json::Value)) {
        let image = self.image.edited(edit);
        self.registry.push("demo", "1", &image);
    }

    /// The registry refuses whom it does not know with this challenge.
    pub(crate) fn challenge(&mut self, challenge: &str) {
        let unknown = |request: &Request| request.header("authorization").is_none();
        let refusal = Action::status(401, &[("WWW-Authenticate", challenge)], "");
        self.on(Fault::on("", "/v2/").when(unknown).then(refusal));
    }

    /// Another registry takes the place of the one that there is.
    pub(crate) fn ask_another(&mut self, registry: Builder) {
        self.registry = registry.start();
        self.registry.push("demo", "1", &self.image);
        self.name = self.registry.reference("demo:1");
        self.login(&self.registry.address());
    }

    /// One more server, that has the layer and lets everybody in.
    pub(crate) fn another(&mut self) -> &Registry {
        let other = Registry::start();
        other.put_blob(Content::generated(7, SIZE));
        self.others.push(other);
        self.others.last().unwrap()
    }

    /// From now on the registry is reached by TLS alone, with a certificate that the user trusts.
    pub(crate) fn behind_tls(&mut self) {
        // Its tokens would have to be had by TLS too.
        self.ask_another(Registry::builder().basic("user", PASSWORD));
        let authority = Authority::new();
        let front = Front::new(authority.certify("127.0.0.1")).start(&self.registry.address());
        let ca = self.dir.path().join("ca.pem");
        std::fs::write(&ca, &authority.pem).unwrap();
        self.name = format!("{}/demo:1", front.address());
        self.options = vec![format!("--ca-file={}", ca.display())];
        self.login(&front.address());
        self.fronts.push(front);
    }

    /// The command with these arguments and nothing in its environment but what the case says.
    pub(crate) fn store(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_store"));
        command.env_clear().env("STORE_ROOT", self.root()).env("HOME", self.dir.path());
        command.envs(self.variables.iter().cloned()).args(args);
        command
    }

    /// The pull, by the command.
    pub(crate) fn pull(&self) -> Command {
        let mut command = self.store(&["pull", "-vvv"]);
        command.args(&self.options).arg("--authfile").arg(self.auth_file()).arg(&self.name);
        command
    }

    /// The pull, by the library in a process of its own.
    pub(crate) fn library(&self, plant: &str) -> Command {
        library::command(&self.root(), &self.auth_file(), &self.name, plant)
    }

    /// The registry comes to its senses, and has the image that it should have had.
    pub(crate) fn reform(&self) {
        self.registry.clear_faults();
        self.registry.push("demo", "1", &self.image);
    }

    /// All that anybody was shown to prove who asks.
    pub(crate) fn shown(&self) -> Vec<String> {
        let all = std::iter::once(&self.registry).chain(&self.others);
        let proof = |it: crate::support::Recorded| it.authorization;
        all.flat_map(|it| it.requests()).filter_map(proof).collect()
    }

    pub(crate) fn has_image(&self) -> bool {
        self.image.closure().iter().all(|(digest, content)| {
            let path: &Path = &self.root().join("blobs").join(digest.replace(':', "/"));
            std::fs::read(path).is_ok_and(|bytes| bytes == content.to_vec())
        })
    }
}
