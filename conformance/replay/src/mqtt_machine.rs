//! The MQTT machine with a driver that does as the contract says, and says anything: byte one chooses version and limits,
//! then come steps: bytes of the client, answers to what was asked, deliveries, time, the end.
//!
//! Checked throughout: what is sent are whole packets that a server may send, none larger than the client takes, nothing
//! follows a last word, input that was accepted leaves no whole packet behind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gateway::{
    Action, Answer, Connected, Deliver, Delivery, DeliveryId, Facts, Flow, Gateway, Listener, Message, Now,
    Outbox, Peer, Properties, Qos, Refusal, Stop, Ticket, Transport,
};
use mqtt::frame::{find, kind};
use mqtt::{Config, Mqtt, OnDeny};
use wire::{Reader, Short};

/// What was asked and is not answered.
enum Asked {
    /// Whether by an authentication method; only then there may be a challenge.
    Connect(bool),
    Exchange,
    Publish,
    Known,
    Subscribe(usize),
    Unsubscribe(usize),
}

struct Driver {
    machine: Mqtt,
    now: Now,
    peer: Peer,
    out: Outbox,
    input: BytesMut,
    asked: VecDeque<(Ticket, Asked)>,
    is_paused: bool,
    /// Between Connected and the end.
    is_open: bool,
    is_over: bool,
    is_5: bool,
    max_packet_size: usize,
}

/// Plays `data`.
pub fn play(data: &[u8]) {
    let mut r = Reader::new(data);
    let Ok(how) = r.u8() else { return };
    let mut driver = Driver::new(config(how >> 4), how & 8 != 0);
    driver.open(how & 3);
    while !r.is_empty() && !driver.is_over {
        if driver.step(&mut r).is_err() {
            break;
        }
    }
    driver.machine.closed(driver.now, driver.peer, &mut driver.out);
    assert!(driver.machine.next_timeout().is_none());
}

fn config(how: u8) -> Config {
    let mut config = Config::default();
    if how & 1 != 0 {
        config.max_packet_size = 128;
        config.receive_maximum = 2;
        config.topic_alias_maximum = 2;
        config.max_client_id = 23;
    }
    if how & 2 != 0 {
        config.deny = OnDeny::Disconnect;
        config.max_keep_alive = 10;
        config.max_session_expiry = Duration::from_secs(5);
        config.response_information = Some("answers/".to_owned());
    }
    if how & 4 != 0 {
        config.topic_alias_maximum = 0;
    }
    if how & 8 != 0 {
        config.redirect = Some("other:1883".to_owned());
    }
    config
}

const CONNECTS: [&[u8]; 3] = [
    b"\x10\x0F\0\x06MQIsdp\x03\x02\0\x3C\0\x01c",
    b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01c",
    // Session Expiry 10 s, Topic Alias Maximum 2, method M.
    b"\x10\x1A\0\x04MQTT\x05\x02\0\x3C\x0C\x11\0\0\0\x0A\x22\0\x02\x15\0\x01M\0\x01c",
];

impl Driver {
    fn new(config: Config, is_traced: bool) -> Driver {
        let listener = Listener::new("fuzz", "mqtt");
        let facts = Facts::new(Arc::new(listener), Transport::Tcp, ([127, 0, 0, 1], 1).into());
        let max_packet_size = config.max_packet_size;
        let mut driver = Driver {
            machine: Mqtt::new(Arc::new(config)),
            now: Now::from_micros(1_000_000),
            peer: Peer { slot: 1, generation: 1 },
            out: Outbox { is_traced, ..Outbox::default() },
            input: BytesMut::new(),
            asked: VecDeque::new(),
            is_paused: false,
            is_open: false,
            is_over: false,
            is_5: false,
            max_packet_size,
        };
        driver.machine.opened(driver.now, driver.peer, &facts, &mut driver.out);
        driver
    }

    /// Connects at once as one of the versions, so that a short input already gets somewhere; 0 leaves it to the input.
    fn open(&mut self, version: u8) {
        if let Some(connect) = usize::from(version).checked_sub(1).and_then(|v| CONNECTS.get(v)) {
            self.feed(connect);
            self.answer(0);
        }
    }

    fn step(&mut self, r: &mut Reader<'_>) -> Result<(), Short> {
        let op = r.u8()?;
        match op & 7 {
            0..=2 => {
                let length = usize::from(r.u8()?);
                let bytes = r.take(length.min(r.remaining()))?;
                self.feed(bytes);
            }
            3 => self.feed(&(r.u16()?).to_be_bytes()),
            4 => self.answer(r.u8()?),
            5 => self.deliver(op >> 3, r)?,
            6 => self.wait(r.u8()?),
            _ => self.stop(op >> 3),
        }
        Ok(())
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        if !self.is_paused {
            self.read();
        }
    }

    fn read(&mut self) {
        if self.input.is_empty() || self.is_over {
            return;
        }
        let result = self.machine.input(self.now, self.peer, &mut self.input, &mut self.out);
        self.is_paused = result == Ok(Flow::Pause);
        if result == Ok(Flow::Continue) {
            let left = find(&self.input, self.max_packet_size, false);
            assert!(matches!(left, Ok(None)), "left behind: {left:?}");
        }
        if result == Ok(Flow::Pause) {
            assert!(!self.asked.is_empty() || self.out.actions.iter().any(is_question), "waits for nothing");
        }
        self.check();
        // What was asked for before the fault is done all the same.
        self.is_over |= result.is_err();
    }

    /// What is sent, and what is asked for.
    fn check(&mut self) {
        let wire = std::mem::take(&mut self.out.wire);
        let mut at = 0;
        while at < wire.len() {
            let Ok(Some(frame)) = find(&wire[at..], usize::MAX, true) else {
                panic!("no packet: {:x?}", &wire[at..])
            };
            self.sent(frame.kind(), &wire[at + frame.body..at + frame.end]);
            at += frame.end;
        }
        for action in std::mem::take(&mut self.out.actions) {
            self.act(action);
        }
    }

    fn sent(&mut self, of: u8, body: &[u8]) {
        assert!(!self.is_over, "a packet after the last one");
        match of {
            kind::CONNACK => {
                assert!(!self.is_open, "a second CONNACK");
                self.is_open = body[1] == 0;
                self.is_over = body[1] != 0;
            }
            kind::DISCONNECT => {
                assert!(self.is_5 && self.is_open, "a DISCONNECT to MQTT 3, or before CONNACK");
                assert!(body[0] >= 0x80);
                self.is_over = true;
            }
            kind::AUTH => assert!(self.is_5),
            kind::PUBLISH | kind::PUBACK | kind::PUBREC | kind::PUBREL | kind::PUBCOMP => {
                assert!(self.is_open)
            }
            kind::SUBACK | kind::UNSUBACK | kind::PINGRESP => assert!(self.is_open),
            other => panic!("a server sends no {other}"),
        }
    }

    fn act(&mut self, action: Action) {
        let (ticket, asked) = match action {
            Action::Connect(_, ticket, connect) => {
                self.is_5 = connect.protocol == "MQTT 5.0";
                (ticket, Asked::Connect(connect.method.is_some()))
            }
            Action::Exchange(_, ticket, _) | Action::Reauthenticate(_, ticket, _, _) => {
                (ticket, Asked::Exchange)
            }
            Action::Publish(_, publish) => match publish.ticket {
                Some(ticket) => (ticket, Asked::Publish),
                None => return,
            },
            Action::Release(_, ticket, _) | Action::Receive(_, ticket, _) => (ticket, Asked::Known),
            Action::Subscribe(_, ticket, list) => (ticket, Asked::Subscribe(list.len())),
            Action::Unsubscribe(_, ticket, list) => (ticket, Asked::Unsubscribe(list.len())),
            Action::Disconnect(..) | Action::Close(..) => return self.is_over = true,
            _ => return,
        };
        self.asked.push_back((ticket, asked));
    }

    /// Answers the oldest question in one of the ways that there are.
    fn answer(&mut self, how: u8) {
        let Some((ticket, asked)) = self.asked.pop_front() else { return };
        let refusal =
            [Refusal::NotAuthorised, Refusal::ServerBusy, Refusal::TopicName, Refusal::BadCredentials];
        let refusal = refusal[usize::from(how >> 2 & 3)];
        let is_refused = how & 3 == 1;
        let answer = match asked {
            Asked::Connect(_) | Asked::Exchange | Asked::Publish if is_refused => Answer::Refused(refusal),
            Asked::Connect(true) | Asked::Exchange if how & 3 == 2 => {
                Answer::Challenge(Bytes::from_static(b"data"))
            }
            Asked::Exchange if self.is_open => Answer::Authenticated(Bytes::new()),
            Asked::Connect(_) | Asked::Exchange => {
                let data = (how & 3 == 3).then(|| Bytes::from_static(b"data"));
                Answer::Connected(Box::new(Connected {
                    client_id: "c".into(),
                    session_present: how & 16 != 0,
                    data,
                    facts: Vec::new(),
                }))
            }
            Asked::Publish => Answer::Published(usize::from(how & 2)),
            Asked::Known => Answer::Known(how & 1 == 0),
            Asked::Subscribe(n) => {
                Answer::Subscribed(vec![if is_refused { Err(refusal) } else { Ok(Qos::default()) }; n])
            }
            Asked::Unsubscribe(n) => {
                Answer::Unsubscribed(vec![if is_refused { Err(refusal) } else { Ok(how & 2 == 0) }; n])
            }
        };
        self.machine.reply(self.now, self.peer, ticket, answer, &mut self.out);
        self.check();
        if std::mem::take(&mut self.is_paused) {
            self.read();
        }
    }

    fn deliver(&mut self, how: u8, r: &mut Reader<'_>) -> Result<(), Short> {
        let (id, length) = (r.u8()?, usize::from(r.u8()?));
        let payload = r.take(length.min(r.remaining()))?;
        if !self.is_open {
            return Ok(());
        }
        let topic = ["a", "b/c", "$SYS/x", ""][usize::from(id & 3)];
        let mut message = Message::new(self.now, topic, payload);
        if how & 16 != 0 {
            let user = vec![("k".into(), "v".into())];
            let content_type = Some("text/plain".into());
            message = message.with_properties(Properties { user, content_type, ..Properties::default() });
            message = message.with_expiry(Some(Duration::from_secs(3)));
        }
        let qos = Qos::from_u8(how & 3).unwrap_or_default();
        let delivery = DeliveryId(u16::from(id) + 1);
        let deliver = if how & 8 != 0 {
            Deliver::Release(delivery)
        } else {
            Deliver::Message(Delivery {
                id: (qos > Qos::AtMostOnce).then_some(delivery),
                message: &message,
                topic,
                qos,
                retain: how & 4 != 0,
                duplicate: qos > Qos::AtMostOnce && how & 4 != 0,
                subscriptions: &[1, 268_435_455][..usize::from(id >> 2 & 1)],
            })
        };
        self.machine.deliver(self.now, self.peer, &deliver, &mut self.out);
        self.check();
        Ok(())
    }

    fn wait(&mut self, seconds: u8) {
        self.now = self.now.after(Duration::from_secs(seconds.into()));
        if self.machine.next_timeout().is_some_and(|(at, _)| at <= self.now.instant) {
            self.machine.timeout(self.now, &mut self.out);
            self.check();
            let next = self.machine.next_timeout();
            assert!(next.is_none_or(|(at, _)| at > self.now.instant), "a deadline that has passed");
        }
    }

    fn stop(&mut self, how: u8) {
        if how & 16 == 0 {
            let mut said = Vec::new();
            return self.machine.describe(self.peer, &mut said);
        }
        let why =
            [Stop::TakenOver, Stop::Kicked, Stop::ShuttingDown, Stop::RateLimited][usize::from(how & 3)];
        self.machine.stop(self.now, self.peer, why, &mut self.out);
        self.check();
        self.is_over = true;
    }
}

fn is_question(action: &Action) -> bool {
    matches!(
        action,
        Action::Connect(..)
            | Action::Exchange(..)
            | Action::Reauthenticate(..)
            | Action::Publish(..)
            | Action::Release(..)
            | Action::Receive(..)
            | Action::Subscribe(..)
            | Action::Unsubscribe(..)
    )
}
