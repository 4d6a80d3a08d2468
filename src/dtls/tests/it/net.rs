//! An endpoint and its clients on a network that can lose, and a clock that only the test moves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dtls::{
    Client, ClientSettings, Closed, Endpoint, Event, Found, Id, Identity, Key, Keys, NotSent, Reason,
    Reserved, Settings,
};
use gateway::Now;

pub(crate) const SEAL: [u8; 32] = [7; 32];

/// Identities and their keys, the newest first.
#[derive(Default)]
pub(crate) struct Table(pub(crate) HashMap<Vec<u8>, Vec<Vec<u8>>>);

impl Table {
    pub(crate) fn of(entries: &[(&str, &[&str])]) -> Arc<Table> {
        let bytes = |s: &&str| s.as_bytes().to_vec();
        Arc::new(Table(entries.iter().map(|(i, k)| (bytes(i), k.iter().map(bytes).collect())).collect()))
    }
}

impl Keys for Table {
    fn key(&self, identity: &[u8]) -> Found {
        let keys = self.0.get(identity);
        let at = |n: usize| keys.and_then(|k| Key::new(k.get(n)?));
        Found { newest: at(0), older: at(1) }
    }
}

/// What an endpoint told, kept for a test to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Opened { id: Id, from: SocketAddr, identity: Identity, has_cid: bool, replaces: Option<Id> },
    Data { id: Id, from: SocketAddr, is_newest: bool, payload: Vec<u8> },
    Closed(Id, Closed),
    Keep(Id, Vec<u8>),
    KeepNumbers(Id, Vec<u8>, Reserved),
    Forget(Id),
    Drop(Reason),
}

/// The server's side: an endpoint, and everything it told and sent.
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) now: Now,
    pub(crate) told: Vec<Told>,
    pub(crate) sent: Vec<(SocketAddr, Vec<u8>)>,
}

pub(crate) fn address(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 5000))
}

impl Server {
    pub(crate) fn new(settings: Settings, keys: Arc<dyn Keys>) -> Server {
        let endpoint = Endpoint::new(settings, keys, &SEAL).unwrap();
        let now = Now { wall_ms: 1_800_000_000_000, ..Now::from_micros(1_000_000) };
        Server { endpoint, now, told: vec![], sent: vec![] }
    }

    /// One identity, `dev`, whose key is `secret`.
    pub(crate) fn simple() -> Server {
        Server::new(Settings::default(), Table::of(&[("dev", &["secret"])]))
    }

    fn with(&mut self, act: impl FnOnce(&mut Endpoint, Now, &mut dyn FnMut(Event<'_>))) {
        let (told, sent) = (&mut self.told, &mut self.sent);
        act(&mut self.endpoint, self.now, &mut |event| match event {
            Event::Send { to, datagram } => sent.push((to, datagram.to_vec())),
            Event::Opened { id, from, identity, has_cid, replaces } => {
                told.push(Told::Opened { id, from, identity: identity.clone(), has_cid, replaces });
            }
            Event::Data { id, from, is_newest, payload } => {
                told.push(Told::Data { id, from, is_newest, payload: payload.to_vec() });
            }
            Event::Closed { id, why } => told.push(Told::Closed(id, why)),
            Event::Keep { id, record } => told.push(Told::Keep(id, record.to_vec())),
            Event::KeepNumbers { id, record, reserved } => {
                told.push(Told::KeepNumbers(id, record.to_vec(), reserved));
            }
            Event::Forget { id } => told.push(Told::Forget(id)),
            Event::Drop(reason) => told.push(Told::Drop(reason)),
        });
    }

    pub(crate) fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.with(|e, now, events| e.receive(now, from, datagram, events));
    }

    pub(crate) fn timeout(&mut self) {
        self.with(|e, now, events| e.timeout(now, events));
    }

    pub(crate) fn close(&mut self, id: Id) {
        self.with(|e, now, events| e.close(now, id, events));
    }

    pub(crate) fn forget(&mut self, id: Id) {
        self.with(|e, _, events| e.forget(id, events));
    }

    pub(crate) fn seal(&mut self, id: Id, payload: &[u8]) -> Result<Vec<u8>, NotSent> {
        let mut out = vec![];
        self.endpoint.seal(self.now, id, payload, &mut out).map(|()| out)
    }

    /// Let time pass, in steps at which the endpoint wants to be called.
    pub(crate) fn pass(&mut self, d: Duration) {
        let end = self.now.after(d);
        while let Some(at) = self.endpoint.next_timeout().filter(|at| *at <= end.instant) {
            self.now = self.now.after(at.since(self.now.instant));
            self.timeout();
        }
        self.now = end;
    }

    /// The store has written everything that was told.
    pub(crate) fn kept(&mut self) {
        for t in &self.told {
            if let Told::KeepNumbers(id, _, reserved) = t {
                self.endpoint.kept(*id, *reserved);
            }
        }
    }

    /// Drops told, and forget them all.
    pub(crate) fn drops(&mut self) -> Vec<Reason> {
        let told = std::mem::take(&mut self.told);
        told.into_iter().filter_map(|t| if let Told::Drop(r) = t { Some(r) } else { None }).collect()
    }

    /// The datagrams sent to `to`, taken.
    pub(crate) fn sent_to(&mut self, to: SocketAddr) -> Vec<Vec<u8>> {
        let (mine, others) = std::mem::take(&mut self.sent).into_iter().partition(|(a, _)| *a == to);
        self.sent = others;
        let mine: Vec<(SocketAddr, Vec<u8>)> = mine;
        mine.into_iter().map(|(_, d)| d).collect()
    }

    /// The association that was opened last.
    pub(crate) fn opened(&self) -> Option<Id> {
        self.told.iter().rev().find_map(|t| if let Told::Opened { id, .. } = t { Some(*id) } else { None })
    }

    /// Payloads told.
    pub(crate) fn payloads(&self) -> Vec<&[u8]> {
        self.told
            .iter()
            .filter_map(|t| if let Told::Data { payload, .. } = t { Some(&payload[..]) } else { None })
            .collect()
    }
}

/// A client at its address.
pub(crate) struct Peer {
    pub(crate) client: Client,
    pub(crate) at: SocketAddr,
    pub(crate) received: Vec<Vec<u8>>,
}

impl Peer {
    pub(crate) fn new(at: SocketAddr, settings: &ClientSettings) -> Peer {
        Peer { client: Client::new(settings).unwrap(), at, received: vec![] }
    }

    /// `dev` with the right key and connection ids.
    pub(crate) fn simple(at: SocketAddr) -> Peer {
        Peer::new(at, &ClientSettings::psk(b"dev", b"secret"))
    }

    /// Go through the handshake, on a network that loses what `is_lost` says. False if one side gave up.
    pub(crate) fn open_over(&mut self, server: &mut Server, is_lost: &mut dyn FnMut() -> bool) -> bool {
        let mut to_server = vec![];
        if self.client.timeout(server.now, &mut to_server).is_err() {
            return false;
        }
        for _ in 0..1000 {
            for d in std::mem::take(&mut to_server) {
                if !is_lost() {
                    server.receive(self.at, &d);
                }
            }
            let answers = server.sent_to(self.at);
            let is_silent = answers.is_empty();
            for d in answers {
                if !is_lost()
                    && self.client.receive(server.now, &d, &mut to_server, &mut self.received).is_err()
                {
                    return false;
                }
            }
            if self.client.is_open() && to_server.is_empty() {
                return true;
            }
            if to_server.is_empty() && is_silent {
                let mine = self.client.next_timeout();
                let Some(at) = [mine, server.endpoint.next_timeout()].into_iter().flatten().min() else {
                    return false;
                };
                server.now = server.now.after(at.since(server.now.instant));
                server.timeout();
                if mine.is_some_and(|m| m <= server.now.instant)
                    && self.client.timeout(server.now, &mut to_server).is_err()
                {
                    return false;
                }
            }
        }
        false
    }

    pub(crate) fn open(&mut self, server: &mut Server) -> Option<Id> {
        if self.open_over(server, &mut || false) { server.opened() } else { None }
    }

    /// Send a payload; what the server makes of it is in `server.told`.
    pub(crate) fn say(&mut self, server: &mut Server, payload: &[u8]) {
        let d = self.client.seal(server.now, payload).unwrap();
        server.receive(self.at, &d);
    }

    /// Take what the server sealed.
    pub(crate) fn hear(&mut self, server: &Server, datagram: &[u8]) -> bool {
        let before = self.received.len();
        let ok = self.client.receive(server.now, datagram, &mut vec![], &mut self.received).is_ok();
        ok && self.received.len() > before
    }
}

/// The same numbers at every run (xorshift).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}
