//! Where secrets must not be seen.

use std::io;
use std::sync::{Arc, Mutex};

use layerstore::Error;
use layerstore::fetch::RegistryPull as _;
use tracing_subscriber::fmt::MakeWriter;

use super::support::{Action, Bearer, Fault, Recorded, Registry};
use super::{as_user, fetch, run, with_blob, with_image};

/// Everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

impl Log {
    fn record(&self, work: impl FnOnce()) -> String {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(self.clone())
            .finish();
        // With one dispatcher alone, another thread that has none may decide for all what is of
        // interest, and nothing is recorded.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn shown(error: &Error) -> String {
    format!("{error} {error:?}")
}

#[test]
fn passwords_tokens_and_signatures_are_neither_logged_nor_in_errors() {
    let registry = Registry::builder().bearer(Bearer::user("user", "canary-password")).start();
    let storage = Registry::start();
    let (image, blob, _) = with_blob(&registry);
    with_image(&registry);
    let signed = storage.url("/x?signature=canary-signature");
    let to_storage =
        registry.fault(Fault::on("GET", "/blobs/").then(Action::redirect(307, signed)));
    storage.fault(Fault::on("", "/x").times(1).then(Action::error(403, "DENIED", "no")));
    storage.fault(Fault::on("", "/x").then(Action::Close));

    let mut seen = Log::default().record(|| {
        let client = as_user(&registry, "canary-password");
        let mut errors = Vec::new();
        run(async {
            client.manifest(&image, None).await.unwrap();
            errors.push(fetch(&client, &image, &blob, None).await.unwrap_err());
            errors.push(fetch(&client, &image, &blob, None).await.unwrap_err());
            registry.fault(Fault::on("GET", "/token").then(Action::Close));
            registry.revoke_tokens();
            errors.push(client.manifest(&image, None).await.unwrap_err());
        });
        tracing::debug!("{}", errors.iter().map(shown).collect::<String>());
    });
    let wrong = run(as_user(&registry, "canary-wrong").manifest(&image, None)).unwrap_err();
    seen.push_str(&shown(&wrong));

    assert_eq!(to_storage.hits(), 2);
    assert!(seen.contains("/v2/demo/manifests/1"), "the log was not recorded: {seen}");
    let sent = |it: Recorded| it.authorization;
    let tokens: Vec<_> = registry.requests().into_iter().filter_map(sent).collect();
    assert!(tokens.iter().any(|it| it.starts_with("Bearer tok")), "{tokens:?}");
    for secret in tokens.iter().map(|it| it.split(' ').next_back().unwrap()).chain(["canary"]) {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
}
