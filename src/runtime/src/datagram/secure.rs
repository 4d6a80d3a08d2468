//! DTLS below a datagram machine: which association a datagram belongs to, who its peer has proven to be, and what of it is
//! kept so that no device notices a restart.
//!
//! ```text
//! datagram -> Endpoint -> Keep, KeepNumbers -> store        (before what the record causes)
//!                      -> Opened, Data -> the machine's peer
//! machine  -> Endpoint::seal -> datagram -> where the peer is
//! ```

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dtls::{
    Certificates, Closed, Endpoint, Event, Id, Identity, Key as Psk, Keys, NotRestored, NotSent, Reason,
    Reserved, Settings,
};
use gateway::{Certificate, Close, Drop, Facts, Instant, Now, Peer};
use hashbrown::HashMap;
use store::{Key, Store, Table as Kept, scan_around, split_number};

use crate::config::Dtls;
use crate::house::{House, Port};
use crate::listen::canonical;

/// Within so much time it is written what was received, although nothing came of it that is kept: a record that was heard
/// before a crash can be repeated after it no longer than that.
const FLUSH: Duration = Duration::from_secs(5);

/// Headers of IPv6 and UDP.
const HEADERS: usize = 48;

/// Who a peer has proven to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Proof {
    pub(super) psk: Option<Arc<str>>,
    pub(super) certificate: Option<Arc<Certificate>>,
    pub(super) client_id: Option<Arc<str>>,
}

impl Proof {
    pub(super) fn of(identity: &Identity) -> Option<Proof> {
        match identity {
            // RFC 4279, 5.1: identities are UTF-8.
            Identity::Psk(name) => {
                Some(Proof { psk: Some(std::str::from_utf8(name).ok()?.into()), ..Proof::default() })
            }
            Identity::Certificate { common_name, fingerprint } => {
                let (common_name, fingerprint) = (common_name.clone(), *fingerprint);
                let certificate = Some(Arc::new(Certificate { common_name, fingerprint }));
                Some(Proof { certificate, ..Proof::default() })
            }
            Identity::Nobody => Some(Proof::default()),
        }
    }
}

/// What came of a datagram; bytes are in [`Secure::bytes`].
pub(super) enum Happened {
    Send { to: SocketAddr, datagram: Range<usize> },
    Opened { id: Id, from: SocketAddr },
    Data { id: Id, from: SocketAddr, is_newest: bool, payload: Range<usize> },
    Closed { id: Id, why: Close },
    Drop(Drop),
}

/// See the module.
pub(super) struct Secure {
    endpoint: Endpoint,
    /// Associations that have a conversation.
    by_id: HashMap<Id, Peer>,
    /// When what was received is written although nothing came of it that is kept.
    flush_at: Instant,
    pub(super) happened: Vec<Happened>,
    pub(super) bytes: Vec<u8>,
    keeper: Keeper,
    /// Associations that were restored and whose clients may be waited for.
    sleepers: VecDeque<Id>,
}

impl Secure {
    /// The layer of `port` with what was kept of its associations; the text says what is wrong with its configuration.
    pub(super) fn open(house: &Arc<House>, port: &Port, dtls: &Dtls) -> Result<Secure, String> {
        let settings = settings(dtls, house.store.is_some())?;
        let seal = seal_key(&house.data)
            .map_err(|e| format!("cannot make or read dtls.key in the data folder: {e}"))?;
        let keys: Arc<dyn Keys> = if dtls.psk { Arc::new(Known(house.clone())) } else { Arc::new(Nobody) };
        let endpoint = Endpoint::new(settings, keys, &seal).map_err(|e| e.to_string())?;
        let keeper = Keeper {
            store: house.store.clone(),
            listener: port.facts.name.clone(),
            unwritten: VecDeque::new(),
            reserved: HashMap::new(),
            is_quiet: false,
        };
        let mut secure = Secure {
            endpoint,
            by_id: HashMap::new(),
            flush_at: Instant::NEVER,
            happened: Vec::new(),
            bytes: Vec::new(),
            keeper,
            sleepers: VecDeque::new(),
        };
        secure.restore(house, port);
        Ok(secure)
    }

    fn restore(&mut self, house: &House, port: &Port) {
        let began = house.clock.now();
        let (mut restored, mut damaged, mut too_many, mut gone) = (Vec::new(), 0, 0, 0);
        let mut all = self.keeper.all();
        all.sort_by_key(|kept| std::cmp::Reverse(kept.heard_ms));
        for kept in all {
            match self.endpoint.restore(began, kept.id, &kept.record, kept.numbers.as_deref()) {
                // Its key was removed while nobody was here.
                Ok(of) if !is_known(house, port, &of.identity) => {
                    gone += 1;
                    self.forget(began, kept.id);
                }
                Ok(_) => restored.push((kept.heard_ms, kept.id)),
                // Those heard last go on. The others stay where they are, for a start with a larger bound.
                Err(NotRestored::TooMany) => too_many += 1,
                Err(_) => {
                    damaged += 1;
                    self.keeper.forget(kept.id);
                }
            }
        }
        let ms = house.clock.now().instant.since(began.instant).as_millis() as u64;
        let listener = &port.facts.name;
        if !restored.is_empty() {
            tracing::info!(%listener, restored = restored.len(), ms, "DTLS associations go on");
        }
        if damaged > 0 {
            tracing::warn!(%listener, damaged, "DTLS associations cannot go on: their devices have to shake hands again");
        }
        if gone > 0 {
            tracing::info!(%listener, gone, "DTLS associations of keys that were removed have ended");
        }
        if too_many > 0 {
            tracing::warn!(%listener, too_many, "DTLS associations over max_associations or max_per_identity do not go on");
        }
        // Only of clients that somebody may have something for a conversation is begun before they are heard, and of several
        // associations of one client by the one that was heard last.
        let mut last: HashMap<Arc<str>, (u64, Id)> = HashMap::new();
        for (heard_ms, id) in restored {
            let client_id = self.who(began, house, port, id).and_then(|(proof, _)| proof.client_id);
            let Some(client_id) = client_id else { continue };
            let newest = last.entry(client_id).or_insert((heard_ms, id));
            *newest = (*newest).max((heard_ms, id));
        }
        let namespace = &port.facts.namespace;
        last.retain(|client_id, _| house.router.has_subscriptions(namespace, client_id));
        let mut last: Vec<_> = last.into_values().collect();
        last.sort_unstable_by(|a, b| b.cmp(a));
        // Half of the places are for those who come.
        last.truncate(port.setup.max_connections / 2);
        self.sleepers = last.into_iter().map(|(_, id)| id).collect();
    }

    /// Whether the last datagram showed another key or an identity that has none: its sender's address is a proven one.
    pub(super) fn has_refused(&self) -> bool {
        self.happened.iter().any(|h| matches!(h, Happened::Drop(Drop::DtlsKey | Drop::DtlsIdentity)))
    }

    /// Hands a datagram to the endpoint.
    pub(super) fn receive(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) {
        let Secure { endpoint, happened, bytes, keeper, .. } = self;
        endpoint.receive(now, from, datagram, &mut |event| note(now, event, happened, bytes, keeper));
        if keeper.is_quiet {
            self.flush_at = self.flush_at.min(now.instant + FLUSH);
        }
    }

    /// What time brings: retransmission, parking.
    pub(super) fn timeout(&mut self, now: Now) {
        if self.flush_at <= now.instant {
            self.keeper.flush();
            self.flush_at = Instant::NEVER;
        }
        let Secure { endpoint, happened, bytes, keeper, .. } = self;
        endpoint.timeout(now, &mut |event| note(now, event, happened, bytes, keeper));
    }

    /// When `timeout` is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let due = if self.keeper.is_quiet { self.flush_at } else { Instant::NEVER };
        Some(self.endpoint.next_timeout().map_or(due, |at| at.min(due))).filter(|at| *at != Instant::NEVER)
    }

    /// One message for the association as a datagram.
    pub(super) fn seal(
        &mut self,
        now: Now,
        id: Id,
        message: &[u8],
        datagram: &mut Vec<u8>,
    ) -> Result<(), NotSent> {
        self.endpoint.seal(now, id, message, datagram)
    }

    /// Says goodbye.
    pub(super) fn close(&mut self, now: Now, id: Id) {
        let Secure { endpoint, happened, bytes, keeper, .. } = self;
        endpoint.close(now, id, &mut |event| note(now, event, happened, bytes, keeper));
    }

    /// Ends it without a word.
    pub(super) fn forget(&mut self, now: Now, id: Id) {
        let Secure { endpoint, happened, bytes, keeper, .. } = self;
        endpoint.forget(id, &mut |event| note(now, event, happened, bytes, keeper));
    }

    /// Associations of pre-shared keys that are no more, also those that sleep: of identities that have none any more, and
    /// of those whose keys were exchanged.
    pub(super) fn revoked(&self, house: &House, port: &Port, exchanged: &HashSet<Box<str>>) -> Vec<Id> {
        let is_exchanged = |identity: &Identity| match identity {
            Identity::Psk(name) => std::str::from_utf8(name).is_ok_and(|name| exchanged.contains(name)),
            _ => false,
        };
        self.endpoint
            .identities()
            .filter(|(_, identity)| !is_known(house, port, identity) || is_exchanged(identity))
            .map(|(id, _)| id)
            .collect()
    }

    /// The association is at this address now.
    pub(super) fn moved(&mut self, id: Id, to: SocketAddr) {
        self.endpoint.moved(id, to);
    }

    /// Tells the endpoint which record numbers may be used by now; whether there are more.
    pub(super) fn written(&mut self) -> bool {
        let mut is_more = false;
        while let Some((id, reserved)) = self.keeper.next_written() {
            self.endpoint.kept(id, reserved);
            is_more = true;
        }
        is_more
    }

    /// Whether reservations wait for the store, and whether one waits no longer.
    pub(super) fn unwritten(&self) -> (bool, bool) {
        let durable = self.keeper.store.as_ref().map_or(0, |s| s.durable());
        let first = self.keeper.unwritten.front().map(|(batch, ..)| *batch);
        (first.is_some(), first.is_some_and(|batch| batch <= durable))
    }

    /// The conversation of an association.
    pub(super) fn peer(&self, id: Id) -> Option<Peer> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn attach(&mut self, id: Id, peer: Peer) {
        self.by_id.insert(id, peer);
    }

    pub(super) fn detach(&mut self, id: Id, peer: Peer) {
        if self.by_id.get(&id) == Some(&peer) {
            self.by_id.remove(&id);
        }
    }

    /// Who the peer of an association is, and where. None if its identity is no text.
    pub(super) fn who(&self, now: Now, house: &House, port: &Port, id: Id) -> Option<(Proof, SocketAddr)> {
        let shown = self.endpoint.show(now, id)?;
        let address = shown.address;
        let mut proof = Proof::of(&shown.identity)?;
        let facts = Facts {
            certificate: proof.certificate.clone(),
            psk: proof.psk.clone(),
            ..Facts::new(port.facts.clone(), port.transport(true), canonical(address))
        };
        proof.client_id = house.auth.client_id(&facts, port.rules());
        Some((proof, address))
    }

    /// Some of those that are to be looked after, and whether there are more.
    pub(super) fn wake(&mut self, most: usize) -> (Vec<Id>, bool) {
        let some = self.sleepers.len().min(most);
        let asleep = self.sleepers.drain(..some).filter(|id| !self.by_id.contains_key(id)).collect();
        (asleep, !self.sleepers.is_empty())
    }

    /// For operators.
    pub(super) fn describe(&self, now: Now, id: Id, into: &mut Vec<(&'static str, String)>) {
        let Some(shown) = self.endpoint.show(now, id) else { return };
        into.push(("dtls_suite", shown.suite.to_string()));
        into.push(("dtls_connection_id", shown.has_cid.to_string()));
        into.push(("dtls_association", id.to_string()));
    }

    /// Associations: active, parked, half open.
    pub(super) fn counts(&self) -> [usize; 3] {
        let c = self.endpoint.counts();
        [c.active, c.parked, c.half_open]
    }
}

fn note(now: Now, event: Event<'_>, happened: &mut Vec<Happened>, bytes: &mut Vec<u8>, keeper: &mut Keeper) {
    let mut range = |from: &[u8]| {
        let begin = bytes.len();
        bytes.extend_from_slice(from);
        begin..bytes.len()
    };
    happened.push(match event {
        Event::Send { to, datagram } => Happened::Send { to, datagram: range(datagram) },
        Event::Opened { id, from, .. } => Happened::Opened { id, from },
        Event::Data { id, from, is_newest, payload } => {
            Happened::Data { id, from, is_newest, payload: range(payload) }
        }
        Event::Closed { id, why } => Happened::Closed { id, why: close(why) },
        Event::Keep { id, record } => return keeper.keep(now, id, record),
        Event::KeepNumbers { id, record, reserved } => return keeper.keep_numbers(now, id, record, reserved),
        Event::Forget { id } => return keeper.forget(id),
        Event::Drop(why) => Happened::Drop(drop_of(why)),
    });
}

fn close(why: Closed) -> Close {
    match why {
        Closed::ByPeer => Close::PeerClosed,
        Closed::ByUs => Close::Kicked,
        Closed::Replaced | Closed::TooManyOfIdentity | Closed::TooMany => Close::Replaced,
        Closed::Lost | Closed::Failed => Close::Tls,
    }
}

fn drop_of(why: Reason) -> Drop {
    match why {
        Reason::Malformed | Reason::BadHello => Drop::DtlsMalformed,
        Reason::UnknownId | Reason::UnknownAddress => Drop::DtlsUnknown,
        Reason::Replay => Drop::DtlsReplayed,
        Reason::BadMac | Reason::TooManyBadMacs => Drop::DtlsForged,
        Reason::HalfOpenFull => Drop::DtlsFull,
        Reason::UnknownIdentity => Drop::DtlsIdentity,
        Reason::WrongKey => Drop::DtlsKey,
        Reason::BadCookie | Reason::HandshakeFailed | Reason::HandshakeTimeout => Drop::DtlsHandshake,
    }
}

/// Whether the listener still knows a pre-shared key of this identity. Of others nothing is looked up.
fn is_known(house: &House, port: &Port, identity: &Identity) -> bool {
    let Identity::Psk(name) = identity else { return true };
    let has_keys = port.setup.dtls.as_ref().is_some_and(|dtls| dtls.psk);
    has_keys && std::str::from_utf8(name).is_ok_and(|name| house.auth.has_psk(name))
}

/// Whether the layer can be opened as it is configured; what is wrong if not.
pub(super) fn check(dtls: &Dtls) -> Result<(), String> {
    Endpoint::new(settings(dtls, false)?, Arc::new(Nobody), &[0; 32]).map(|_| ()).map_err(|e| e.to_string())
}

fn settings(dtls: &Dtls, durable: bool) -> Result<Settings, String> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|e| format!("{}: cannot be read: {e}", path.display()));
    let certificates = match &dtls.certificate {
        Some((chain, key)) => Some(Certificates {
            chain_pem: read(chain)?,
            key_pem: read(key)?,
            client_ca_pem: dtls.client_ca.as_deref().map(read).transpose()?,
            require: dtls.require_client_certificate,
        }),
        None => None,
    };
    Ok(Settings {
        mtu: u16::try_from(dtls.mtu - HEADERS).unwrap_or(u16::MAX),
        max_half_open: dtls.max_half_open,
        max_associations: dtls.max_associations,
        max_per_identity: dtls.max_per_identity,
        park_after: dtls.park_after,
        durable,
        certificates,
        ..Settings::default()
    })
}

/// The key that sealed records lie under, made at the first start; nobody but the owner may read it.
fn seal_key(data: &Path) -> std::io::Result<[u8; 32]> {
    use std::io::{Error, ErrorKind, Write};
    use std::os::unix::fs::OpenOptionsExt;
    let path = data.join("dtls.key");
    match std::fs::read(&path) {
        Ok(bytes) => bytes.try_into().map_err(|_| Error::new(ErrorKind::InvalidData, "it has not 32 bytes")),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|e| Error::other(e.to_string()))?;
            let hidden = path.with_extension("new");
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&hidden)?;
            file.write_all(&key)?;
            file.sync_all()?;
            std::fs::rename(&hidden, &path)?;
            std::fs::File::open(data)?.sync_all()?;
            Ok(key)
        }
        Err(e) => Err(e),
    }
}

/// Pre-shared keys of the house.
struct Known(Arc<House>);

impl Keys for Known {
    fn key(&self, identity: &[u8]) -> dtls::Found {
        let Some((newest, older)) = self.0.auth.psk_keys(self.0.clock.now(), identity) else {
            return dtls::Found::default();
        };
        dtls::Found { newest: Psk::new(&newest), older: older.and_then(|key| Psk::new(&key)) }
    }
}

/// No pre-shared keys here.
struct Nobody;

impl Keys for Nobody {
    fn key(&self, _: &[u8]) -> dtls::Found {
        dtls::Found::default()
    }
}

/// Writes what the endpoint wants kept.
struct Keeper {
    store: Option<Arc<Store>>,
    listener: Box<str>,
    /// Reservations that the store has not written yet.
    unwritten: VecDeque<(u64, Id, Reserved)>,
    /// What was asked for last.
    reserved: HashMap<Id, Reserved>,
    /// Something was put that nobody hurries to write.
    is_quiet: bool,
}

impl Keeper {
    fn key(&self, table: Kept, id: Id) -> Key {
        Key::new(table).number(u64::from_be_bytes(id.0)).text(self.listener.as_bytes())
    }

    fn keep(&mut self, now: Now, id: Id, record: &[u8]) {
        if let Some(store) = &self.store {
            store.put(self.key(Kept::Associations, id), dated(now, record));
            store.delete(self.key(Kept::Records, id));
        }
    }

    fn keep_numbers(&mut self, now: Now, id: Id, record: &[u8], reserved: Reserved) {
        let Some(store) = &self.store else { return };
        let key = self.key(Kept::Records, id);
        // Most say what was received. That has to be on the disk with what comes of it, and not before; a new reservation is
        // waited for.
        if self.reserved.insert(id, reserved) == Some(reserved) {
            store.put_quietly(key, dated(now, record));
            self.is_quiet = true;
        } else {
            let batch = store.put(key, dated(now, record));
            self.unwritten.push_back((batch, id, reserved));
        }
    }

    /// Has what was put quietly written.
    fn flush(&mut self) {
        if let Some(store) = self.store.as_ref().filter(|_| std::mem::take(&mut self.is_quiet)) {
            store.nudge();
        }
    }

    fn forget(&mut self, id: Id) {
        self.reserved.remove(&id);
        if let Some(store) = &self.store {
            store.delete(self.key(Kept::Associations, id));
            store.delete(self.key(Kept::Records, id));
        }
    }

    fn next_written(&mut self) -> Option<(Id, Reserved)> {
        let durable = self.store.as_ref()?.durable();
        let (_, id, reserved) = self.unwritten.pop_front_if(|(batch, ..)| *batch <= durable)?;
        Some((id, reserved))
    }

    /// Everything that was kept of this listener's associations.
    fn all(&self) -> Vec<Survivor> {
        let Some(view) = self.store.as_ref().and_then(|s| s.view().ok()) else { return Vec::new() };
        let read = |table: Kept, each: &mut dyn FnMut(Id, u64, &[u8])| {
            let (from, to) = (Key::new(table), Key::end(table));
            let visit = &mut |key: &[u8], value: &[u8]| {
                if let (Some((id, listener)), Some((ms, record))) =
                    (key.split_first_chunk::<8>(), split_number(value))
                    && *listener == *self.listener.as_bytes()
                {
                    each(Id(*id), ms, record);
                }
            };
            if let Err(error) = scan_around(&*view, &from, &to, visit) {
                tracing::error!(%error, "DTLS associations cannot be read");
            }
        };
        let (mut found, mut numbers) = (Vec::new(), HashMap::new());
        read(Kept::Records, &mut |id, ms, value| {
            numbers.insert(id, (ms, value.to_vec()));
        });
        read(Kept::Associations, &mut |id, opened_ms, value| {
            let (later_ms, numbers) = numbers.remove(&id).unzip();
            let heard_ms = later_ms.unwrap_or(opened_ms);
            found.push(Survivor { id, heard_ms, record: value.to_vec(), numbers });
        });
        found
    }
}

/// One association as it was kept.
struct Survivor {
    id: Id,
    heard_ms: u64,
    record: Vec<u8>,
    numbers: Option<Vec<u8>>,
}

/// A record behind the time at which it was written.
fn dated(now: Now, record: &[u8]) -> Vec<u8> {
    [&now.wall_ms.to_be_bytes(), record].concat()
}
