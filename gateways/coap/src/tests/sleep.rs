//! Devices that sleep for longer than a notification is sent again, and wake up.

use super::identity::{ELSEWHERE, proven};
use super::*;

/// A device that observes `a`, and has slept through a notification.
fn asleep() -> (Bench, Message) {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    b.now = b.now.after(Duration::from_secs(60));
    let first = b.deliver_to("a", Qos::AtLeastOnce, b"1").remove(0);
    let sent: Vec<_> = (0..200).flat_map(|_| b.pass(1)).collect();
    assert!(sent.len() == 4 && sent.iter().all(|m| *m == first));
    assert!(b.settled.is_empty() && b.unsubscribed == 0 && b.pass(3600).is_empty());
    (b, first)
}

#[test]
fn what_a_device_slept_through_is_sent_again_when_it_is_heard() {
    let (mut b, first) = asleep();
    b.send(&request(Kind::Con, Code::PUT, 2, &["ps", "up"], &[]));
    assert_eq!(b.pass(0)[0], first);
    assert!(b.pass(1).is_empty());
    assert_eq!((b.pass(2), b.pass(6).len()), (vec![first.clone()], 1));
    b.send(&Message::empty(Kind::Ack, first.id));
    assert_eq!((&b.settled[..], b.unsubscribed), (&[(DeliveryId(1), Settle::Done)][..], 0));
    assert_eq!(b.deliver_to("a", Qos::AtLeastOnce, b"2")[0].payload, b"2");
}

#[test]
fn a_device_that_wakes_up_at_another_address_gets_it_there() {
    let (mut b, first) = asleep();
    b.machine.moved(b.now, b.peer, ELSEWHERE.parse().unwrap(), &mut b.out);
    b.run();
    assert_eq!(b.pass(0), [first]);
}

#[test]
fn a_device_that_is_awake_and_does_not_answer_observes_no_more() {
    // RFC 7641, 4.5
    let (mut b, first) = asleep();
    b.send(&request(Kind::Con, Code::PUT, 2, &["ps", "up"], &[]));
    b.pass(10);
    b.send(&request(Kind::Con, Code::PUT, 3, &["ps", "up"], &[]));
    (0..100).for_each(|_| drop(b.pass(1)));
    assert_eq!((&b.settled[..], b.unsubscribed), (&[(DeliveryId(1), Settle::Refused)][..], 1));
    assert!(b.send(&Message::empty(Kind::Ack, first.id)).is_empty());
}

#[test]
fn the_rest_of_a_large_value_is_there_when_the_device_wakes_up() {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    b.now = b.now.after(Duration::from_secs(60));
    let first = b.deliver_to("a", Qos::AtLeastOnce, &[7; 1500]).remove(0);
    (0..1000).for_each(|_| drop(b.pass(1)));
    b.send(&request(Kind::Con, Code::PUT, 2, &["ps", "up"], &[]));
    assert_eq!(b.pass(0)[0], first);
    b.send(&Message::empty(Kind::Ack, first.id));
    let mut get = request(Kind::Con, Code::GET, 3, &["ps", "a"], &[]);
    get.add_uint(options::BLOCK2, 1 << 4 | 6);
    assert_eq!(b.send(&get)[0].payload.len(), 476);
    assert_eq!(b.settled, [(DeliveryId(1), Settle::Done)]);
}

#[test]
fn what_a_device_was_asked_in_its_sleep_fails_and_what_it_is_asked_later_wakes_it() {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    b.now = b.now.after(Duration::from_secs(60));
    let first = b.deliver_to("a", Qos::AtLeastOnce, b"1").remove(0);
    let get = gateway::Request { timeout: Duration::from_secs(600), ..super::client::get("/led") };
    b.machine.command(b.now, b.peer, Ticket(7), &get, &mut b.out);
    (0..100).for_each(|_| drop(b.pass(1)));
    assert_eq!(b.answered, [(7, Err(Failure::Unreachable))]);
    b.machine.command(b.now, b.peer, Ticket(8), &get, &mut b.out);
    assert!(b.run().is_empty());
    assert_eq!(b.pass(0)[0], first);
    assert_eq!(b.send(&Message::empty(Kind::Ack, first.id))[0].code, Code::GET);
}

#[test]
fn a_ping_that_a_named_client_slept_through_does_not_end_what_it_observes() {
    let mut b = bench_at("192.0.2.1:9");
    let query: [&str; 2] = ["c=d", &format!("t={}", b.named())];
    b.observes(2, &query);
    b.machine.peers.get_mut(&b.peer).unwrap().is_verified = false;
    b.now = b.now.after(Duration::from_secs(1));
    let ping = b.deliver_to("a", Qos::AtLeastOnce, b"1").remove(0);
    (0..200).for_each(|_| drop(b.pass(1)));
    assert_eq!((ping.code, b.unsubscribed), (Code::EMPTY, 0));
    b.machine.peers.get_mut(&b.peer).unwrap().is_verified = false;
    b.send(&request(Kind::Con, Code::PUT, 3, &["mqtt", "connection"], &query));
    b.pass(0);
    assert_eq!(b.send(&Message::empty(Kind::Rst, ping.id))[0].payload, b"1");
}
