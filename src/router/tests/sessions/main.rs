//! Sessions as clients see them: taken over, resumed, ended, shared, with wills; under a clock that the test moves.
#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]

mod delivery;
mod threads;
pub(crate) mod world;

use std::time::Duration;

use gateway::{Connect, Message, Qos, Refusal, Settle, Will};

use world::{Client, ENDS, NEVER, World, connect};

#[test]
fn a_session_is_resumed_with_its_subscriptions_and_queue() {
    let mut w = World::new();
    let b = w.join("b", false, NEVER);
    w.subscribe(&b, "t", Qos::AtLeastOnce).unwrap();
    w.leave(&b);
    w.publish("t", "kept", Qos::AtLeastOnce).unwrap();
    w.publish("t", "not kept", Qos::AtMostOnce).unwrap();
    let b = w.join("b", false, NEVER);
    assert!(b.present);
    assert_eq!(w.got(&b), ["kept"]);
}

#[test]
fn what_was_not_acknowledged_is_sent_again_in_its_order() {
    let mut w = World::new();
    let b = w.join("b", false, NEVER);
    w.subscribe(&b, "t", Qos::ExactlyOnce).unwrap();
    for payload in ["1", "2", "3"] {
        w.publish("t", payload, Qos::ExactlyOnce).unwrap();
    }
    let mut ids = Vec::new();
    assert_eq!(w.drain(&b, &mut ids), ["1", "2", "3"]);
    assert!(w.router.receive(&b.session, ids[1], &mut w.post));
    w.publish("t", "4", Qos::AtLeastOnce).unwrap();
    w.leave(&b);
    let b = w.join("b", false, NEVER);
    let mut again = Vec::new();
    assert_eq!(w.drain(&b, &mut again), ["1!", "release", "3!", "4"]);
    assert_eq!(again[..3], ids);
    again.iter().for_each(|id| w.settle(&b, *id, Settle::Done));
    w.leave(&b);
    let b = w.join("b", false, NEVER);
    assert!(w.got(&b).is_empty());
}

#[test]
fn who_comes_back_before_the_deadlines_were_looked_at_comes_back_too_late() {
    let mut w = World::new();
    let watcher = w.join("watcher", false, NEVER);
    w.subscribe(&watcher, "will", Qos::AtMostOnce).unwrap();
    let b = w.join("b", false, Duration::from_secs(2));
    w.subscribe(&b, "t", Qos::AtLeastOnce).unwrap();
    w.leave(&b);
    let with_will = w.join_with_will("c", NEVER, 3);
    w.lose(&with_will);
    // Five seconds later nobody has called `timeout` yet: clients stood in line while the gateway started.
    w.now = w.now.after(Duration::from_secs(5));
    let b = w.join("b", false, NEVER);
    assert!(!b.present, "its time was over");
    w.publish("t", "x", Qos::AtLeastOnce).unwrap();
    assert!(w.got(&b).is_empty());
    assert!(w.join("c", false, NEVER).present);
    assert_eq!(w.got(&watcher), ["lost"], "the will was due");
    w.wait(0);
    assert!(w.got(&watcher).is_empty());
}

#[test]
fn a_session_that_is_taken_over_goes_on_and_the_old_connection_is_stopped() {
    let mut w = World::new();
    let old = w.join("b", false, NEVER);
    w.subscribe(&old, "t", Qos::AtLeastOnce).unwrap();
    let new = w.join("b", false, NEVER);
    assert!(new.present && w.stopped(&old));
    // The driver of the old connection reports its end after the new one began.
    w.lose(&old);
    w.publish("t", "x", Qos::AtLeastOnce).unwrap();
    assert_eq!(w.got(&new), ["x"]);
    assert!(w.got(&old).is_empty());
}

#[test]
fn a_session_that_ends_with_its_connection_is_not_resumed_by_who_takes_it_over() {
    // MQTT-3.1.2-6 of 3.1.1: nothing of a clean session is used again; 5.0: an expiry of 0 ends with the connection.
    let mut w = World::new();
    let old = w.join("b", true, ENDS);
    w.subscribe(&old, "t", Qos::AtLeastOnce).unwrap();
    let new = w.join("b", false, NEVER);
    assert!(!new.present && w.stopped(&old));
    w.publish("t", "x", Qos::AtLeastOnce).unwrap();
    assert!(w.got(&new).is_empty());
    assert_eq!(w.router.stats().subscriptions, 0);
}

#[test]
fn a_clean_start_discards_the_session() {
    let mut w = World::new();
    let b = w.join("b", false, NEVER);
    w.subscribe(&b, "t", Qos::AtLeastOnce).unwrap();
    w.leave(&b);
    w.publish("t", "old", Qos::AtLeastOnce).unwrap();
    let b = w.join("b", true, NEVER);
    assert!(!b.present);
    w.publish("t", "new", Qos::AtLeastOnce).unwrap();
    assert!(w.got(&b).is_empty());
}

#[test]
fn a_session_ends_when_its_expiry_has_passed() {
    let mut w = World::new();
    let b = w.join("b", false, Duration::from_secs(10));
    w.subscribe(&b, "t", Qos::AtLeastOnce).unwrap();
    w.leave(&b);
    w.wait(9);
    let b = w.join("b", false, Duration::from_secs(10));
    assert!(b.present);
    w.leave(&b);
    // The first end's timer is due now, and is about an earlier connection.
    w.wait(2);
    assert_eq!(w.router.stats().sessions, 1);
    w.wait(9);
    assert_eq!((w.router.stats().sessions, w.router.stats().subscriptions), (0, 0));
}

#[test]
fn another_principal_is_refused() {
    let mut w = World::new();
    let alice = w.open(connect("b", false, NEVER), Some("alice")).unwrap();
    let mut refused = |principal| w.open(connect("b", true, NEVER), principal).err();
    assert_eq!(refused(None), Some(Refusal::NotOwner));
    assert_eq!(refused(Some("bob")), Some(Refusal::NotOwner));
    assert!(!w.stopped(&alice));
    assert!(w.open(connect("b", false, NEVER), Some("alice")).unwrap().present);
}

#[test]
fn a_will_is_published_when_the_connection_is_lost_and_not_when_it_ends_in_order() {
    let mut w = World::new();
    let s = w.join("s", true, ENDS);
    w.subscribe(&s, "will", Qos::AtMostOnce).unwrap();
    let a = w.join_with_will("a", ENDS, 0);
    w.leave(&a);
    assert!(w.got(&s).is_empty());
    let a = w.join_with_will("a", ENDS, 0);
    w.lose(&a);
    w.lose(&a);
    assert_eq!(w.got(&s), ["lost"]);
}

#[test]
fn a_delayed_will_waits_unless_the_session_ends() {
    let mut w = World::new();
    let s = w.join("s", true, ENDS);
    w.subscribe(&s, "will", Qos::AtMostOnce).unwrap();
    let a = w.join_with_will("a", NEVER, 10);
    w.lose(&a);
    w.wait(9);
    assert!(w.got(&s).is_empty());
    w.wait(2);
    assert_eq!(w.got(&s), ["lost"]);
    let a = w.join_with_will("b", Duration::from_secs(5), 10);
    w.lose(&a);
    w.wait(6);
    assert_eq!(w.got(&s), ["lost"]);
    let a = w.join_with_will("c", ENDS, 10);
    w.lose(&a);
    assert_eq!(w.got(&s), ["lost"]);
    w.wait(100);
    assert!(w.got(&s).is_empty());
}

#[test]
fn who_is_back_within_the_delay_has_no_will_published() {
    // MQTT-3.1.3-9.
    let mut w = World::new();
    let s = w.join("s", true, ENDS);
    w.subscribe(&s, "will", Qos::AtMostOnce).unwrap();
    let a = w.join_with_will("a", NEVER, 10);
    w.lose(&a);
    w.wait(5);
    let a = w.join("a", false, NEVER);
    w.wait(10);
    w.lose(&a);
    w.wait(20);
    assert!(w.got(&s).is_empty());
}

#[test]
fn a_session_that_ends_with_its_connection_goes_on_where_its_client_moves_without_its_will() {
    let mut w = World::new();
    let s = w.join("s", true, ENDS);
    w.subscribe(&s, "will", Qos::AtMostOnce).unwrap();
    let a = w.join_with_will("a", ENDS, 0);
    let moved = Connect { moved_from: Some(a.at.peer), ..connect("a", false, ENDS) };
    assert!(w.open(moved, Some("somebody else")).is_err() && !w.stopped(&a));
    let moved = Connect { moved_from: Some(a.at.peer), ..connect("a", false, ENDS) };
    let b = w.open(moved, None).unwrap();
    assert!(b.present && w.stopped(&a) && w.got(&s).is_empty());
    // It is not there any more: this is a take-over as any other.
    let will = Will { message: Message::new(w.now, "will", b"lost"), delay: Duration::ZERO };
    w.router.set_will(&b.session, Some(Box::new(will)), &mut w.post).unwrap();
    let c = w.open(Connect { moved_from: Some(a.at.peer), ..connect("a", false, ENDS) }, None).unwrap();
    assert!(!c.present && w.got(&s) == ["lost"]);
}

#[test]
fn a_will_is_published_when_its_session_is_discarded_before_the_delay_is_over() {
    // MQTT-3.1.2-8: a clean start ends the session, and so does the end of a connection whose expiry is 0.
    let mut w = World::new();
    let s = w.join("s", true, ENDS);
    w.subscribe(&s, "will", Qos::AtMostOnce).unwrap();
    let a = w.join_with_will("a", NEVER, 10);
    w.lose(&a);
    w.join("a", true, NEVER);
    assert_eq!(w.got(&s), ["lost"], "of an absent client");
    w.join_with_will("b", NEVER, 10);
    w.join("b", true, NEVER);
    assert_eq!(w.got(&s), ["lost"], "of a connected client");
    w.join_with_will("c", ENDS, 10);
    w.join("c", false, NEVER);
    assert_eq!(w.got(&s), ["lost"], "of a session that ends with its connection");
    w.join_with_will("d", NEVER, 10);
    w.join("d", false, NEVER);
    w.wait(100);
    assert!(w.got(&s).is_empty(), "a session that goes on has no will published");
}

#[test]
fn a_qos_2_message_that_comes_twice_is_published_once() {
    // MQTT-4.3.3-10.
    let mut w = World::new();
    let s = w.join("s", true, ENDS);
    w.subscribe(&s, "t", Qos::AtMostOnce).unwrap();
    let a = w.join("a", false, NEVER);
    let send = |w: &mut World, from: &Client| {
        let message = Message::new(w.now, "t", b"x").with_qos(Qos::ExactlyOnce);
        let World { router, now, matches, post, .. } = w;
        router.publish(*now, Some(&*from.session), message, Some(7), matches, post).unwrap();
    };
    send(&mut w, &a);
    w.lose(&a);
    let a = w.join("a", false, NEVER);
    send(&mut w, &a);
    assert_eq!(w.got(&s), ["x"]);
    assert!(w.router.release(&a.session, 7, &mut w.post) && !w.router.release(&a.session, 7, &mut w.post));
    send(&mut w, &a);
    assert_eq!(w.got(&s), ["x"]);
}

#[test]
fn credit_bounds_what_is_under_way() {
    let mut w = World::new();
    let b = w.open(Connect { credit: 2, ..connect("b", true, ENDS) }, None).unwrap();
    w.subscribe(&b, "t", Qos::AtLeastOnce).unwrap();
    for payload in ["1", "2", "3", "4"] {
        w.publish("t", payload, Qos::AtLeastOnce).unwrap();
    }
    let mut ids = Vec::new();
    assert_eq!(w.drain(&b, &mut ids), ["1", "2"]);
    assert!(w.got(&b).is_empty());
    w.settle(&b, ids[1], Settle::Done);
    assert_eq!(w.drain(&b, &mut ids), ["3"]);
    w.settle(&b, ids[0], Settle::Refused);
    w.settle(&b, ids[0], Settle::Done);
    assert_eq!(w.drain(&b, &mut ids), ["4"]);
}

#[test]
fn a_qos_1_message_of_a_shared_subscription_goes_to_another_member_when_its_session_ends() {
    let mut w = World::new();
    let b = w.join("b", true, ENDS);
    w.subscribe(&b, "$share/g/t", Qos::ExactlyOnce).unwrap();
    w.publish("t", "one", Qos::AtLeastOnce).unwrap();
    w.publish("t", "two", Qos::ExactlyOnce).unwrap();
    assert_eq!(w.got(&b), ["one", "two"]);
    let c = w.join("c", true, ENDS);
    w.subscribe(&c, "$share/g/t", Qos::ExactlyOnce).unwrap();
    w.leave(&b);
    // MQTT-4.8.2-5: QoS 2 ends with its member.
    assert_eq!(w.got(&c), ["one"]);
}

#[test]
fn a_shared_subscription_takes_turns_among_the_connected() {
    let mut w = World::new();
    let members: Vec<Client> = ["b", "c", "d"].map(|id| w.join(id, false, NEVER)).into();
    for member in &members {
        w.subscribe(member, "$share/g/t", Qos::AtLeastOnce).unwrap();
    }
    w.leave(&members[1]);
    for n in 0..6 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
    }
    let counts: Vec<usize> = members.iter().map(|member| w.got(member).len()).collect();
    assert_eq!(counts[1], 0);
    assert_eq!(counts.iter().sum::<usize>(), 6);
    assert!(counts[0] >= 2 && counts[2] >= 2, "{counts:?}");
}

#[test]
fn an_exclusive_filter_is_free_again_when_its_holder_has_gone() {
    let mut w = World::new();
    let b = w.join("b", true, ENDS);
    let c = w.join("c", true, ENDS);
    w.subscribe(&b, "$exclusive/t", Qos::AtMostOnce).unwrap();
    assert_eq!(w.subscribe(&b, "$exclusive/t", Qos::AtLeastOnce), Ok(Qos::AtLeastOnce));
    assert_eq!(w.subscribe(&c, "$exclusive/t", Qos::AtMostOnce), Err(Refusal::ExclusiveTaken));
    w.leave(&b);
    assert_eq!(w.subscribe(&c, "$exclusive/t", Qos::AtMostOnce), Ok(Qos::AtMostOnce));
}

#[test]
fn nothing_is_left_when_everybody_has_gone() {
    let mut w = World::new();
    for round in 0..3 {
        let clients: Vec<Client> = (0..50).map(|n| w.join(&format!("c{n}"), round == 1, ENDS)).collect();
        for (n, client) in clients.iter().enumerate() {
            for filter in
                [format!("a/{n}/+"), "a/#".into(), format!("$share/g{}/a/#", n % 3), format!("x/{n}")]
            {
                w.subscribe(client, &filter, Qos::ExactlyOnce).unwrap();
            }
        }
        w.publish("a/1/b", "x", Qos::ExactlyOnce).unwrap();
        clients.iter().for_each(|client| w.lose(client));
    }
    let stats = w.router.stats();
    assert_eq!((stats.sessions, stats.subscriptions, stats.filters), (0, 0, 0));
}

#[test]
fn a_client_that_comes_and_goes_leaves_no_deadlines_behind() {
    let mut w = World::new();
    for _ in 0..10 {
        let b = w.join_with_will("b", Duration::from_secs(1000), 10);
        w.lose(&b);
        assert!(w.router.next_timeout().is_some());
        w.join("b", false, Duration::from_secs(1000));
        assert_eq!(w.router.next_timeout(), None);
    }
}

#[test]
fn an_absent_client_that_is_kicked_leaves_its_will_and_nothing_else() {
    let mut w = World::new();
    let s = w.join("s", true, ENDS);
    w.subscribe(&s, "will", Qos::AtMostOnce).unwrap();
    let a = w.join_with_will("a", NEVER, 1000);
    w.subscribe(&a, "t", Qos::AtLeastOnce).unwrap();
    w.lose(&a);
    let World { router, now, post, .. } = &mut w;
    assert!(router.kick(*now, "", "a", post) && !router.kick(*now, "", "a", post));
    assert_eq!(w.got(&s), ["lost"]);
    let stats = w.router.stats();
    assert_eq!((stats.sessions, stats.subscriptions, w.router.next_timeout()), (1, 1, None));
}
