//! A device that is asked over a link that loses three of ten datagrams, doubles one of ten, and lets them overtake each
//! other by up to two seconds. It answers in acknowledgements or on its own, and repeats itself (RFC 7252, 4.2 and 5.2).

use std::collections::{BTreeMap, BTreeSet};

use gateway::{Failure, Method};

use super::*;

/// Requests, each to the path of its number.
const MOST: u64 = 20;

struct Device {
    bench: Bench,
    random: u64,
    clock_ms: u64,
    sent: u64,
    /// Datagrams on their way, by the millisecond in which they arrive and a running number.
    there: BTreeMap<(u64, u64), Message>,
    back: BTreeMap<(u64, u64), Message>,
    /// Message ids of requests that came, with the answer in the acknowledgement, if it has one.
    seen: BTreeMap<u16, Message>,
    done: BTreeSet<String>,
    /// Separate answers: how often they were sent, and when they are sent again.
    separate: BTreeMap<u16, (Message, u32, u64)>,
    last_id: u16,
}

impl Device {
    fn random(&mut self, below: u64) -> u64 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.random ^ self.random >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) % below
    }

    /// When copies of a datagram arrive.
    fn arrivals(&mut self) -> Vec<(u64, u64)> {
        let copies = [0, 0, 0, 2, 1, 1, 1, 1, 1, 1][self.random(10) as usize];
        let mut at = Vec::new();
        for _ in 0..copies {
            self.sent += 1;
            at.push((self.clock_ms + self.random(2000), self.sent));
        }
        at
    }

    fn for_device(&mut self, messages: Vec<Message>) {
        for message in messages {
            for at in self.arrivals() {
                self.there.insert(at, message.clone());
            }
        }
    }

    fn for_gateway(&mut self, message: Message) {
        for at in self.arrivals() {
            self.back.insert(at, message.clone());
        }
    }

    fn hear(&mut self, message: Message) {
        match message.kind {
            Kind::Ack | Kind::Rst => drop(self.separate.remove(&message.id)),
            _ if self.seen.contains_key(&message.id) => self.for_gateway(self.seen[&message.id].clone()),
            _ => {
                let path = String::from_utf8(message.all(URI_PATH).next().unwrap().to_vec()).unwrap();
                assert!(self.done.insert(path.clone()), "asked for twice: {path}");
                let (token, payload) = (message.token, path.into_bytes());
                let answer =
                    Message { code: Code::CONTENT, token, payload, ..Message::empty(Kind::Ack, message.id) };
                let is_separate = self.random(2) == 0;
                let now = if is_separate { Message::empty(Kind::Ack, message.id) } else { answer.clone() };
                self.seen.insert(message.id, now.clone());
                self.for_gateway(now);
                if is_separate {
                    self.last_id += 1;
                    let later = Message { kind: Kind::Con, id: self.last_id, ..answer };
                    let at = self.clock_ms + self.random(1000);
                    self.separate.insert(self.last_id, (later, 0, at));
                }
            }
        }
    }

    fn step(&mut self) {
        self.clock_ms += 100;
        self.bench.now = self.bench.now.after(Duration::from_millis(100));
        while let Some(entry) = self.there.first_entry().filter(|e| e.key().0 <= self.clock_ms) {
            let message = entry.remove();
            self.hear(message);
        }
        let due: Vec<u16> =
            self.separate.iter().filter(|(_, (.., at))| *at <= self.clock_ms).map(|(id, _)| *id).collect();
        for id in due {
            let clock_ms = self.clock_ms;
            let Some((message, times, at)) = self.separate.get_mut(&id) else { continue };
            let message = message.clone();
            (*times, *at) = (*times + 1, clock_ms + (3000 << *times));
            if *times > 5 {
                self.separate.remove(&id);
            } else {
                self.for_gateway(message);
            }
        }
        while let Some(entry) = self.back.first_entry().filter(|e| e.key().0 <= self.clock_ms) {
            let message = entry.remove();
            let sent = self.bench.send(&message);
            self.for_device(sent);
        }
        let sent = self.bench.pass(0);
        self.for_device(sent);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    #[test]
    fn over_a_bad_link_every_request_ends_once_and_with_its_own_answer(seed: u64) {
        let mut device = Device {
            bench: bench(),
            random: seed,
            clock_ms: 0,
            sent: 0,
            there: BTreeMap::new(),
            back: BTreeMap::new(),
            seen: BTreeMap::new(),
            done: BTreeSet::new(),
            separate: BTreeMap::new(),
            last_id: 0,
        };
        for ticket in 1..=MOST {
            let request = Request {
                method: Method::Get,
                path: ticket.to_string().into(),
                query: vec![],
                format: None,
                accept: None,
                payload: vec![].into(),
                timeout: Duration::from_secs(600),
            };
            device.bench.machine.command(device.bench.now, device.bench.peer, Ticket(ticket), &request, &mut device.bench.out);
            let sent = device.bench.run();
            device.for_device(sent);
            for _ in 0..300 {
                device.step();
            }
        }
        for _ in 0..7000 {
            device.step();
        }
        let b = &device.bench;
        let mut tickets: Vec<u64> = b.answered.iter().map(|(t, _)| *t).collect();
        tickets.sort_unstable();
        proptest::prop_assert_eq!(tickets, (1..=MOST).collect::<Vec<_>>());
        let mut good = 0;
        for (ticket, outcome) in &b.answered {
            match outcome {
                Ok(response) => {
                    good += 1;
                    proptest::prop_assert_eq!(std::str::from_utf8(&response.payload), Ok(&*ticket.to_string()));
                }
                Err(why) => proptest::prop_assert!(matches!(why, Failure::Unreachable | Failure::Timeout)),
            }
        }
        proptest::prop_assert!(good > MOST / 2, "{:?}", good);
        // Nobody there any more: it was forgotten, or nothing waits for it.
        let c = &b.machine.peers[&b.peer];
        proptest::prop_assert_eq!((c.asking.len(), c.outgoing.len(), b.machine.asked.len()), (0, 0, 0));
    }
}
