//! Several pulls at once. Each has its own store handle and its own client, so what keeps them
//! apart is what keeps processes apart: locks on open files.

use super::*;
use crate::support::{Action, Fault, images};

#[test]
fn eight_pulls_send_each_blob_once() {
    let world = World::new();
    let image = images::synthetic(&[100, 400_000, 3_000_000, 6_000_000]);
    world.registry.push("demo", "1", &image);
    let reports: Vec<Pulled> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..8).map(|_| scope.spawn(|| world.pull("demo:1").unwrap())).collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    world.assert_has("demo:1", &image);
    world.assert_tidy(0);
    let config = image.config.as_ref().unwrap();
    for blob in image.layers.iter().chain([config]) {
        assert_eq!(world.registry.blob_sends(&blob.digest), 1, "{} bytes", blob.content.len());
    }
    let bodies: u64 = image.layers.iter().map(|layer| layer.content.len()).sum::<u64>();
    let fetched: u64 = reports.iter().map(|report| report.fetched_bytes).sum();
    assert!(fetched >= bodies && fetched < bodies + 100_000, "{fetched} of {bodies}");
}

#[test]
fn who_waits_shows_the_growth_and_takes_over_when_the_holder_goes() {
    let world = World::new();
    let image = images::synthetic(&[4_000_000]);
    world.registry.push("demo", "1", &image);
    let layer = &image.layers[0].digest;
    world.registry.fault(Fault::on("GET", layer).times(1).then(Action::Hold(2_500_000)));
    let (observer, events) = recorder();
    let waiting = world.puller().observer(observer);
    let reference = world.reference("demo:1");
    let first = world.puller();
    run(async {
        let mut first = Box::pin(first.pull(&reference));
        // The first gets as far as the server lets it.
        let started = async {
            while world.registry.held() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            result = &mut first => panic!("it ended: {result:?}"),
            () = started => {}
        }
        let mut second = Box::pin(waiting.pull(&reference));
        let heard = async {
            while !has_waited(&events) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            _ = &mut first => panic!("the first ended"),
            result = &mut second => panic!("the second did not wait: {result:?}"),
            () = heard => {}
        }
        drop(first);
        let pulled = second.await.unwrap();
        assert!(pulled.resumed_bytes > 2_000_000, "{pulled:?}");
    });
    world.registry.release();
    world.assert_has("demo:1", &image);
    assert_eq!(world.registry.blob_sends(layer), 2, "the second asked for the rest");
}

/// What blocks takes threads of which a runtime has only so many. A pull that had one for its whole life
/// would keep others from what they need one for, and they it.
#[test]
fn more_pulls_than_a_runtime_has_threads_for_what_blocks() {
    const PULLS: u64 = 8;
    let world = World::new();
    let image = |n| images::synthetic(&[200_000 + n, 300_000 + n, 1_000 + n]);
    let images: Vec<Image> = (0..PULLS).map(image).collect();
    for (n, image) in images.iter().enumerate() {
        world.registry.push("demo", &n.to_string(), image);
        let layer = &image.layers[0].digest;
        world.registry.fault(Fault::on("GET", layer).times(1).then(Action::Hold(50_000)));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .unwrap();
    let begin = |n| {
        let reference = world.reference(&format!("demo:{n}"));
        // Of connections, all are to have as many as they like.
        let puller = world.puller().share_connections(false);
        runtime.spawn(async move { puller.pull(&reference).await })
    };
    let pulls: Vec<_> = (0..PULLS).map(begin).collect();
    // All are in the middle of a blob at the same moment.
    assert!(world.registry.wait_held(images.len()), "{} came so far", world.registry.held());
    world.registry.release();
    runtime.block_on(async {
        for pull in pulls {
            let limit = Duration::from_secs(60);
            tokio::time::timeout(limit, pull).await.expect("a pull hangs").unwrap().unwrap();
        }
    });
    for (n, image) in images.iter().enumerate() {
        world.assert_has(&format!("demo:{n}"), image);
    }
    world.assert_tidy(0);
}

fn has_waited(events: &Mutex<Vec<Event>>) -> bool {
    events
        .lock()
        .unwrap()
        .iter()
        .any(|event| matches!(event, Event::Waiting { done, .. } if *done > 2_000_000))
}

#[test]
fn different_images_into_one_index() {
    let world = World::new();
    let series = images::series(12);
    for (n, image) in series.iter().enumerate() {
        world.registry.push("demo", &n.to_string(), image);
    }
    let world = &world;
    std::thread::scope(|scope| {
        for n in 0..series.len() {
            scope.spawn(move || world.pull(&format!("demo:{n}")).unwrap());
        }
    });
    for (n, image) in series.iter().enumerate() {
        world.assert_has(&format!("demo:{n}"), image);
        for layer in &image.layers {
            assert_eq!(world.registry.blob_sends(&layer.digest), 1);
        }
    }
    assert_eq!(world.store.refs().unwrap().len(), 12);
}
