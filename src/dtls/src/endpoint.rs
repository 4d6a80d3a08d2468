//! All associations of one UDP socket.
//!
//! ```text
//! datagram ─ tls12_cid ──────── id ─────┬─ half-open ─ handshake.rs ── Opened, Keep
//!          ─ ClientHello ─ cookie ──────┘
//!          ─ anything else ─ address ───── association ─ this file ─── KeepNumbers, Data, Closed
//!                                            │  ▲
//!                                    idle    ▼  │ next record, or seal
//!                                           parked ─ park.rs
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::{Instant, Now};
use zeroize::Zeroize;

use crate::engine::{self, Credentials, Engine, Failure, Host, Numbers, RECORD_MAX, Wrong};
use crate::event::{Closed, Event, Id, Identity, Reason, Reserved};
use crate::handshake::HalfOpen;
use crate::hello::{self, Cookies, Hello};
use crate::kept::Sealer;
use crate::keys::Keys;
use crate::record::{self, Header};
use crate::retries::Retries;
use crate::settings::{Settings, SettingsError, Suite};
use crate::slab::Slab;
use crate::table::{Active, Association, Place, State, Table};

/// Record numbers have 48 bits.
pub(crate) const NUMBERS_END: u64 = 1 << 48;

/// Where events go.
pub(crate) type Events<'a> = dyn FnMut(Event<'_>) + 'a;

/// The DTLS side of one UDP socket.
pub struct Endpoint {
    pub(crate) settings: Settings,
    pub(crate) engine: Engine,
    pub(crate) keys: Arc<dyn Keys>,
    pub(crate) sealer: Sealer,
    pub(crate) cookies: Cookies,
    pub(crate) half_open: HalfOpen,
    pub(crate) retries: Retries,
    pub(crate) table: Table,
    pub(crate) slab: Slab,
    /// Who may be idle by then. One entry for each active association.
    pub(crate) idle: VecDeque<(Instant, Id)>,
    /// Whose numbers are to be written down though no record came.
    pub(crate) pending: Vec<Id>,
    pub(crate) parked_since_trim: usize,
    plain: Box<[u8; RECORD_MAX]>,
}

/// Why `seal` did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// No such association.
    Unknown,
    /// No reserved record number is left: again after `kept`.
    NotReserved,
    /// More than one record of the MTU takes; `max_payload` says how much that is.
    TooLong,
    /// The engine refused; the association cannot be used again.
    Failed,
}

/// What an operator may want to see of an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Who the peer is.
    pub identity: Identity,
    /// Where the peer is.
    pub address: SocketAddr,
    /// The cipher suite.
    pub suite: Suite,
    /// Whether the peer uses connection ids.
    pub has_cid: bool,
    /// Whether it is parked.
    pub is_parked: bool,
    /// Since a record last came or went.
    pub idle: Duration,
}

/// How many there are of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Associations in the engine.
    pub active: usize,
    /// Associations that are parked.
    pub parked: usize,
    /// Handshakes under way.
    pub half_open: usize,
    /// Bytes of the parked associations' slots.
    pub parked_bytes: usize,
}

/// Sends what the engine says on an association that is open.
pub(crate) struct Sender<'a, 'b> {
    pub(crate) to: SocketAddr,
    /// Outgoing numbers from here on are not reserved: a record with one must not be seen.
    pub(crate) limit: u64,
    pub(crate) events: &'a mut Events<'b>,
}

impl Host for Sender<'_, '_> {
    fn send(&mut self, datagram: &[u8]) {
        // The peer's connection id may be of any length, so what comes behind the number is not looked at. What cannot be read
        // does not leave.
        let is_reserved = |[e0, e1, number @ ..]: [u8; 8]| {
            let number = number.iter().fold(0, |n, b| n << 8 | u64::from(*b));
            u16::from_be_bytes([e0, e1]) == 0 || number < self.limit
        };
        if datagram.get(3..11).and_then(|b| b.try_into().ok()).is_some_and(is_reserved) {
            (self.events)(Event::Send { to: self.to, datagram });
        }
    }
}

struct Collect<'a>(&'a mut Vec<u8>);

impl Host for Collect<'_> {
    fn send(&mut self, datagram: &[u8]) {
        self.0.extend_from_slice(datagram);
    }
}

/// What one datagram did to an association.
enum Outcome {
    /// Nothing in it was authentic.
    Nothing,
    Read,
    Over(Closed),
}

impl Endpoint {
    /// An endpoint without associations. `seal` is the key of what is kept: the same at every start, and secret.
    pub fn new(settings: Settings, keys: Arc<dyn Keys>, seal: &[u8; 32]) -> Result<Endpoint, SettingsError> {
        let suites = settings.check()?;
        let ms = |d: Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
        let timers = (ms(settings.retransmit_first), ms(settings.retransmit_last));
        let mut engine = Engine::new(true, &suites, timers, 8, settings.mtu).map_err(SettingsError::from)?;
        if let Some(c) = &settings.certificates {
            let verify = match (&c.client_ca_pem, c.require) {
                (None, _) => 0,
                (Some(_), false) => 1,
                (Some(_), true) => 2,
            };
            let ca = c.client_ca_pem.as_deref().unwrap_or_default();
            engine.credentials(&Credentials { chain: &c.chain_pem, key: &c.key_pem, ca, verify })?;
        }
        Ok(Endpoint {
            cookies: Cookies::new(settings.cookie_rotation)?,
            sealer: Sealer::new(seal).ok_or(SettingsError::Random)?,
            engine,
            keys,
            half_open: HalfOpen::default(),
            retries: Retries::default(),
            table: Table::default(),
            slab: Slab::default(),
            idle: VecDeque::new(),
            pending: Vec::new(),
            parked_since_trim: 0,
            plain: Box::new([0; RECORD_MAX]),
            settings,
        })
    }

    /// One datagram came.
    pub fn receive(&mut self, now: Now, from: SocketAddr, datagram: &[u8], events: &mut Events<'_>) {
        let Some(header) = Header::decode(datagram) else { return events(Event::Drop(Reason::Malformed)) };
        if hello::is_client_hello(&header, datagram) {
            return self.client_hello(now, from, &header, datagram, events);
        }
        if let Some(id) = header.id {
            if let Some(place) = self.table.find(id) {
                return self.record(now, place, from, &header, datagram, events);
            }
            return match self.half_open.address_of(id) {
                Some(a) if a == from => self.handshake(now, from, datagram, events),
                _ => events(Event::Drop(Reason::UnknownId)),
            };
        }
        // While a new handshake runs at the address of an association, that one has its application data and alerts.
        let is_handshake = header.epoch == 0 || header.kind == record::HANDSHAKE;
        if is_handshake && self.half_open.contains(from) {
            return self.handshake(now, from, datagram, events);
        }
        match self.table.at_address(from) {
            Some(place) => self.record(now, place, from, &header, datagram, events),
            None => events(Event::Drop(Reason::UnknownAddress)),
        }
    }

    fn client_hello(
        &mut self,
        now: Now,
        from: SocketAddr,
        header: &Header,
        datagram: &[u8],
        events: &mut Events<'_>,
    ) {
        let Some(hello) = Hello::decode(header, datagram) else {
            return events(Event::Drop(Reason::BadHello));
        };
        if !self.cookies.is_good(now.instant, from, &hello) {
            if !hello.cookie.is_empty() {
                events(Event::Drop(Reason::BadCookie));
            }
            let request = self.cookies.verify_request(now.instant, from, &hello);
            return events(Event::Send { to: from, datagram: &request });
        }
        self.verified_hello(now, from, &hello, datagram, events);
    }

    /// A record of an association, perhaps.
    fn record(
        &mut self,
        now: Now,
        place: Place,
        from: SocketAddr,
        header: &Header,
        datagram: &[u8],
        events: &mut Events<'_>,
    ) {
        let Some(numbers) = self.numbers(place) else { return };
        let is_alone = datagram.len() == header.whole_len();
        if header.epoch == 1 && is_alone && is_replay(numbers, header.number) {
            return events(Event::Drop(Reason::Replay));
        }
        let Some(a) = self.table.get_mut(place) else { return };
        let was_parked = matches!(a.state, State::Parked(_));
        if was_parked && header.epoch != 1 {
            return events(Event::Drop(Reason::BadMac));
        }
        if was_parked && !a.may_load(now.instant, from) {
            return events(Event::Drop(Reason::TooManyBadMacs));
        }
        // A parked association's slot is given back only once a record proves authentic.
        let mut active = match self.borrow(place) {
            Some(active) => active,
            None => return self.lose(place, Closed::Lost, events),
        };
        let outcome = self.read(now, place, &mut active, from, datagram, events);
        match outcome {
            Outcome::Nothing => {
                events(Event::Drop(Reason::BadMac));
                if let Some(a) = self.table.get_mut(place).filter(|_| was_parked) {
                    a.loaded_in_vain(from);
                }
                if !was_parked {
                    self.table.put_state(place, State::Active(active));
                }
            }
            Outcome::Read => self.wake(now.instant, place, active, was_parked),
            Outcome::Over(why) => {
                if why == Closed::ByPeer {
                    let (to, limit) = self.table.get(place).map_or((from, 0), |a| (a.address, a.limit));
                    self.engine.close_notify(&mut active.session, now, &mut Sender { to, limit, events });
                }
                self.lose(place, why, events);
            }
        }
    }

    /// Read every record of a datagram.
    pub(crate) fn read_all(
        &mut self,
        now: Now,
        place: Place,
        from: SocketAddr,
        datagram: &[u8],
        events: &mut Events<'_>,
    ) {
        let Some(State::Active(mut active)) = self.table.take_state(place) else { return };
        match self.read(now, place, &mut active, from, datagram, events) {
            Outcome::Over(why) => self.lose(place, why, events),
            Outcome::Nothing | Outcome::Read => self.table.put_state(place, State::Active(active)),
        }
    }

    fn read(
        &mut self,
        now: Now,
        place: Place,
        active: &mut Active,
        from: SocketAddr,
        datagram: &[u8],
        events: &mut Events<'_>,
    ) -> Outcome {
        let Some(a) = self.table.get(place) else { return Outcome::Nothing };
        let (id, to, limit) = (a.id, a.address, a.limit);
        let first = active.session.numbers();
        let mut input = datagram;
        loop {
            let before = active.session.numbers();
            let mut host = Sender { to, limit, events };
            let read = self.engine.read(&mut active.session, now, input, &mut host, &mut self.plain[..]);
            input = &[];
            let after = active.session.numbers();
            match read {
                Ok(Some(n)) if n > 0 => {
                    self.table.unbind_fresh(place);
                    self.write_down(place, after, events);
                    let is_newest = after.window_top > before.window_top;
                    let payload = self.plain.get(..n).unwrap_or_default();
                    events(Event::Data { id, from, is_newest, payload });
                    self.plain.get_mut(..n).unwrap_or_default().zeroize();
                }
                Ok(_) if is_same_window(first, after) => return Outcome::Nothing,
                Ok(_) => return Outcome::Read,
                Err(Failure::CloseNotify | Failure::Alert) => return Outcome::Over(Closed::ByPeer),
                // What is not authentic ends nothing, whatever the engine makes of it.
                Err(_) if is_same_window(first, after) => return Outcome::Nothing,
                Err(_) => return Outcome::Over(Closed::Failed),
            }
        }
    }

    /// Tell the store where the numbers are, before it hears what the record that moved them caused.
    fn write_down(&mut self, place: Place, numbers: Numbers, events: &mut Events<'_>) {
        if !self.settings.durable {
            return;
        }
        let block = self.settings.number_block;
        let Some(a) = self.table.get_mut(place) else { return };
        a.reserve(numbers.next_out, block);
        let reserved = Numbers { next_out: a.asked, ..numbers };
        let record = self.sealer.numbers(a.id, reserved, a.address);
        events(Event::KeepNumbers { id: a.id, record: &record, reserved: Reserved(a.asked) });
    }

    /// The association goes: out of the table, and out of the store.
    pub(crate) fn lose(&mut self, place: Place, why: Closed, events: &mut Events<'_>) {
        let Some(a) = self.table.remove(place) else { return };
        if let State::Parked(handle) = a.state {
            self.slab.remove(handle);
        }
        events(Event::Closed { id: a.id, why });
        if self.settings.durable {
            events(Event::Forget { id: a.id });
        }
    }

    /// `payload` as one datagram at the end of `out`. The caller picks the address: `address`, or where a request
    /// came from.
    pub fn seal(&mut self, now: Now, id: Id, payload: &[u8], out: &mut Vec<u8>) -> Result<(), NotSent> {
        let place = self.table.find(id).ok_or(NotSent::Unknown)?;
        let next = self.numbers(place).ok_or(NotSent::Failed)?.next_out;
        let block = self.settings.number_block;
        let a = self.table.get_mut(place).ok_or(NotSent::Unknown)?;
        if self.settings.durable && a.reserve(next, block) {
            self.mark(place);
        }
        let a = self.table.get(place).ok_or(NotSent::Unknown)?;
        if next >= a.limit {
            return Err(NotSent::NotReserved);
        }
        let was_parked = matches!(a.state, State::Parked(_));
        let mut active = self.borrow(place).ok_or(NotSent::Failed)?;
        let sent = if payload.len() > active.session.max_payload() {
            Err(NotSent::TooLong)
        } else {
            let start = out.len();
            let sent = self.engine.write(&mut active.session, now, payload, &mut Collect(out));
            sent.map_err(|_| {
                out.truncate(start);
                NotSent::Failed
            })
        };
        self.wake(now.instant, place, active, was_parked);
        sent
    }

    /// The most that `seal` takes.
    pub fn max_payload(&self) -> usize {
        // Header with the longest connection id, nonce, tag, and the inner type of RFC 9146.
        usize::from(self.settings.mtu).saturating_sub(record::HEADER + 32 + 8 + 16 + 1)
    }

    /// The caller has proof that the peer is reachable at `to`. Without connection ids an association has but its
    /// first address, and this does nothing.
    pub fn moved(&mut self, id: Id, to: SocketAddr) {
        let Some(place) = self.table.find(id) else { return };
        if self.table.get(place).is_none_or(|a| !a.has_cid || a.address == to) {
            return;
        }
        self.table.unbind_address(place);
        if let Some(a) = self.table.get_mut(place) {
            a.address = to;
        }
        self.mark(place);
    }

    /// Write the numbers down at the next `timeout`.
    fn mark(&mut self, place: Place) {
        if let Some(a) = self.table.get_mut(place)
            && !std::mem::replace(&mut a.is_pending, true)
        {
            self.pending.push(a.id);
        }
    }

    /// The store has written a `KeepNumbers`.
    pub fn kept(&mut self, id: Id, reserved: Reserved) {
        if let Some(a) = self.table.find(id).and_then(|p| self.table.get_mut(p)) {
            a.limit = a.limit.max(reserved.0.min(a.asked));
        }
    }

    /// Where the peer is.
    pub fn address(&self, id: Id) -> Option<SocketAddr> {
        Some(self.table.get(self.table.find(id)?)?.address)
    }

    /// Say close_notify and forget the association.
    pub fn close(&mut self, now: Now, id: Id, events: &mut Events<'_>) {
        let Some(place) = self.table.find(id) else { return };
        let Some(a) = self.table.get(place) else { return };
        let (to, limit) = (a.address, a.limit);
        if let Some(mut active) = self.borrow(place) {
            self.engine.close_notify(&mut active.session, now, &mut Sender { to, limit, events });
        }
        self.lose(place, Closed::ByUs, events);
    }

    /// Forget the association without a word to its peer: a parked one is not loaded for it.
    pub fn forget(&mut self, id: Id, events: &mut Events<'_>) {
        if let Some(place) = self.table.find(id) {
            self.lose(place, Closed::ByUs, events);
        }
    }

    /// All associations, and who has proven to be at their other end.
    pub fn identities(&self) -> impl Iterator<Item = (Id, Identity)> {
        self.table.iter().filter_map(|a| Some((a.id, self.identity_of(a)?)))
    }

    /// When `timeout` is to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        if !self.pending.is_empty() {
            return Some(Instant::default());
        }
        let idle = self.idle.front().map(|(at, _)| *at);
        [self.half_open.next_timeout(), idle].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Now, events: &mut Events<'_>) {
        for id in std::mem::take(&mut self.pending) {
            let Some(place) = self.table.find(id) else { continue };
            let Some(numbers) = self.numbers(place) else { continue };
            if let Some(a) = self.table.get_mut(place) {
                a.is_pending = false;
            }
            self.write_down(place, numbers, events);
        }
        self.handshake_timeouts(now, events);
        self.park_idle(now.instant);
    }

    /// How many there are of what.
    pub fn counts(&self) -> Counts {
        Counts {
            active: self.table.active(),
            parked: self.table.len() - self.table.active(),
            half_open: self.half_open.len(),
            parked_bytes: self.slab.bytes(),
        }
    }

    /// What an operator may want to see.
    pub fn show(&self, now: Now, id: Id) -> Option<Shown> {
        let a = self.table.get(self.table.find(id)?)?;
        Some(Shown {
            identity: self.identity_of(a)?,
            address: a.address,
            suite: Suite(a.suite),
            has_cid: a.has_cid,
            is_parked: matches!(a.state, State::Parked(_)),
            idle: now.instant.since(a.last),
        })
    }
}

impl Association {
    /// Ask for more numbers when half of the last block is used. True if it did.
    fn reserve(&mut self, next: u64, block: u64) -> bool {
        if next + block / 2 < self.asked || self.asked >= NUMBERS_END {
            return false;
        }
        self.asked = (self.asked.max(next) + block).min(NUMBERS_END);
        true
    }
}

fn is_same_window(a: Numbers, b: Numbers) -> bool {
    (a.window_top, a.window) == (b.window_top, b.window)
}

/// RFC 6347, 4.1.2.6, as the engine does it.
fn is_replay(n: Numbers, number: u64) -> bool {
    match n.window_top.checked_sub(number) {
        None => false,
        Some(back) => back >= 64 || n.window >> back & 1 == 1,
    }
}

impl From<Wrong> for SettingsError {
    fn from(w: Wrong) -> Self {
        match w {
            Wrong::Suites => SettingsError::Suites,
            Wrong::Chain => SettingsError::Chain,
            Wrong::Key => SettingsError::Key,
            Wrong::Authorities => SettingsError::ClientAuthorities,
            Wrong::Pair => SettingsError::KeyOfAnother,
        }
    }
}

/// Version of the linked Mbed TLS.
pub fn engine_version() -> String {
    let [major, minor, patch] = engine::version();
    format!("Mbed TLS {major}.{minor}.{patch}")
}
