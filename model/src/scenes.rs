//! Who takes part in what is looked at.

use crate::protocol::{Protocol, Task};
use crate::state::Left;
use crate::weakness::{Scene, Weakness};

const PULL: Task = Task::Pull(1);
const OTHER_PULL: Task = Task::Pull(2);
const TAG: Task = Task::Tag { from: 1, to: 2 };
const REMOVE: Task = Task::Remove(1);

fn protocol(tasks: &[Task], parts: bool, left: [u8; 3]) -> Protocol {
    let [collections, kills, power_cuts] = left;
    Protocol {
        tasks: tasks.to_vec(),
        collectors: 1,
        parts,
        left: Left { collections, kills, power_cuts },
        weakness: None,
    }
}

/// The scenes of the whole protocol, with what may happen in each: collections, kills, power cuts.
pub fn whole(long: bool) -> Vec<(&'static str, Protocol)> {
    let more = if long { 2 } else { 1 };
    let mut scenes = vec![
        ("two pulls and a removal", protocol(&[PULL, OTHER_PULL, REMOVE], false, [more, more, 1])),
        ("a pull, a tag and a removal", protocol(&[PULL, TAG, REMOVE], false, [2, more, 1])),
        (
            "a lasting lease, a pull and a removal",
            protocol(&[Task::Keep, PULL, REMOVE], false, [more, more, 1]),
        ),
        ("a lasting lease and a put", protocol(&[Task::Keep, Task::Put], false, [2, 1, 1])),
        ("two downloads", protocol(&[PULL, OTHER_PULL], true, [more, 1, 1])),
    ];
    if long {
        let three = protocol(&[PULL, OTHER_PULL, PULL], true, [1, 1, 1]);
        scenes.push(("three downloads", three));
    }
    scenes
}

/// The smallest scene in which a weakness shows.
pub fn of(weakness: Weakness) -> Protocol {
    let scene = match weakness.scene() {
        Scene::Pulls => protocol(&[PULL, OTHER_PULL, REMOVE], false, [2, 1, 1]),
        Scene::Tag => protocol(&[TAG, REMOVE], false, [1, 1, 1]),
        Scene::Lasting => protocol(&[Task::Keep, REMOVE], false, [1, 1, 1]),
        Scene::Put => protocol(&[Task::Keep, Task::Put], false, [1, 1, 1]),
        Scene::Parts => protocol(&[PULL, OTHER_PULL], true, [1, 1, 1]),
    };
    let collectors = if weakness == Weakness::SeveralCollectors { 2 } else { 1 };
    Protocol { weakness: Some(weakness), collectors, ..scene }
}
