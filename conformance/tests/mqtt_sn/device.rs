//! A client as the specification has it: one request at a time, repeated until it is answered; connects again when nobody
//! answers or when it is told that it is not connected. It publishes five messages awake, sleeps, and is awake for what was
//! kept; every third one wakes at another address each time.

use std::collections::{HashMap, HashSet};

use crate::{DEVICES, MESSAGES, SECOND};

const CONNECT: u8 = 0x04;
const CONNACK: u8 = 0x05;
const REGISTER: u8 = 0x0A;
const REGACK: u8 = 0x0B;
const PUBLISH: u8 = 0x0C;
const PUBACK: u8 = 0x0D;
const PUBCOMP: u8 = 0x0E;
const PUBREC: u8 = 0x0F;
const PUBREL: u8 = 0x10;
const SUBSCRIBE: u8 = 0x12;
const SUBACK: u8 = 0x13;
const PINGREQ: u8 = 0x16;
const PINGRESP: u8 = 0x17;
const DISCONNECT: u8 = 0x18;
/// T_RETRY and N_RETRY (7.2).
const RETRY: u64 = 10 * SECOND;
const RETRIES: u32 = 4;
/// How long it is asleep between two looks at what was kept, and how long it says that it may be.
const NAP: u64 = 40 * SECOND;
const SLEEP: u16 = 120;
const KEEP_ALIVE: u16 = 60;
/// Publications between two sleeps.
const AWAKE_FOR: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connected,
    Asleep,
    /// It has said PINGREQ.
    Awake,
}

struct Asking {
    kind: u8,
    id: u16,
    bytes: Vec<u8>,
    tries: u32,
    due: u64,
}

pub(crate) struct Device {
    index: usize,
    moves: u16,
    state: State,
    asking: Option<Asking>,
    next_id: u16,
    /// Its topic's id, once the gateway has said it.
    topic: Option<[u8; 2]>,
    is_subscribed: bool,
    /// Number of what it publishes next.
    next: u32,
    /// Its message id, if it was sent before, and whether its PUBREC has come.
    publication: Option<(u16, bool)>,
    awake_for: u32,
    naps: u32,
    until: u64,
    spoke: u64,
    /// Topics that the gateway has registered.
    known: HashMap<[u8; 2], Vec<u8>>,
    /// QoS 2 messages that are not released.
    received: HashSet<[u8; 2]>,
    pub(crate) heard: Vec<u32>,
    pub(crate) connects: u32,
    pub(crate) out: Vec<Vec<u8>>,
}

fn message(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![0, kind];
    fields.iter().for_each(|field| out.extend_from_slice(field));
    out[0] = out.len() as u8;
    out
}

impl Device {
    pub(crate) fn new(index: usize) -> Device {
        Device {
            index,
            moves: 0,
            state: State::Connected,
            asking: None,
            next_id: 0,
            topic: None,
            is_subscribed: false,
            next: 0,
            publication: None,
            awake_for: 0,
            naps: 0,
            until: 0,
            spoke: 0,
            known: HashMap::new(),
            received: HashSet::new(),
            heard: Vec::new(),
            connects: 0,
            out: Vec::new(),
        }
    }

    /// Tells the device too: no two share one.
    pub(crate) fn address(&self) -> u16 {
        1_000 + self.moves * DEVICES as u16 + self.index as u16
    }

    /// Whether it has published all and heard all.
    pub(crate) fn is_done(&self, messages: u32) -> bool {
        let heard: HashSet<_> = self.heard.iter().collect();
        self.next == messages && heard.len() == messages as usize
    }

    pub(crate) fn describe(&self) -> String {
        let mut missing: Vec<u32> = (0..MESSAGES).filter(|n| !self.heard.contains(n)).collect();
        missing.sort_unstable();
        let asking = self.asking.as_ref().map(|a| (a.kind, a.tries));
        format!(
            "device {}: {:?}, asks {asking:x?}, publishes {}, misses {missing:?}",
            self.index, self.state, self.next
        )
    }

    fn name(&self) -> Vec<u8> {
        format!("device-{}", self.index).into_bytes()
    }

    fn say(&mut self, now: u64, bytes: Vec<u8>) {
        self.spoke = now;
        self.out.push(bytes);
    }

    fn ask(&mut self, now: u64, kind: u8, id: u16, bytes: Vec<u8>) {
        self.say(now, bytes.clone());
        self.asking = Some(Asking { kind, id, bytes, tries: 0, due: now + RETRY });
    }

    fn new_id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    fn connect(&mut self, now: u64) {
        self.state = State::Connected;
        self.awake_for = 0;
        self.connects += 1;
        let fields: [&[u8]; 3] = [&[0, 1], &KEEP_ALIVE.to_be_bytes(), &self.name()];
        self.ask(now, CONNECT, 0, message(CONNECT, &fields));
    }

    /// It looks at its clock.
    pub(crate) fn look(&mut self, now: u64, jitter: u64) {
        if let Some(asking) = &mut self.asking {
            if now < asking.due {
                return;
            }
            asking.tries += 1;
            asking.due = now + RETRY + jitter * SECOND;
            if asking.tries > RETRIES {
                return self.connect(now);
            }
            if matches!(asking.kind, PUBLISH | SUBSCRIBE) {
                asking.bytes[2] |= 0x80;
            }
            let bytes = asking.bytes.clone();
            return self.say(now, bytes);
        }
        match self.state {
            State::Connected if self.connects == 0 => self.connect(now),
            State::Connected => self.work(now),
            State::Asleep if now >= self.until => self.nap_is_over(now),
            _ => {}
        }
    }

    fn work(&mut self, now: u64) {
        if !self.is_subscribed {
            let id = self.new_id();
            let filter = format!("down/{}/+", self.index);
            self.ask(
                now,
                SUBSCRIBE,
                id,
                message(SUBSCRIBE, &[&[0x40], &id.to_be_bytes(), filter.as_bytes()]),
            );
        } else if self.topic.is_none() {
            let id = self.new_id();
            let topic = format!("up/{}", self.index);
            self.ask(now, REGISTER, id, message(REGISTER, &[&[0, 0], &id.to_be_bytes(), topic.as_bytes()]));
        } else if self.next < MESSAGES && self.awake_for < AWAKE_FOR {
            self.publish(now);
        } else if self.awake_for >= AWAKE_FOR {
            self.ask(now, DISCONNECT, 0, message(DISCONNECT, &[&SLEEP.to_be_bytes()]));
        } else if now > self.spoke + u64::from(KEEP_ALIVE) * SECOND * 8 / 10 {
            self.ask(now, PINGREQ, 0, message(PINGREQ, &[]));
        }
    }

    fn publish(&mut self, now: u64) {
        if let Some((id, true)) = self.publication {
            return self.release(now, id);
        }
        let is_again = self.publication.is_some();
        let id = self.publication.map_or_else(|| self.new_id(), |(id, _)| id);
        self.publication = Some((id, false));
        let flags = (1 + self.next as u8 % 2) << 5 | if is_again { 0x80 } else { 0 };
        let topic = self.topic.unwrap_or_default();
        let bytes = message(PUBLISH, &[&[flags], &topic, &id.to_be_bytes(), &self.next.to_be_bytes()]);
        self.ask(now, PUBLISH, id, bytes);
    }

    fn release(&mut self, now: u64, id: u16) {
        self.publication = Some((id, true));
        self.ask(now, PUBREL, id, message(PUBREL, &[&id.to_be_bytes()]));
    }

    fn published(&mut self) {
        (self.asking, self.publication) = (None, None);
        self.next += 1;
        self.awake_for += 1;
    }

    fn nap_is_over(&mut self, now: u64) {
        self.naps += 1;
        if self.index % 3 == 2 {
            self.moves += 1;
        }
        if self.naps.is_multiple_of(3) {
            return self.connect(now);
        }
        self.state = State::Awake;
        let bytes = message(PINGREQ, &[&self.name()]);
        self.ask(now, PINGREQ, 0, bytes);
    }

    fn nap(&mut self, now: u64) {
        (self.state, self.asking, self.until) = (State::Asleep, None, now + NAP);
    }

    fn is_asking(&self, kind: u8) -> bool {
        self.asking.as_ref().is_some_and(|a| a.kind == kind)
    }

    fn asks(&self, kind: u8, id: &[u8]) -> bool {
        self.asking.as_ref().is_some_and(|a| a.kind == kind && a.id.to_be_bytes() == *id)
    }

    pub(crate) fn receive(&mut self, now: u64, bytes: &[u8]) {
        // Its radio is off.
        if self.state == State::Asleep {
            return;
        }
        assert_eq!(usize::from(bytes[0]), bytes.len(), "{bytes:x?}");
        match (bytes[1], &bytes[2..]) {
            (CONNACK, [0]) if self.is_asking(CONNECT) => self.asking = None,
            (SUBACK, [_, _, _, id @ .., 0]) if self.asks(SUBSCRIBE, id) => {
                (self.asking, self.is_subscribed) = (None, true);
            }
            (REGACK, [topic, t, id @ .., 0]) if self.asks(REGISTER, id) => {
                (self.asking, self.topic) = (None, Some([*topic, *t]));
            }
            (PUBACK, [_, _, id @ .., code]) if self.asks(PUBLISH, id) => match code {
                0 => self.published(),
                2 => (self.asking, self.topic) = (None, None),
                _ => {}
            },
            (PUBREC, id) if self.asks(PUBLISH, id) => {
                self.release(now, u16::from_be_bytes([id[0], id[1]]));
            }
            (PUBCOMP, id) if self.asks(PUBREL, id) => self.published(),
            (PINGRESP, []) if self.is_asking(PINGREQ) => match self.state {
                State::Awake => self.nap(now),
                _ => self.asking = None,
            },
            (DISCONNECT, []) if self.is_asking(DISCONNECT) => self.nap(now),
            // It is not connected, whatever it thought.
            (DISCONNECT, []) if !self.is_asking(CONNECT) => self.connect(now),
            (REGISTER, [a, b, i, d, name @ ..]) => {
                self.known.insert([*a, *b], name.to_vec());
                self.say(now, message(REGACK, &[&[*a, *b, *i, *d, 0]]));
            }
            (PUBLISH, [flags, a, b, i, d, payload @ ..]) => {
                self.hear(now, *flags, [*a, *b], [*i, *d], payload)
            }
            (PUBREL, [i, d]) => {
                self.received.remove(&[*i, *d]);
                self.say(now, message(PUBCOMP, &[&[*i, *d]]));
            }
            // Late answers.
            _ => {}
        }
    }

    fn hear(&mut self, now: u64, flags: u8, topic: [u8; 2], id: [u8; 2], payload: &[u8]) {
        assert_eq!(flags & 3, 0, "a normal topic id");
        let Some(name) = self.known.get(&topic) else {
            return self.say(now, message(PUBACK, &[&topic, &id, &[2]]));
        };
        let number = u32::from_be_bytes(payload.try_into().unwrap());
        assert_eq!(*name, format!("down/{}/{}", self.index, number % 3).into_bytes(), "another topic's id");
        if flags >> 5 & 3 == 1 {
            self.heard.push(number);
            self.say(now, message(PUBACK, &[&topic, &id, &[0]]));
        } else {
            if self.received.insert(id) {
                self.heard.push(number);
            }
            self.say(now, message(PUBREC, &[&id]));
        }
    }
}
