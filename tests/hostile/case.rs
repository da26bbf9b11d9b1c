//! One case: what is done wrong, how the pull has to end, and whether it did.

use std::time::Duration;

use layerstore::gc::{self, GcOptions};

use crate::child::{self, Ended};
use crate::disk;
use crate::scene::{PASSWORD, Scene};

/// What a pull may take, in KiB.
const MEMORY: u64 = 64 * 1024;
/// When a pull must have ended. It ends much earlier by its own limits; a machine may be slow.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) by: By,
    pub(crate) ends: Ends,
    pub(crate) play: fn(&mut Scene),
    pub(crate) deadline: Duration,
}

/// Who pulls.
#[derive(Clone, Copy)]
pub(crate) enum By {
    /// The command, as users run it.
    Command,
    /// The library with little patience, for cases that the command meets with much.
    Library,
    /// Somebody who does the one thing wrong that is named, to see it noticed.
    Planted(&'static str),
}

/// How a pull has to end.
#[derive(Clone, Copy)]
pub(crate) enum Ends {
    /// The image is there, for the client knows how to live with this.
    Well,
    /// With this exit code, and an error that has this in it.
    Refused(i32, &'static str),
}

#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) wrongly_accepted: bool,
    pub(crate) leaked: bool,
    pub(crate) peak: u64,
    /// What was not as it should be.
    pub(crate) faults: Vec<String>,
}

pub(crate) fn refused(
    name: &'static str,
    code: i32,
    says: &'static str,
    play: fn(&mut Scene),
) -> Case {
    Case { name, by: By::Command, ends: Ends::Refused(code, says), play, deadline: DEADLINE }
}

pub(crate) fn well(name: &'static str, play: fn(&mut Scene)) -> Case {
    Case { name, by: By::Command, ends: Ends::Well, play, deadline: DEADLINE }
}

impl Case {
    /// The same with little patience.
    pub(crate) fn impatient(self) -> Case {
        Case { by: By::Library, ..self }
    }

    /// Once more where the process had come and gone before anybody looked how large it is, as on
    /// a machine that has much to do.
    pub(crate) fn run(&self) -> Verdict {
        let mut verdict = self.run_once();
        for _ in 0..4 {
            if verdict.peak > 0 {
                break;
            }
            verdict = self.run_once();
        }
        verdict
    }

    fn run_once(&self) -> Verdict {
        let mut scene = Scene::new();
        (self.play)(&mut scene);
        let before = disk::list(&scene.root());
        let mut pull = match self.by {
            By::Command => scene.pull(),
            By::Library => scene.library(""),
            By::Planted(plant) => scene.library(plant),
        };
        let ended = child::run(&mut pull, self.deadline);
        let mut verdict = Verdict { peak: ended.peak, ..Verdict::default() };
        self.judge_end(&scene, &ended, &mut verdict);
        judge_words(&scene, &ended, &mut verdict);
        if ended.peak == 0 || ended.peak >= MEMORY {
            verdict.faults.push(format!("it took {} KiB", ended.peak));
        }
        for fault in scene.faults.iter().filter(|fault| fault.hits() == 0) {
            verdict.faults.push(format!("it was not put to the test: {fault:?}"));
        }
        if matches!(self.ends, Ends::Refused(..)) {
            judge_store(&scene, &before, &mut verdict);
            judge_next(&scene, &mut verdict);
        }
        verdict
    }

    fn judge_end(&self, scene: &Scene, ended: &Ended, verdict: &mut Verdict) {
        let tail: Vec<_> = ended.err.lines().rev().take(3).collect();
        let mut fault = |text: String| verdict.faults.push(format!("{text}: {tail:?}"));
        let error = ended.err.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_default();
        match (self.ends, ended.code) {
            (_, None) => fault(format!("it did not end within {:?}", self.deadline)),
            (Ends::Well, Some(0)) if scene.has_image() => {}
            (Ends::Well, Some(0)) => {
                fault("the image is not what the registry has".to_owned());
                verdict.wrongly_accepted = true;
            }
            (Ends::Well, Some(code)) => fault(format!("it ended with {code}")),
            (Ends::Refused(..), Some(0)) => {
                verdict.wrongly_accepted = true;
                verdict.faults.push("it was accepted".to_owned());
            }
            (Ends::Refused(wanted, says), Some(code)) => {
                if code != wanted || !error.contains(says) {
                    fault(format!("it ended with {code} and not with {wanted}, {says:?}"));
                }
                if ended.out.contains("demo") {
                    fault("it printed a result".to_owned());
                }
            }
        }
    }
}

/// No secret, and nothing that would steer a terminal.
fn judge_words(scene: &Scene, ended: &Ended, verdict: &mut Verdict) {
    let said = format!("{}{}", ended.out, ended.err);
    if !said.contains("TRACE") {
        verdict.faults.push("it did not log all it can".to_owned());
    }
    let mut secrets: Vec<_> = scene.shown();
    secrets.iter_mut().for_each(|it| *it = it.split(' ').next_back().unwrap().to_owned());
    secrets.extend([PASSWORD.to_owned(), "canary".to_owned()]);
    let everything = said.clone() + &disk::text(&scene.root());
    if secrets.iter().any(|secret| everything.contains(secret.as_str())) || has_token(&everything) {
        verdict.leaked = true;
        verdict.faults.push("it shows a secret".to_owned());
    }
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if let Some(line) = said.lines().find(|line| line.contains(steers)) {
        verdict.faults.push(format!("it prints control characters: {line:?}"));
    }
}

/// Whether there is a token of the kind that the registry of the tests gives.
fn has_token(text: &str) -> bool {
    let hex = |rest: &str| rest.bytes().take(32).filter(u8::is_ascii_hexdigit).count() == 32;
    text.match_indices("tok").any(|(at, word)| hex(&text[at + word.len()..]))
}

fn judge_store(scene: &Scene, before: &disk::Listing, verdict: &mut Verdict) {
    let after = disk::list(&scene.root());
    verdict.faults.extend(disk::harm(before, &after));
    let store = layerstore::BlobStore::open(scene.root()).unwrap();
    let at_once = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
    if let Err(error) = gc::collect(&store, &at_once) {
        verdict.faults.push(format!("nothing can be collected any more: {error}"));
    }
    let after = disk::collected(&disk::list(&scene.root()));
    if after != disk::collected(before) {
        verdict.faults.push("a collection does not bring back what was there".to_owned());
    }
}

/// The same store, and a registry that has come to its senses.
fn judge_next(scene: &Scene, verdict: &mut Verdict) {
    scene.reform();
    let next = child::run(&mut scene.pull(), DEADLINE);
    if next.code != Some(0) || !scene.has_image() {
        let tail: Vec<_> = next.err.lines().rev().take(3).collect();
        verdict.faults.push(format!("the next pull ended with {:?}: {tail:?}", next.code));
    }
    let store = layerstore::BlobStore::open(scene.root()).unwrap();
    let options = layerstore::CheckOptions { read_data: true, ..Default::default() };
    match store.check(&options, |_| {}) {
        Ok(report) if report.is_sound() => {}
        report => verdict.faults.push(format!("the store is not sound: {report:?}")),
    }
}
