//! Promise: a daemon that is stopped or killed under five hundred devices loses nothing and shows nothing twice, and all of them
//! are back soon after it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::{Duration, Instant};

use quail::launcher::Signal;
use quail_client::Reason;
use quail_tests::crowd::Crowd;
use quail_tests::hostile::metric;
use quail_tests::{World, expect};

/// How many devices.
const CROWD: usize = 500;

/// How long after the daemon serves again everybody must be back, in a debug build on two cores that carry the crowd as well.
const BACK_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_who_talk_are_told_of_the_stop_and_come_back_and_nothing_is_lost() {
    let mut world = World::start().await;
    let mut crowd = Crowd::join(&world, CROWD).await;
    crowd.talk(2).await;
    crowd.has_talked().await;
    let watch = crowd.watch();
    crowd.talk(2).await;
    world.daemon.signal(Signal::TERM).unwrap();
    // Much of this meets a daemon that drains, or none at all.
    crowd.talk(2).await;
    let status = expect("the daemon to stop", world.daemon.wait()).await.unwrap();
    assert!(status.success(), "{status}");
    let (told, all) = watch.told(Reason::Draining).await;
    println!("{told} of {all} were told");
    // A few may have had their last packet lost in the crowd.
    assert!(told * 100 >= all * 95, "{told} of {all} were told");
    crowd.talk(1).await;
    back(&mut world, &crowd).await;
    crowd.talk(1).await;
    crowd.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_whose_daemon_is_killed_are_back_soon_and_nothing_is_lost() {
    let mut world = World::start().await;
    let mut crowd = Crowd::join(&world, CROWD).await;
    crowd.talk(2).await;
    crowd.has_talked().await;
    crowd.talk(2).await;
    world.daemon.kill().await.unwrap();
    crowd.talk(1).await;
    back(&mut world, &crowd).await;
    crowd.talk(1).await;
    crowd.finish().await;
}

/// Starts the daemon again, and waits until everybody is connected and no handshake is left over.
async fn back(world: &mut World, crowd: &Crowd) {
    world.daemon.restart().await.unwrap();
    let began = Instant::now();
    crowd.is_back(2).await;
    let took = began.elapsed();
    expect("the handshakes to end", async { while metric(world, "quail_handshakes_open").await > 0.0 {} })
        .await;
    println!("all are back after {took:?}, with {} connections at most", crowd.connections_max());
    for result in ["completed", "failed", "timeout", "retried", "refused", "limited"] {
        let name = format!("quail_handshakes_total{{result=\"{result}\"}}");
        println!("{name} {}", metric(world, &name).await);
    }
    assert!(took <= BACK_MAX, "{took:?}");
    // A storm would feed itself: who is refused comes again, and so does who waited in vain.
    assert!(crowd.connections_max() <= 4, "somebody connected again and again");
}
