//! Asking one server after the other: in which order, and what it means that all failed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::settings::{Endpoint, Step};
use super::transport::CONNECT;
use super::{Origin, Scheme};
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Reference};
use crate::store::Version;

/// How long a server that could not be connected to, or was slow, is asked after all others.
const REST: Duration = Duration::from_secs(30);
/// Of how many blobs it is remembered where they came from.
const MAX_RECORDS: usize = 20_000;

/// What has been learnt of servers so far.
#[derive(Default)]
pub(super) struct Ledger {
    blobs: Mutex<HashMap<(String, Digest), Record>>,
    resting: Mutex<HashMap<Origin, Instant>>,
    /// Who has answered over TLS: without it, they are asked for nothing any more.
    secure: Mutex<HashSet<Origin>>,
    /// Which versions of a blob there are, by server.
    versions: Mutex<HashMap<Digest, Vec<Version>>>,
}

/// What is known of a blob since it was last begun.
#[derive(Default)]
struct Record {
    /// Who sent bytes of it.
    served: Vec<(String, Origin)>,
    /// Whose bytes were not those of its digest.
    refuted: Vec<String>,
}

/// The servers that are left to ask for one thing, and why others failed.
pub(super) struct Attempts {
    ledger: Arc<Ledger>,
    /// The last is next.
    left: Vec<Step>,
    current: Option<Step>,
    without_tls: Vec<String>,
    errors: Vec<Error>,
}

impl Ledger {
    /// The servers to ask for what `digest` names, or else for what the name stands for.
    pub(super) fn attempts(
        self: &Arc<Self>,
        steps: &[Step],
        image: &Reference,
        digest: Option<&Digest>,
    ) -> Attempts {
        let refuted = digest.map(|digest| self.refuted(image, digest)).unwrap_or_default();
        let may = |step: &&Step| match digest {
            Some(_) => step.pulls && !refuted.contains(&step.endpoint.id()),
            None => step.resolves,
        };
        let (resting, awake): (Vec<_>, Vec<_>) =
            steps.iter().filter(may).cloned().partition(|step| self.rests(&step.endpoint.origin));
        // That a server without TLS rests says nothing of the one with it.
        let no_tls = |step: &&Step| {
            let origin = &step.endpoint.origin;
            origin.scheme() == Scheme::Https && !self.is_secure(origin)
        };
        let without_tls = resting.iter().filter(no_tls);
        let without_tls = without_tls.map(|step| step.endpoint.image.registry().to_owned());
        let without_tls = without_tls.collect();
        let left = awake.into_iter().chain(resting).rev().collect();
        let ledger = Arc::clone(self);
        Attempts { ledger, left, current: None, without_tls, errors: Vec::new() }
    }

    /// The versions of a blob that are known.
    pub(super) fn versions(&self, digest: &Digest) -> Vec<Version> {
        self.all_versions().get(digest).cloned().unwrap_or_default()
    }

    /// Notes the version that a server has, and says whether it is the one that it had before. If
    /// not, what it had is forgotten: it is begun anew.
    pub(super) fn is_version(&self, digest: &Digest, version: &Version) -> bool {
        let mut all = self.all_versions();
        if all.len() >= MAX_RECORDS && !all.contains_key(digest) {
            all.clear();
        }
        let versions = all.entry(*digest).or_default();
        let known = versions.iter().position(|known| known.origin == version.origin);
        match known {
            Some(at) if versions[at] != *version => {
                versions.remove(at);
                false
            }
            Some(_) => true,
            None => {
                versions.push(version.clone());
                true
            }
        }
    }

    /// Forgets which version a server had.
    pub(super) fn forget_version(&self, digest: &Digest, origin: &str) {
        if let Some(versions) = self.all_versions().get_mut(digest) {
            versions.retain(|known| known.origin != origin);
        }
    }

    fn all_versions(&self) -> MutexGuard<'_, HashMap<Digest, Vec<Version>>> {
        // Nothing that holds this lock can leave the map half changed.
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a server sends bytes of a blob.
    pub(super) fn served(&self, image: &Reference, digest: &Digest, endpoint: &Endpoint) {
        let mut blobs = self.blobs();
        let key = key(image, digest);
        if blobs.len() >= MAX_RECORDS && !blobs.contains_key(&key) {
            blobs.clear();
        }
        let record = blobs.entry(key).or_default();
        if record.served.iter().all(|(id, _)| *id != endpoint.id()) {
            record.served.push((endpoint.id(), endpoint.origin.clone()));
        }
    }

    /// Forgets who sent a blob, and whose bytes were wrong: one corrupt download, of this or of an
    /// earlier time, says nothing of the next.
    pub(super) fn begin(&self, image: &Reference, digest: &Digest) {
        self.blobs().remove(&key(image, digest));
    }

    pub(super) fn origins(&self, image: &Reference, digest: &Digest) -> Vec<Origin> {
        let blobs = self.blobs();
        let served = blobs.get(&key(image, digest)).map(|record| &record.served);
        served.into_iter().flatten().map(|(_, origin)| origin.clone()).collect()
    }

    /// Notes that what came was not the blob. Where several sent it, all but the last are blamed:
    /// mirrors come before the registry that they mirror. Says whether anybody is to blame.
    pub(super) fn distrust(&self, image: &Reference, digest: &Digest) -> bool {
        let mut blobs = self.blobs();
        let Some(record) = blobs.get_mut(&key(image, digest)) else {
            return false;
        };
        let mut blamed: Vec<_> = record.served.drain(..).map(|(id, _)| id).collect();
        if blamed.len() > 1 {
            blamed.pop();
        }
        let found = !blamed.is_empty();
        record.refuted.extend(blamed);
        found
    }

    fn refuted(&self, image: &Reference, digest: &Digest) -> Vec<String> {
        self.blobs().get(&key(image, digest)).map(|it| it.refuted.clone()).unwrap_or_default()
    }

    fn blobs(&self) -> MutexGuard<'_, HashMap<(String, Digest), Record>> {
        // Nothing that holds this lock can leave the map half changed.
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the server that was last found to send a blob sends next to nothing.
    pub(super) fn lagged(&self, image: &Reference, digest: &Digest) {
        if let Some(origin) = self.origins(image, digest).last() {
            self.rest(origin);
        }
    }

    /// Notes that a server has answered.
    pub(super) fn answered(&self, origin: &Origin) {
        if origin.scheme() == Scheme::Https && !self.is_secure(origin) {
            let mut secure = self.secure.lock().unwrap_or_else(PoisonError::into_inner);
            secure.insert(origin.clone());
        }
    }

    fn is_secure(&self, origin: &Origin) -> bool {
        self.secure.lock().unwrap_or_else(PoisonError::into_inner).contains(origin)
    }

    fn rests(&self, origin: &Origin) -> bool {
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.get(origin).is_some_and(|until| Instant::now() < *until)
    }

    fn rest(&self, origin: &Origin) {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.insert(origin.clone(), Instant::now() + REST);
    }
}

impl Attempts {
    /// The next server to ask.
    pub(super) fn next(&mut self) -> Option<Endpoint> {
        loop {
            let step = self.left.pop()?;
            let registry = step.endpoint.image.registry();
            if step.last_resort && self.without_tls.iter().all(|it| it != registry) {
                continue;
            }
            self.current = Some(step.clone());
            let mut endpoint = step.endpoint;
            endpoint.has_stand_in = self.left.iter().any(|step| !step.last_resort);
            return Some(endpoint);
        }
    }

    /// Whether there is nobody else.
    pub(super) fn is_over(&self) -> bool {
        self.left.is_empty()
    }

    /// Notes why the last one that was asked failed.
    pub(super) fn failed(&mut self, error: Error) {
        if let Some(step) = self.current.take() {
            // Connecting ends with the handshake of TLS. All that fails later, here or where this
            // server sent us, would have gone over TLS, and so may passwords not go without.
            if matches!(error, Error::Network { action: CONNECT, .. }) {
                if !self.ledger.is_secure(&step.endpoint.origin) {
                    self.without_tls.push(step.endpoint.image.registry().to_owned());
                }
                self.ledger.rest(&step.endpoint.origin);
            }
            if !self.left.is_empty() {
                tracing::info!(server = %step.endpoint.origin, %error, "asking the next server");
            }
        }
        self.errors.push(error);
    }

    /// Why all failed. One reason stands for itself, and so does a sentence that all agree on.
    pub(super) fn into_error(mut self) -> Error {
        let useless = |error: &Error| {
            matches!(error, Error::UnusableRange { .. } | Error::BlobChanged { .. })
        };
        if let Some(at) = self.errors.iter().position(useless) {
            // Asking for the whole, or beginning anew, may still work.
            return self.errors.swap_remove(at);
        }
        let absent = |error: &Error| error.kind() == ErrorKind::NotFound;
        match self.errors.pop() {
            Some(last) if self.errors.is_empty() => last,
            Some(last) if absent(&last) && self.errors.iter().all(absent) => last,
            last => {
                self.errors.extend(last);
                Error::Endpoints { errors: self.errors }
            }
        }
    }
}

fn key(image: &Reference, digest: &Digest) -> (String, Digest) {
    (format!("{}/{}", image.registry(), image.repository()), *digest)
}

#[cfg(test)]
mod tests {
    use super::super::RegistrySettings;
    use super::*;

    /// A registry that is asked without TLS as a last resort.
    fn insecure(image: &Reference) -> Vec<Step> {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("registries.conf");
        let text = format!("[[registry]]\nlocation = {:?}\ninsecure = true\n", image.registry());
        std::fs::write(&conf, text).unwrap();
        RegistrySettings::new().registries_conf(conf).unwrap().steps(image, false).unwrap()
    }

    fn failed(action: &'static str) -> Error {
        let source = std::io::Error::from(std::io::ErrorKind::TimedOut).into();
        Error::Network { action, url: "https://r.example/".to_owned(), source }
    }

    #[test]
    fn that_nobody_answers_without_tls_is_no_reason_to_do_without() {
        let image: Reference = "r.example/a:1".parse().unwrap();
        let (steps, ledger) = (insecure(&image), Arc::<Ledger>::default());
        ledger.rest(&steps[1].endpoint.origin);
        let mut attempts = ledger.attempts(&steps, &image, None);
        assert_eq!(attempts.next().unwrap().origin.scheme(), Scheme::Https);
        attempts.failed(failed("get an answer in time from"));
        assert!(attempts.next().is_none());
    }

    #[test]
    fn tls_is_given_up_only_where_it_was_never_spoken() {
        let image: Reference = "r.example/a:1".parse().unwrap();
        let steps = insecure(&image);
        for (action, answered, falls_back) in [
            (CONNECT, false, true),
            (CONNECT, true, false),
            ("get an answer from", false, false),
            ("get an answer in time from", false, false),
            ("read the answer of", true, false),
        ] {
            let ledger = Arc::<Ledger>::default();
            let mut attempts = ledger.attempts(&steps, &image, None);
            let first = attempts.next().unwrap().origin;
            assert_eq!(first.scheme(), Scheme::Https);
            if answered {
                ledger.answered(&first);
            }
            attempts.failed(failed(action));
            let next = attempts.next().map(|next| next.origin.scheme());
            assert_eq!(next, falls_back.then_some(Scheme::Http), "{action}");
            // It may rest now, and the other come first.
            let mut again = ledger.attempts(&steps, &image, None);
            let first = again.next().map(|next| next.origin.scheme());
            let expected = if falls_back { Scheme::Http } else { Scheme::Https };
            assert_eq!(first, Some(expected), "{action}");
        }
    }
}
