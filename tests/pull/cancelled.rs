//! Futures that are dropped, at each point where they can be.

use std::fmt::Debug;
use std::fs::File;
use std::pin::pin;
use std::task::Poll;

use fs2::FileExt;

use super::repair::{check, path, repair};
use super::*;
use crate::corrupt::flip;
use crate::support::{Action, Fault, images};
use crate::waiters::is_awaited;

/// Polls what is begun so many times, and drops it; whether it had ended by then. When this returns, the
/// threads that it had given work to have ended too.
fn drop_after<T: Debug>(begun: impl Future<Output = Result<T, Error>>, polls: usize) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async move {
        let mut begun = pin!(begun);
        let mut left = polls;
        let few = std::future::poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(false);
            }
            left -= 1;
            match begun.as_mut().poll(context) {
                Poll::Ready(result) => {
                    result.unwrap();
                    Poll::Ready(true)
                }
                // There is no other reason to wake up than that it has something to do.
                Poll::Pending if left > 0 => Poll::Pending,
                Poll::Pending => Poll::Ready(false),
            }
        });
        tokio::time::timeout(Duration::from_secs(60), few).await.expect("it hangs")
    });
    drop(runtime);
    ended
}

/// No lock is held, no lease is there, and no name but those of blobs and of so many parts.
fn assert_nothing_held(world: &World, parts: usize) {
    assert_nothing_left(world, parts);
    for name in world.names_in("blobs/sha256") {
        let digest = format!("sha256:{name}").parse::<Digest>().unwrap();
        world.store.open_blob(&digest).unwrap().verify().unwrap();
    }
    assert_eq!(world.names_in(""), [".layerstore", "blobs", "index.json", "oci-layout"]);
}

/// The same, whatever the blobs have in them.
fn assert_nothing_left(world: &World, parts: usize) {
    for folder in ["locks", "parts", "hosts", "origins"] {
        let folder = world.store.root().join(".layerstore").join(folder);
        // Some are made when they are needed.
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let file = File::open(&path).unwrap();
            file.try_lock_exclusive().unwrap_or_else(|error| panic!("{path:?}: {error}"));
        }
    }
    let found = world.names_in(".layerstore/parts");
    assert!(found.iter().filter(|name| name.ends_with(".part")).count() <= parts, "{found:?}");
    assert_eq!(world.names_in(".layerstore/leases"), [""; 0]);
    let private = ["parts", "leases", "origins", "hosts", "outboard/sha256", "used", "quarantine"]
        .map(|folder| format!(".layerstore/{folder}"));
    let folders = ["", ".layerstore", "blobs/sha256"].map(str::to_owned);
    for folder in folders.iter().chain(&private) {
        if !world.store.root().join(folder).exists() {
            continue;
        }
        let names = world.names_in(folder);
        assert!(names.iter().all(|name| !name.starts_with(".new-")), "{folder}: {names:?}");
    }
}

/// Drops pulls of an image later and later, until one comes to its end.
fn drop_at_every_point(image: &Image, prepare: impl Fn(&World)) -> usize {
    for polls in 1.. {
        let world = World::new();
        world.registry.push("demo", "1", image);
        prepare(&world);
        let (puller, reference) = (world.puller(), world.reference("demo:1"));
        let ended = drop_after(puller.pull(&reference), polls);
        assert_nothing_held(&world, image.layers.len() + 1);
        if let Ok(found) = world.store.find_ref(&world.reference("demo:1").to_string()) {
            // The last step may have been given to a thread, and that ends it.
            assert_eq!(found.descriptor.digest.to_string(), image.digest);
            world.assert_blobs(image);
        } else {
            assert!(!ended);
        }
        world.registry.clear_faults();
        world.pull("demo:1").unwrap();
        world.assert_has("demo:1", image);
        world.assert_tidy(0);
        if ended {
            return polls;
        }
    }
    unreachable!("a pull ends")
}

#[test]
fn at_every_point_of_a_pull() {
    let points = drop_at_every_point(&images::synthetic(&[1000, 50_000, 600_000]), |_| {});
    assert!(points > 10, "{points}");
}

#[test]
fn at_every_point_of_a_pull_that_is_retried() {
    let image = images::synthetic(&[1000, 400_000]);
    let points = drop_at_every_point(&image, |world| {
        for layer in &image.layers {
            let fault = Fault::on("GET", &layer.digest).times(1);
            world.registry.fault(fault.then(Action::CloseAfter(500)));
        }
    });
    assert!(points > 10, "{points}");
}

/// Drops repairs of a damaged image later and later, until one comes to its end. `heal` makes what is
/// wrong with the registry good.
fn drop_repairs(damage: impl Fn(&World, &Image), heal: impl Fn(&World, &Image)) -> usize {
    let image = images::synthetic(&[400_000, 300_000, 1_000]);
    for polls in 1.. {
        let world = World::new();
        world.registry.push("demo", "1", &image);
        world.pull("demo:1").unwrap();
        damage(&world, &image);
        let is_good = |digest: &Digest| world.store.open_blob(digest)?.verify();
        let (bad, good): (Vec<Digest>, Vec<Digest>) = (image.closure().into_iter())
            .map(|(digest, _)| digest.parse().unwrap())
            .partition(|digest| is_good(digest).is_err());
        let (puller, found) = (world.puller(), check(&world));
        let ended = drop_after(puller.repair(&found), polls);
        assert_nothing_left(&world, bad.len());
        for digest in good {
            is_good(&digest).unwrap();
        }
        // What came is whole. What did not is as it was found, or away.
        for digest in bad {
            if let Ok(blob) = world.store.open_blob(&digest)
                && blob.verify().is_err()
            {
                assert!(!ended, "{digest} is still damaged");
            }
        }
        heal(&world, &image);
        let report = repair(&world);
        assert!(report.is_sound(), "after {polls} polls: {report:?}");
        world.assert_has("demo:1", &image);
        world.assert_tidy(0);
        assert_eq!(world.names_in(".layerstore/quarantine"), [""; 0]);
        if ended {
            return polls;
        }
    }
    unreachable!("a repair ends")
}

#[test]
fn at_every_point_of_a_repair() {
    let damage = |world: &World, image: &Image| {
        std::fs::remove_file(world.store.root().join("index.json")).unwrap();
        std::fs::remove_file(path(world, &image.digest)).unwrap();
        std::fs::remove_file(path(world, &image.layers[1].digest)).unwrap();
        flip(&path(world, &image.layers[0].digest), 200_000, 5);
    };
    let points = drop_repairs(damage, |_, _| {});
    assert!(points > 10, "{points}");
}

#[test]
fn at_every_point_of_a_repair_that_cannot_have_a_blob() {
    let damage = |world: &World, image: &Image| {
        flip(&path(world, &image.layers[0].digest), 200_000, 5);
        flip(&path(world, &image.layers[1].digest), 1_000, 5);
        world.registry.remove_blob(&image.layers[0].digest);
    };
    let heal = |world: &World, image: &Image| {
        world.registry.put_blob(image.layers[0].content.clone());
    };
    let points = drop_repairs(damage, heal);
    assert!(points > 10, "{points}");
}

/// What it waits for is had by a thread, which lets it go again.
#[test]
fn while_it_waits_for_a_lock() {
    for lock in ["space", "index", "turn", "gate"] {
        let world = World::new();
        let image = images::synthetic(&[1000, 50_000]);
        world.registry.push("demo", "1", &image);
        let path = world.store.root().join(".layerstore/locks").join(lock);
        let held = File::open(&path).unwrap();
        held.lock_exclusive().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (puller, reference) = (world.puller(), world.reference("demo:1"));
            let mut pull = pin!(puller.pull(&reference));
            while !is_awaited(&path) {
                let tick = tokio::time::sleep(Duration::from_millis(5));
                tokio::select! {
                    result = &mut pull => panic!("{lock}: it ended: {result:?}"),
                    () = tick => {}
                }
            }
        });
        drop(held);
        drop(runtime);
        assert_nothing_held(&world, image.layers.len() + 1);
        world.pull("demo:1").unwrap();
        world.assert_has("demo:1", &image);
        world.assert_tidy(0);
    }
}

#[test]
fn while_it_waits_for_another_pull() {
    let world = World::new();
    let image = images::synthetic(&[3_000_000]);
    world.registry.push("demo", "1", &image);
    let layer = image.layers[0].digest.clone();
    world.registry.fault(Fault::on("GET", &layer).times(1).then(Action::Hold(1_000_000)));
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| world.pull("demo:1"));
        assert!(world.registry.wait_held(1));
        run(async {
            let puller = world.puller();
            let (observer, events) = recorder();
            let (puller, reference) = (puller.observer(observer), world.reference("demo:1"));
            let mut pull = pin!(puller.pull(&reference));
            let waits = |event: &Event| matches!(event, Event::Waiting { .. });
            loop {
                let tick = tokio::time::sleep(Duration::from_millis(5));
                tokio::select! {
                    result = &mut pull => panic!("it ended: {result:?}"),
                    () = tick => if events.lock().unwrap().iter().any(waits) { break },
                }
            }
        });
        world.registry.release();
        holder.join().unwrap().unwrap();
    });
    assert_nothing_held(&world, 0);
    world.assert_has("demo:1", &image);
    assert_eq!(world.registry.blob_sends(&layer), 1);
}
