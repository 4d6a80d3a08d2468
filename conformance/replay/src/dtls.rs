//! The input of the DTLS layer: two clients shake hands and talk with an endpoint over a network that loses, repeats, reorders,
//! cuts and changes what it carries and adds bytes of its own, while time passes and the gateway is killed.
//!
//! Whatever the network does, what an endpoint hands out was said by the client whose association it is, once; counts
//! keep their bounds; and no record number is used twice by an association.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dtls::{Client, ClientSettings, Endpoint, Event, Found, Id, Identity, Key, Keys, Settings, Suite};
use gateway::Now;

const SEAL: [u8; 32] = [3; 32];

struct Table;

impl Keys for Table {
    fn key(&self, identity: &[u8]) -> Found {
        let newest = identity.starts_with(b"client").then(|| Key::new(b"key")).flatten();
        Found { newest, older: None }
    }
}

/// What the store has: of each association its record, and its numbers.
type Kept = BTreeMap<[u8; 8], (Vec<u8>, Option<Vec<u8>>)>;

struct World {
    now: Now,
    endpoint: Endpoint,
    kept: Kept,
    clients: [Client; 2],
    /// On their way: who from, or to.
    up: VecDeque<(usize, Vec<u8>)>,
    down: VecDeque<(usize, Vec<u8>)>,
    said: HashSet<(usize, Vec<u8>)>,
    counter: u32,
    ids: Vec<Id>,
    /// Protected records that the endpoint has sent: connection, epoch and number.
    numbers: HashSet<(Id, [u8; 8])>,
}

fn settings() -> Settings {
    // One suite that costs little; what is between the records is the same for all.
    let suites = Suite::named("PSK-AES128-CCM8").into_iter().collect();
    Settings { suites, max_half_open: 4, max_associations: 4, number_block: 4, ..Settings::default() }
}

fn address(client: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 1000 + client as u16))
}

/// Plays `data` as a run of steps.
pub fn play(data: &[u8]) {
    let Some((&flags, steps)) = data.split_first() else { return };
    let client = |n: usize| {
        let cid = (flags >> n & 1 == 1).then(Vec::new);
        let suites = Suite::named("PSK-AES128-CCM8").into_iter().collect();
        let psk = ClientSettings::psk(format!("client{n}").as_bytes(), b"key");
        Client::new(&ClientSettings { cid, suites, ..psk }).ok()
    };
    let (Ok(endpoint), Some(a), Some(b)) =
        (Endpoint::new(settings(), Arc::new(Table), &SEAL), client(0), client(1))
    else {
        panic!("settings that do not change are good");
    };
    let mut world = World {
        now: Now::from_micros(1_000_000),
        endpoint,
        kept: Kept::new(),
        clients: [a, b],
        up: VecDeque::new(),
        down: VecDeque::new(),
        said: HashSet::new(),
        counter: 0,
        ids: Vec::new(),
        numbers: HashSet::new(),
    };
    let mut steps = steps.iter().copied();
    // A handshake takes some ten steps.
    for _ in 0..200 {
        let Some(step) = steps.next() else { return };
        world.step(step, &mut steps);
        let counts = world.endpoint.counts();
        assert!(counts.half_open <= 4 && counts.active + counts.parked <= 4, "{counts:?}");
    }
}

impl World {
    fn step(&mut self, step: u8, more: &mut impl Iterator<Item = u8>) {
        let (what, who) = (step & 15, usize::from(step >> 4 & 1));
        let mut next = || more.next().unwrap_or(0);
        match what {
            0 => self.client_timeout(who),
            1..=3 => {
                if let Some((from, datagram)) = self.up.pop_front() {
                    self.arrive(from, &datagram);
                }
            }
            4..=6 => {
                if let Some((to, datagram)) = self.down.pop_front() {
                    self.hear(to, &datagram);
                }
            }
            7 => drop(self.up.pop_front().or_else(|| self.down.pop_front())),
            8 => {
                if let Some((from, datagram)) = self.up.front().cloned() {
                    self.up.push_back((from, datagram));
                }
            }
            9 => self.up.rotate_left(1.min(self.up.len())),
            10 => {
                if let Some((from, mut datagram)) = self.up.pop_front() {
                    let at = usize::from(next()) % datagram.len().max(1);
                    let change = next();
                    match datagram.get_mut(at) {
                        Some(byte) if change > 0 => *byte ^= change,
                        _ => datagram.truncate(at),
                    }
                    self.arrive(from, &datagram);
                }
            }
            11 => {
                let length = usize::from(next() & 63);
                let datagram: Vec<u8> = (0..length).map(|_| next()).collect();
                self.arrive(who, &datagram);
            }
            12 => {
                self.now = self.now.after(Duration::from_millis(250 * u64::from(next())));
                self.tell(None, |endpoint, now, events| endpoint.timeout(now, events));
                (0..2).for_each(|who| self.client_timeout(who));
            }
            13 => {
                self.counter += 1;
                let payload = format!("{who} says {}", self.counter).into_bytes();
                if self.clients[who].is_open()
                    && let Ok(datagram) = self.clients[who].seal(self.now, &payload)
                {
                    self.said.insert((who, payload));
                    self.up.push_back((who, datagram));
                }
            }
            14 => self.answer(who),
            _ => self.restart(),
        }
    }

    fn client_timeout(&mut self, who: usize) {
        let mut send = Vec::new();
        // A client that has given up says no more.
        let _ = self.clients[who].timeout(self.now, &mut send);
        self.up.extend(send.into_iter().map(|datagram| (who, datagram)));
    }

    fn hear(&mut self, who: usize, datagram: &[u8]) {
        let (mut send, mut payloads) = (Vec::new(), Vec::new());
        let _ = self.clients[who].receive(self.now, datagram, &mut send, &mut payloads);
        self.up.extend(send.into_iter().map(|datagram| (who, datagram)));
    }

    fn arrive(&mut self, from: usize, datagram: &[u8]) {
        let at = address(from);
        self.tell(Some(from), |endpoint, now, events| endpoint.receive(now, at, datagram, events));
    }

    /// Something for whoever holds the association.
    fn answer(&mut self, who: usize) {
        let Some(id) = self.ids.get(who).copied() else { return };
        let mut datagram = Vec::new();
        if self.endpoint.seal(self.now, id, b"told", &mut datagram).is_ok() {
            self.used(id, &datagram);
            let to = self.endpoint.address(id).map_or(0, |a| usize::from(a.port() - 1000));
            self.down.push_back((to, datagram));
        }
    }

    fn used(&mut self, id: Id, datagram: &[u8]) {
        let number = datagram.get(3..11).and_then(|b| <[u8; 8]>::try_from(b).ok());
        if let Some(number) = number.filter(|n| n[..2] != [0, 0]) {
            assert!(self.numbers.insert((id, number)), "{id} has used {number:x?} twice");
        }
    }

    /// The process is killed; another one goes on with what the store has.
    fn restart(&mut self) {
        let Ok(endpoint) = Endpoint::new(settings(), Arc::new(Table), &SEAL) else { return };
        self.endpoint = endpoint;
        for (id, (record, numbers)) in self.kept.clone() {
            // What cannot be restored is forgotten.
            if self.endpoint.restore(self.now, Id(id), &record, numbers.as_deref()).is_err() {
                self.kept.remove(&id);
            }
        }
        self.ids.retain(|id| self.kept.contains_key(&id.0));
    }

    fn tell(
        &mut self,
        from: Option<usize>,
        call: impl FnOnce(&mut Endpoint, Now, &mut dyn FnMut(Event<'_>)),
    ) {
        let World { endpoint, now, kept, down, said, ids, .. } = self;
        let (mut written, mut who) = (Vec::new(), BTreeMap::new());
        call(endpoint, *now, &mut |event| match event {
            Event::Send { to, datagram } => {
                down.push_back((usize::from(to.port() - 1000), datagram.to_vec()));
            }
            Event::Opened { id, identity, .. } => {
                if let Identity::Psk(name) = identity {
                    who.insert(id.0, usize::from(**name == *b"client1"));
                }
                ids.push(id);
            }
            Event::Data { payload, .. } => {
                let speaker = usize::from(payload.first() == Some(&b'1'));
                assert!(
                    said.remove(&(speaker, payload.to_vec())),
                    "{payload:?} was not said, or came before"
                );
                assert!(from.is_some(), "time says nothing");
            }
            Event::Closed { id, .. } => ids.retain(|i| *i != id),
            Event::Keep { id, record } => {
                kept.insert(id.0, (record.to_vec(), None));
            }
            Event::KeepNumbers { id, record, reserved } => {
                if let Some((_, numbers)) = kept.get_mut(&id.0) {
                    *numbers = Some(record.to_vec());
                }
                written.push((id, reserved));
            }
            Event::Forget { id } => {
                kept.remove(&id.0);
            }
            Event::Drop(_) => {}
        });
        for (id, reserved) in written {
            self.endpoint.kept(id, reserved);
        }
    }
}
