//! Clients that do one thing wrong each, to see that the cases would notice.

use std::path::Path;
use std::time::Duration;

use crate::case::{By, Case, DEADLINE, Ends, Verdict};
use crate::scene::{PASSWORD, Scene};
use crate::support::{Action, Fault};

/// What a planted client does before it pulls like any other.
pub(crate) fn act(plant: &str, root: &Path) {
    match plant {
        "leaks into the log" => eprintln!("Authorization: {PASSWORD}"),
        "leaks into a part" => {
            let part = root.join(".layerstore/parts/sha256-00.part");
            std::fs::write(part, format!("x{PASSWORD}")).unwrap();
        }
        "steers the terminal" => eprintln!("\x1b[2J"),
        "eats memory" => {
            let block = vec![7_u8; 80 << 20];
            std::thread::sleep(Duration::from_millis(20));
            drop(std::hint::black_box(block));
        }
        "never ends" => std::thread::sleep(Duration::from_secs(600)),
        "writes anywhere" => std::fs::write(root.join(".layerstore/stray"), "x").unwrap(),
        "writes a wrong blob" => {
            std::fs::write(root.join("blobs/sha256").join("0".repeat(64)), "x").unwrap();
        }
        "changes the refs" => {
            std::fs::write(root.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#)
                .unwrap();
        }
        _ => {}
    }
}

fn wrong(scene: &mut Scene) {
    scene.on_layer(Action::Corrupt(1000));
}

fn run(plant: &'static str, ends: Ends, play: fn(&mut Scene)) -> Verdict {
    let deadline = if plant == "never ends" { Duration::from_secs(2) } else { DEADLINE };
    Case { name: plant, by: By::Planted(plant), ends, play, deadline }.run()
}

#[track_caller]
fn noticed(verdict: &Verdict, what: &str) {
    let found = verdict.faults.iter().any(|fault| fault.contains(what));
    assert!(found, "{what:?} is not in {:?}", verdict.faults);
}

#[test]
fn what_a_planted_client_does_wrong_is_noticed() {
    let refused = Ends::Refused(7, "does not match its digest");
    let honest = run("", refused, wrong);
    assert!(honest.faults.is_empty(), "{:?}", honest.faults);
    for (plant, what) in [
        ("leaks into the log", "it shows a secret"),
        ("leaks into a part", "it shows a secret"),
        ("steers the terminal", "control characters"),
        ("eats memory", "KiB"),
        ("never ends", "did not end within"),
        ("writes anywhere", ".layerstore/stray is new"),
        ("writes a wrong blob", "is new"),
        ("changes the refs", "index.json was"),
    ] {
        let verdict = run(plant, refused, wrong);
        noticed(&verdict, what);
        assert_eq!(verdict.leaked, plant.starts_with("leaks"), "{plant}");
    }
}

#[test]
fn a_case_that_ends_otherwise_is_noticed() {
    let refused = Ends::Refused(7, "does not match its digest");
    let accepted = run("", refused, |_| {});
    noticed(&accepted, "it was accepted");
    assert!(accepted.wrongly_accepted);
    noticed(&run("", Ends::Well, wrong), "it ended with 7");
    noticed(&run("", Ends::Refused(6, "does not match"), wrong), "and not with 6");
    noticed(&run("", Ends::Refused(7, "for another reason"), wrong), "for another reason");
    let never = |scene: &mut Scene| {
        wrong(scene);
        scene.on(Fault::on("GET", "/nobody-asks-for-this").then(Action::Close));
    };
    noticed(&run("", refused, never), "not put to the test");
    let lasting = |scene: &mut Scene| {
        wrong(scene);
        scene.image = crate::support::Image::of(&[]);
        scene.image.manifest.push(b'}');
    };
    noticed(&run("", refused, lasting), "the next pull ended with");
}
