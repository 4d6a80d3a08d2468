//! CoAP over TCP and WebSocket (RFC 8323): the first byte chooses the framing and limits, then come steps: bytes, answers
//! to what was asked, deliveries, time, the driver's goodbye.
//!
//! Checked throughout: however bytes are cut, the same messages come out, and they are written as they were read; the
//! machine begins with a CSM and sends whole messages, none larger than the peer said it takes but signals; a deadline that
//! has passed is not asked for again; when nothing is asked any more, every request was answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use coap::frame::Message as Sent;
use coap::stream::frame::{Framing, Malformed, Splitter, encode, length};
use coap::stream::signal::{CSM, Capabilities};
use coap::{Coap, Config};
use gateway::{
    Action, Answer, Connected, Deliver, Delivery, DeliveryId, Facts, Flow, Gateway, Listener, Message, Now,
    Outbox, Peer, Qos, Refusal, Stop, Ticket, Transport,
};
use wire::{Reader, Short};

const PEER: Peer = Peer { slot: 1, generation: 1 };

/// Plays `data`.
pub fn play(data: &[u8]) {
    let mut r = Reader::new(data);
    let Ok(how) = r.u8() else { return };
    let framing = if how & 1 == 0 { Framing::Tcp } else { Framing::WebSocket };
    let piece = usize::from(how >> 2) + 1;
    let whole = split(framing, [r.rest()]);
    assert_eq!(whole, split(framing, r.rest().chunks(piece)));
    whole.0.iter().for_each(|message| is_written_as_it_was_read(message, framing));
    let mut driver = Driver::new(framing, how & 2 != 0);
    while !driver.is_over && !r.is_empty() && driver.step(&mut r).is_ok() {}
    if !driver.is_over {
        driver.leave();
    }
}

fn split<'a>(
    framing: Framing,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Sent>, Result<(), Malformed>) {
    let (mut splitter, mut held, mut found) = (Splitter::new(framing, 600), BytesMut::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match splitter.next(&mut held) {
                Ok(Some(message)) => found.push(message),
                Ok(None) => break,
                Err(why) => return (found, Err(why)),
            }
        }
    }
    (found, Ok(()))
}

fn is_written_as_it_was_read(message: &Sent, framing: Framing) {
    let mut bytes = Vec::new();
    encode(message, framing, &mut bytes);
    let (again, _) = split(framing, [&bytes[..]]);
    assert_eq!(again, std::slice::from_ref(message));
}

/// What was asked and is not answered.
enum Asked {
    Connect,
    Publish,
    Subscribe,
    Unsubscribe,
    Retained,
    Save,
}

struct Driver {
    machine: Coap,
    framing: Framing,
    now: Now,
    out: Outbox,
    /// What the machine has left of what it was given.
    rest: BytesMut,
    is_paused: bool,
    is_over: bool,
    is_open: bool,
    subscription: u32,
    asked: VecDeque<(Ticket, Asked)>,
    /// What the machine is given, and the CSMs in it.
    heard: (Splitter, BytesMut, Capabilities),
    /// The largest message that the peer has ever said that it takes.
    most: usize,
    has_greeted: bool,
}

impl Driver {
    fn new(framing: Framing, is_small: bool) -> Driver {
        let listener = Listener::new("fuzz", "coap");
        let transport = if framing == Framing::Tcp { Transport::Tcp } else { Transport::WebSocket };
        let facts = Facts::new(Arc::new(listener), transport, ([192, 0, 2, 1], 1).into());
        let mut config = Config { max_message_size: 600, ..Config::default() };
        if is_small {
            config.max_body_size = 700;
            config.max_observations = 1;
            config.max_discovered = 1;
        }
        let random = Arc::new(|bytes: &mut [u8]| {
            bytes.fill(7);
            true
        });
        let mut driver = Driver {
            machine: Coap::new(Arc::new(config), random),
            framing,
            now: Now::from_micros(1_000_000),
            out: Outbox::default(),
            rest: BytesMut::new(),
            is_paused: false,
            is_over: false,
            is_open: false,
            subscription: 0,
            asked: VecDeque::new(),
            heard: (Splitter::new(framing, 600), BytesMut::new(), Capabilities::default()),
            most: Capabilities::default().max_message_size,
            has_greeted: false,
        };
        driver.machine.opened(driver.now, PEER, &facts, &mut driver.out);
        driver.check();
        assert!(driver.has_greeted);
        driver
    }

    fn step(&mut self, r: &mut Reader<'_>) -> Result<(), Short> {
        match r.u8()? & 7 {
            0..=3 => {
                let length = usize::from(r.u8()?);
                let bytes = r.take(length.min(r.remaining()))?;
                self.listen(bytes);
                self.rest.extend_from_slice(bytes);
                self.feed();
            }
            4 => self.answer(r.u8()?),
            5 => self.deliver(r.u8()?),
            6 => self.wait(r.u8()?),
            _ => {
                let why = [Stop::ShuttingDown, Stop::TakenOver, Stop::Kicked][usize::from(r.u8()?) % 3];
                self.machine.stop(self.now, PEER, why, &mut self.out);
                self.check();
                if !self.is_over {
                    self.leave();
                }
            }
        }
        Ok(())
    }

    fn listen(&mut self, bytes: &[u8]) {
        let (splitter, held, takes) = &mut self.heard;
        held.extend_from_slice(bytes);
        while let Ok(Some(message)) = splitter.next(held) {
            if message.code == CSM && takes.update(&message).is_ok() {
                self.most = self.most.max(takes.max_message_size);
            }
        }
    }

    fn feed(&mut self) {
        while !self.is_over && !self.is_paused && !self.rest.is_empty() {
            let left = self.rest.len();
            let result = self.machine.input(self.now, PEER, &mut self.rest, &mut self.out);
            self.check();
            match result {
                Err(_) if !self.is_over => return self.leave(),
                Ok(Flow::Pause) => self.is_paused = true,
                _ if self.rest.len() == left => return,
                _ => {}
            }
        }
    }

    fn check(&mut self) {
        let mut bytes = BytesMut::from(&std::mem::take(&mut self.out.wire)[..]);
        let mut splitter = Splitter::new(self.framing, usize::MAX);
        while let Some(message) = splitter.next(&mut bytes).unwrap_or_else(|why| panic!("{why:?}")) {
            assert!(self.has_greeted || message.code == CSM, "something before the CSM");
            self.has_greeted = true;
            let size = length(&message, self.framing);
            assert!(message.code.class() == 7 || size <= self.most, "{size} bytes");
        }
        assert!(bytes.is_empty(), "part of a message was sent: {bytes:x?}");
        for action in std::mem::take(&mut self.out.actions) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        let (ticket, asked) = match action {
            Action::Connect(_, ticket, _) => (ticket, Asked::Connect),
            Action::Publish(_, publish) => match publish.ticket {
                Some(ticket) => (ticket, Asked::Publish),
                None => return,
            },
            Action::Subscribe(_, ticket, list) => {
                self.subscription = list.last().map_or(0, |s| s.identifier);
                (ticket, Asked::Subscribe)
            }
            Action::Unsubscribe(_, ticket, _) => (ticket, Asked::Unsubscribe),
            Action::Retained(_, ticket, ..) => (ticket, Asked::Retained),
            Action::Save(_, ticket, ..) => (ticket, Asked::Save),
            Action::Disconnect(..) => return self.is_open = false,
            Action::Close(..) if !self.is_over => return self.leave(),
            _ => return,
        };
        self.asked.push_back((ticket, asked));
    }

    /// Answers the oldest question in one of the ways that there are.
    fn answer(&mut self, how: u8) {
        let Some((ticket, asked)) = self.asked.pop_front() else { return };
        let is_refused = how & 3 == 1;
        let refusal = [Refusal::NotAuthorised, Refusal::ServerBusy][usize::from(how >> 2 & 1)];
        let one = |ok| if is_refused { Err(refusal) } else { Ok(ok) };
        let answer = match asked {
            Asked::Subscribe => {
                let result = if is_refused { Err(refusal) } else { Ok(Qos::AtLeastOnce) };
                Answer::Subscribed(vec![result])
            }
            Asked::Unsubscribe => Answer::Unsubscribed(vec![one(true)]),
            _ if is_refused => Answer::Refused(refusal),
            Asked::Connect => {
                self.is_open = true;
                Answer::Connected(Box::new(Connected {
                    client_id: "c".into(),
                    session_present: false,
                    data: None,
                    facts: Vec::new(),
                }))
            }
            Asked::Publish => Answer::Published(1),
            Asked::Save => Answer::Saved,
            Asked::Retained => {
                let message = Message::new(self.now, "a", &vec![b'x'; usize::from(how) * 40]);
                Answer::Retained(vec![("a".into(), message); usize::from(how & 2)])
            }
        };
        self.machine.reply(self.now, PEER, ticket, answer, &mut self.out);
        self.check();
        self.is_paused = false;
        self.feed();
        if self.asked.is_empty() && !self.is_over {
            assert!(!self.is_paused, "waits for nothing");
            let mut said = Vec::new();
            self.machine.describe(PEER, &mut said);
            assert!(said.contains(&("exchanges", "0".to_owned())), "not answered: {said:?}");
        }
    }

    fn deliver(&mut self, how: u8) {
        if !self.is_open {
            return;
        }
        let qos = if how & 1 == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
        let message = Message::new(self.now, "a", &vec![b'y'; usize::from(how) * 20]).with_qos(qos);
        let delivery = Delivery {
            id: (qos > Qos::AtMostOnce).then_some(DeliveryId(1)),
            message: &message,
            topic: "a",
            qos,
            retain: false,
            duplicate: false,
            subscriptions: &[self.subscription],
        };
        self.machine.deliver(self.now, PEER, &Deliver::Message(delivery), &mut self.out);
        let is_settled = self.out.actions.iter().any(|a| matches!(a, Action::Settle(..)));
        assert!(is_settled || qos == Qos::AtMostOnce, "a delivery is not settled");
        self.check();
    }

    fn wait(&mut self, how: u8) {
        self.now = self.now.after(Duration::from_secs(u64::from(how)));
        self.machine.timeout(self.now, &mut self.out);
        self.check();
        if !self.is_over {
            let next = self.machine.next_timeout();
            assert!(next.is_none_or(|(at, _)| at > self.now.instant), "asks for what has passed: {next:?}");
        }
    }

    fn leave(&mut self) {
        self.is_over = true;
        self.machine.closed(self.now, PEER, &mut self.out);
        assert!(self.machine.next_timeout().is_none(), "waits for somebody who is gone");
        self.out.clear();
        self.asked.clear();
    }
}
