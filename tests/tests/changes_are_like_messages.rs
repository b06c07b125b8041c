//! Promise: what becomes of a message is as sure as the message: accepted is durable, sent twice is once, every device shows the same,
//! in whatever order it came, and nobody changes what somebody else said.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::sync::Arc;

use bytes::Bytes;
use quail_client::{
    AccountId, Body, Change, Client, Content, Event, MessageId, MessageRef, Position, Reason, SendError,
    Sending, Thread, new_message_id,
};
use quail_protocol::v1::{self, publish_down, send};
use quail_tests::archive::{ArchiveFile, Shown};
use quail_tests::raw::{self, RawClient};
use quail_tests::{Chance, PATIENCE, Person, World, expect, rounds, seed};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Things that each device says between two kills of the daemon.
const SAID: usize = 40;

/// A device that applies what it is told and what it says to a conversation.
struct Device {
    client: Client,
    peer: AccountId,
    thread: Arc<watch::Sender<(Thread, usize)>>,
    tasks: JoinSet<()>,
    said: Vec<(MessageId, Content, Sending)>,
}

impl Device {
    async fn open(person: &Person, peer: AccountId) -> Self {
        let client = person.open().await;
        let mut events = client.events().await.unwrap();
        let thread = Arc::new(watch::Sender::new((Thread::new(client.account(), peer), 0)));
        let mut tasks = JoinSet::new();
        let taken = thread.clone();
        tasks.spawn(async move {
            while let Ok(delivery) = events.next().await {
                taken.send_if_modified(|(thread, count)| {
                    match &delivery.event {
                        Event::Message(message) => thread.message(message),
                        Event::Changed(changed) => thread.changed(changed),
                        Event::Gap { .. } | Event::SetAside { .. } => panic!("{:?}", delivery.event),
                        _ => return false,
                    }
                    *count += 1;
                    true
                });
                delivery.acknowledge();
            }
        });
        Self { client, peer, thread, tasks, said: Vec::new() }
    }

    async fn says(&mut self, content: Content) -> MessageId {
        let id = new_message_id();
        let sending = self.client.say_with_id(id, self.peer, content.clone());
        let sending = expect("room in the queue", sending).await.unwrap();
        self.said.push((id, content, sending));
        id
    }

    /// Waits until everything that it said is accepted, and returns the position of the last.
    async fn is_answered(&mut self) -> Position {
        let mut last = Position::ZERO;
        for (id, content, sending) in self.said.drain(..) {
            let accepted = expect("an answer", sending.accepted()).await.unwrap();
            last = last.max(accepted.position);
            self.thread.send_modify(|(thread, _)| thread.said(id, content, &accepted));
        }
        last
    }

    /// Waits until it was told of so many messages and changes.
    async fn has_been_told(&self, count: usize) {
        let mut thread = self.thread.subscribe();
        let waited = tokio::time::timeout(PATIENCE, thread.wait_for(|(_, told)| *told >= count)).await;
        assert!(waited.is_ok(), "told of {} of {count}", self.thread.borrow().1);
    }

    fn shows(&self) -> Vec<Shown> {
        let text = |body: Body| body.as_text().unwrap().to_owned();
        let entries = self.thread.borrow().0.entries();
        let shown = entries.into_iter().map(|entry| Shown {
            message: entry.message,
            body: entry.body.map(text),
            reactions: entry.reactions,
        });
        shown.collect()
    }
}

/// Returns something that an account may say of what was said.
fn anything(chance: &mut Chance, own: AccountId, said: &[MessageRef], number: usize) -> Content {
    let of_own: Vec<_> = said.iter().filter(|message| message.sender == own).collect();
    let any = |chance: &mut Chance| said[chance.below(said.len() as u64) as usize];
    let text = format!("text {number}");
    if of_own.is_empty() || chance.below(2) == 0 {
        let reply_to = (!said.is_empty() && chance.below(4) == 0).then(|| any(chance));
        return Content::Message { body: text.into(), reply_to };
    }
    let id = of_own[chance.below(of_own.len() as u64) as usize].id;
    let reaction = ["", "+", "\u{1f44d}"][chance.below(3) as usize].to_owned();
    match chance.below(8) {
        0..=2 => Change::Edit { id, body: text.into() }.into(),
        3 => Change::DeleteForAll { id }.into(),
        4 => Change::DeleteForMe { message: any(chance) }.into(),
        _ => Change::React { message: any(chance), text: reaction }.into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_and_the_archive_show_the_same_over_kills() {
    let mut chance = Chance(seed());
    let mut world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let people = [ada.clone(), world.log_in("ada").await, bob.clone(), world.log_in("bob").await];
    let mut devices = Vec::new();
    for person in &people {
        let peer = if person.account() == ada.account() { &bob } else { &ada };
        devices.push(Device::open(person, peer.account()).await);
    }
    let (mut said, mut told, mut last) = (Vec::new(), [0; 4], Position::ZERO);
    for round in 0..rounds(4) {
        for number in 0..SAID * devices.len() {
            let by = chance.below(4) as usize;
            let own = devices[by].client.account();
            let content = anything(&mut chance, own, &said, round * 1_000 + number);
            let is_message = matches!(content, Content::Message { .. });
            let is_private = matches!(content, Content::Change(Change::DeleteForMe { .. }));
            let id = devices[by].says(content).await;
            said.extend(is_message.then_some(MessageRef { sender: own, id }));
            for (other, told) in told.iter_mut().enumerate().filter(|(other, _)| *other != by) {
                *told += usize::from(!is_private || devices[other].client.account() == own);
            }
        }
        // Some of it is answered, some on its way, some was never written.
        world.kill_and_restart().await;
    }
    for device in &mut devices {
        last = last.max(device.is_answered().await);
    }
    for (device, count) in devices.iter().zip(told) {
        device.has_been_told(count).await;
    }
    let shown: Vec<_> = devices.iter().map(Device::shows).collect();
    assert!(shown[0].len() > 20, "there is something to be shown");
    assert_eq!(shown[0], shown[1], "Ada's devices");
    assert_eq!(shown[2], shown[3], "Bob's devices");
    let mut archive = ArchiveFile::open(&world.directory.path().join("data")).await;
    archive.reaches(last).await;
    assert_eq!(archive.shown_to(ada.account()).await, shown[0]);
    assert_eq!(archive.shown_to(bob.account()).await, shown[2]);
    for (device, count) in devices.iter().zip(told) {
        assert_eq!(device.thread.borrow().1, count, "nothing came twice, and nothing to whom it was not for");
        assert!(!device.tasks.is_empty());
    }
}

#[tokio::test]
async fn a_change_that_was_accepted_survives_a_kill_and_comes_behind_its_message() {
    let mut world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    let message = sender.send(bob.account(), "one").await.unwrap();
    let edit = sender.edit(bob.account(), message.id(), "two").await.unwrap();
    let accepted = expect("the answer", edit.accepted()).await.unwrap();
    world.kill_and_restart().await;
    let reader = bob.open().await;
    let mut events = reader.events().await.unwrap();
    let mut came = Vec::new();
    while came.len() < 2 {
        let delivery = expect("an event", events.next()).await.unwrap();
        match delivery.acknowledge() {
            Event::Message(message) => came.push((message.id, message.stamp, message.body)),
            Event::Changed(changed) => {
                assert_eq!(changed.message(), MessageRef { sender: ada.account(), id: message.id() });
                let Change::Edit { body, .. } = changed.change else { panic!("an edit") };
                came.push((changed.id, changed.stamp, body));
            }
            _ => {}
        }
    }
    assert_eq!((came[0].0, &came[0].2), (message.id(), &"one".into()));
    assert_eq!(came[1], (edit.id(), accepted.stamp, "two".into()));
    expect("the receipt of an edit", edit.delivered()).await.unwrap();
    let hidden = sender.delete_for_me(bob.account(), MessageRef { sender: ada.account(), id: message.id() });
    assert_eq!(hidden.await.unwrap().delivered().await, Err(SendError::Unwatched), "nobody gets it");
}

/// The id is minted first, so nothing hinders a deletion from being accepted before its message.
#[tokio::test]
async fn a_deletion_that_comes_before_its_message_holds() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let mut writer = Device::open(&ada, bob.account()).await;
    let reader = Device::open(&bob, ada.account()).await;
    let id = new_message_id();
    writer.says(Change::DeleteForAll { id }.into()).await;
    writer.is_answered().await;
    let sending = writer.client.send_with_id(id, bob.account(), "gone").await.unwrap();
    writer.said.push((id, Body::from("gone").into(), sending));
    let last = writer.is_answered().await;
    reader.has_been_told(2).await;
    let message = MessageRef { sender: ada.account(), id };
    let gone = [Shown { message, body: None, reactions: Vec::new() }];
    assert_eq!((&writer.shows()[..], &reader.shows()[..]), (&gone[..], &gone[..]));
    let mut archive = ArchiveFile::open(&world.directory.path().join("data")).await;
    archive.reaches(last).await;
    assert_eq!(archive.shown_to(bob.account()).await, gone);
}

fn refused(frame: publish_down::Frame) -> Reason {
    match frame {
        publish_down::Frame::Refused(refused) => refused.error.unwrap().reason(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn change(number: u64, to: AccountId, change: send::Change) -> v1::Send {
    v1::Send { kind: 0, change: Some(change), ..raw::send(number, to, "") }
}

#[tokio::test]
async fn another_account_cannot_change_or_touch_what_was_said() {
    let world = World::start().await;
    let (ada, bob, eve) =
        (world.sign_up("ada").await, world.sign_up("bob").await, world.sign_up("eve").await);
    let mut writer = Device::open(&ada, bob.account()).await;
    let reader = Device::open(&bob, ada.account()).await;
    let id = writer.says(Body::from("mine").into()).await;
    writer.is_answered().await;
    // Eve has learnt the id, and speaks the wire by hand.
    let client = RawClient::resume(&world.address(), eve.credentials.token.as_bytes()).await;
    let mut lane = client.publish().await;
    let kind = v1::BodyKind::PlainText as i32;
    let edit = || send::Change::Edit(v1::Edit { id: id.to_bytes(), kind, body: "hers".into() });
    let delete = || send::Change::DeleteForAll(v1::DeleteForAll { id: id.to_bytes() });
    let react = |sender: AccountId| {
        let (sender, id) = (sender.to_bytes(), id.to_bytes());
        send::Change::React(v1::React { sender, id, text: Bytes::from_static(b"?") })
    };
    let hide = |sender: AccountId| {
        send::Change::DeleteForMe(v1::DeleteForMe { sender: sender.to_bytes(), id: id.to_bytes() })
    };
    // With Bob she has no message of Ada's to name; with Ada she has, but not this one.
    assert_eq!(
        refused(lane.say(change(1, bob.account(), react(ada.account()))).await),
        Reason::TargetInvalid
    );
    assert_eq!(refused(lane.say(change(1, bob.account(), hide(ada.account()))).await), Reason::TargetInvalid);
    let reply_to = Some(v1::MessageRef { sender: ada.account().to_bytes(), id: id.to_bytes() });
    let reply = v1::Send { reply_to, ..raw::send(1, bob.account(), "she said") };
    assert_eq!(refused(lane.say(reply).await), Reason::TargetInvalid);
    let mut last = Position::ZERO;
    let said = [
        (bob.account(), edit()),
        (bob.account(), delete()),
        (ada.account(), edit()),
        (ada.account(), delete()),
        (ada.account(), react(ada.account())),
        (ada.account(), hide(ada.account())),
    ];
    for (number, (to, what)) in (1..).zip(said) {
        match lane.say(change(number, to, what)).await {
            // It is of a message of hers, which is not there.
            publish_down::Frame::Accepted(accepted) => last = Position(accepted.position),
            other => panic!("{other:?}"),
        }
    }
    // Bob is told of two and Ada of three; none of it is of their conversation.
    reader.has_been_told(3).await;
    writer.has_been_told(3).await;
    let message = MessageRef { sender: ada.account(), id };
    let mine = [Shown { message, body: Some("mine".to_owned()), reactions: Vec::new() }];
    assert_eq!((&writer.shows()[..], &reader.shows()[..]), (&mine[..], &mine[..]));
    let mut archive = ArchiveFile::open(&world.directory.path().join("data")).await;
    archive.reaches(last).await;
    for account in [ada.account(), bob.account()] {
        assert_eq!(archive.shown_to(account).await, mine);
    }
    assert_eq!(archive.shown_to(eve.account()).await, []);
}

#[tokio::test]
async fn what_is_no_change_is_refused_for_good_and_the_lane_goes_on() {
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_MESSAGES_DELETE_FOR_ALL".into(), "0s".into()));
    })
    .await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let mut lane = client.publish().await;
    let to = bob.account();
    let kind = v1::BodyKind::PlainText as i32;
    let sent = raw::send(1, to, "one");
    let id = sent.id.clone();
    assert!(matches!(lane.say(sent).await, publish_down::Frame::Accepted(_)));
    let edit = |kind, body: Bytes| send::Change::Edit(v1::Edit { id: id.clone(), kind, body });
    let react = |text: Bytes| send::Change::React(v1::React { sender: to.to_bytes(), id: id.clone(), text });
    let delete = |id: Bytes| send::Change::DeleteForAll(v1::DeleteForAll { id });
    let whole = v1::Send { body: "both".into(), ..change(2, to, edit(kind, "a".into())) };
    for (send, reason) in [
        (change(2, to, edit(kind, "a\0".into())), Reason::BodyInvalid),
        (change(2, to, edit(kind, Bytes::from_static(b"\xff"))), Reason::BodyInvalid),
        (change(2, to, edit(9, "a".into())), Reason::BodyInvalid),
        (change(2, to, react(Bytes::from_static(b"a\0"))), Reason::BodyInvalid),
        (change(2, to, react(Bytes::from(vec![b'x'; 33]))), Reason::BodyInvalid),
        (change(2, to, delete(Bytes::from_static(&[1; 16]))), Reason::IdInvalid),
        (change(2, to, delete(Bytes::from_static(&[1; 3]))), Reason::Malformed),
        (whole, Reason::Malformed),
        // As a server sees a kind of change that it does not know.
        (v1::Send { kind: 0, ..raw::send(2, to, "") }, Reason::BodyInvalid),
        (change(2, to, delete(id.clone())), Reason::TooLate),
    ] {
        assert_eq!(refused(lane.say(send).await), reason);
    }
    let good = change(2, to, edit(kind, "two".into()));
    let publish_down::Frame::Accepted(first) = lane.say(good.clone()).await else { panic!("it is right") };
    // What is sent twice is once, on another connection too; another content under its id is not taken.
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let mut lane = client.publish().await;
    let publish_down::Frame::Accepted(again) = lane.say(good.clone()).await else { panic!("it is the same") };
    assert_eq!((again.position, again.stamp), (first.position, first.stamp));
    let other = v1::Send { change: Some(edit(kind, "three".into())), ..good };
    assert_eq!(refused(lane.say(other).await), Reason::IdReused);
}
