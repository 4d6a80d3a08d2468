//! What a durable session changes, as records of the store; and what of it is read back.
//!
//! A session whose queue is long, or that has not been used since the start, has its messages on the disk alone ([`Cold`]);
//! they come back in portions when they are wanted.

use std::sync::Arc;

use gateway::{DeliveryId, Drop, Message, Now};
use store::{Body, Error, Key, Shared, Store, Stored, Table, View, scan_around};

use crate::count::Counts;
use crate::queue::Entry;
use crate::record::{self, Damaged, Flown};

/// Where the changes of one durable session go.
#[derive(Clone, Copy)]
pub(crate) struct Ledger<'a> {
    pub(crate) store: &'a Store,
    pub(crate) session: u64,
    pub(crate) counts: &'a Counts,
    /// Whether QoS 2 has to wait for the disk.
    pub(crate) is_strict: bool,
}

/// Messages of a session's queue that are on the disk alone. They come before all that are in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cold {
    /// The first may have this number.
    pub(crate) from: u64,
    /// All have smaller numbers.
    pub(crate) to: u64,
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

/// A delivery in flight, read back.
pub(crate) struct Thawed {
    pub(crate) id: DeliveryId,
    pub(crate) sequence: u64,
    pub(crate) entry: Option<Entry>,
}

/// Messages read at a time.
const PORTION: usize = 64;

impl Ledger<'_> {
    fn queue(&self, sequence: u64) -> Key {
        Key::new(Table::Queue).number(self.session).number(sequence)
    }

    fn flight(&self, id: DeliveryId) -> Key {
        Key::new(Table::Flights).number(self.session).id(id.0)
    }

    fn incoming(&self, id: u16) -> Key {
        Key::new(Table::Incoming).number(self.session).id(id)
    }

    /// The message has left the session's queue.
    pub(crate) fn remove(&self, entry: &Entry) {
        if let Some(stored) = &entry.stored {
            self.store.remove(self.session, stored);
        }
    }

    /// A message is on its way to the client; the number of the batch that says so.
    pub(crate) fn fly(&self, id: DeliveryId, entry: &Entry) -> u64 {
        let sequence = entry.stored.as_ref().map_or(0, |s| s.sequence);
        self.store.put_new(self.flight(id), Flown { is_received: false, sequence }.encode())
    }

    /// The client has it; only its release is kept.
    pub(crate) fn receive(&self, id: DeliveryId, entry: &Entry) -> u64 {
        let sequence = entry.stored.as_ref().map_or(0, |s| s.sequence);
        self.remove(entry);
        self.store.put(self.flight(id), Flown { is_received: true, sequence }.encode())
    }

    /// The delivery is over.
    pub(crate) fn land(&self, id: DeliveryId, entry: Option<&Entry>) {
        if let Some(entry) = entry {
            self.remove(entry);
        }
        self.store.delete(self.flight(id));
    }

    /// A QoS 2 packet id was received, or released.
    pub(crate) fn incoming_begins(&self, id: u16) -> u64 {
        self.store.put_new(self.incoming(id), Vec::new())
    }

    pub(crate) fn incoming_ends(&self, id: u16) -> u64 {
        self.store.delete(self.incoming(id))
    }

    /// QoS 2 packet ids received and not released.
    pub(crate) fn read_incoming(&self, view: &dyn View) -> Result<Vec<u16>, Error> {
        let mut ids = Vec::new();
        let to = Key::new(Table::Incoming).number(self.session + 1);
        scan_around(view, &self.incoming(0), &to, &mut |key, _| {
            ids.extend(key.last_chunk().map(|id| u16::from_be_bytes(*id)));
        })?;
        Ok(ids)
    }

    /// Deliveries in flight, in their order.
    pub(crate) fn read_flights(&self, now: Now, view: &dyn View) -> Result<Vec<Thawed>, Error> {
        // Packet ids whose records are damaged.
        let (mut flown, mut lost) = (Vec::new(), Vec::new());
        let to = Key::new(Table::Flights).number(self.session + 1);
        let is_damaged = scan_around(view, &self.flight(DeliveryId(0)), &to, &mut |key, value| {
            let id = key.last_chunk().map(|id| DeliveryId(u16::from_be_bytes(*id)));
            match (id, Flown::decode(value)) {
                (Some(id), Ok(f)) => flown.push((id, f)),
                (id, _) => {
                    lost.extend(id);
                    self.counts.dropped(Drop::Damaged);
                    self.store.delete(Key::of(Table::Flights, key));
                }
            }
        })?;
        flown.sort_by_key(|(_, f)| f.sequence);
        let mut flights = Vec::new();
        for (id, Flown { is_received, sequence }) in flown {
            if is_received {
                flights.push(Thawed { id, sequence, entry: None });
                continue;
            }
            let value = match view.value(&self.queue(sequence)) {
                Err(error) if !error.is_damage() => return Err(error),
                value => value.unwrap_or_default(),
            };
            let entry = match value {
                Some(value) => self.entry(now, view, sequence, &value)?,
                None => None,
            };
            match entry {
                Some(entry) => flights.push(Thawed { id, sequence, entry: Some(entry) }),
                None => self.land(id, None),
            }
        }
        if is_damaged || !lost.is_empty() {
            self.take_strays(now, view, &mut flights, lost)?;
        }
        Ok(flights)
    }

    /// Messages before the last in flight that are in no flight have lost theirs to damage: they get the packet ids that
    /// were lost, in their order, or others, and are in flight again.
    fn take_strays(
        &self,
        now: Now,
        view: &dyn View,
        flights: &mut Vec<Thawed>,
        mut lost: Vec<DeliveryId>,
    ) -> Result<(), Error> {
        let Some(last) = flights.last().map(|f| f.sequence) else { return Ok(()) };
        let strays = self.read_strays(now, last, flights, view)?;
        lost.sort_unstable();
        if lost.len() != strays.len() {
            let is_free = |id: &DeliveryId| flights.iter().all(|f| f.id != *id);
            lost = (1..=u16::MAX).map(DeliveryId).filter(is_free).take(strays.len()).collect();
        }
        for (entry, id) in strays.into_iter().zip(lost) {
            self.fly(id, &entry);
            let sequence = entry.stored.as_ref().map_or(0, |s| s.sequence);
            flights.push(Thawed { id, sequence, entry: Some(entry) });
        }
        flights.sort_by_key(|f| f.sequence);
        Ok(())
    }

    /// Messages before `from` that are in no flight.
    fn read_strays(
        &self,
        now: Now,
        from: u64,
        flights: &[Thawed],
        view: &dyn View,
    ) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        scan_around(view, &self.queue(0), &self.queue(from), &mut |key, value| {
            let sequence = sequence(key);
            if flights.iter().all(|f| f.sequence != sequence) {
                found.push((sequence, value.to_vec()));
            }
        })?;
        let mut entries = Vec::new();
        for (sequence, value) in found {
            entries.extend(self.entry(now, view, sequence, &value)?);
        }
        Ok(entries)
    }

    /// How much lies on the disk from `from` on.
    pub(crate) fn measure(&self, from: u64, view: &dyn View) -> Result<Cold, Error> {
        self.measure_to(from, u64::MAX, view)
    }

    fn measure_to(&self, from: u64, to: u64, view: &dyn View) -> Result<Cold, Error> {
        let mut cold = Cold { from, to: from, ..Cold::default() };
        scan_around(view, &self.queue(from), &self.queue(to), &mut |key, value| {
            cold.to = sequence(key) + 1;
            cold.count += 1;
            cold.bytes += place(value).map_or(0, |(_, p, _)| p.size);
        })?;
        Ok(cold)
    }

    /// Messages that wait and that are in flight, of a session that was not read back.
    pub(crate) fn depth(&self) -> Result<(usize, usize), Error> {
        let view = self.store.view()?;
        let (mut flights, mut in_queue, mut all) = (0, 0, 0);
        let to = Key::new(Table::Flights).number(self.session + 1);
        scan_around(&*view, &self.flight(DeliveryId(0)), &to, &mut |_, value| {
            flights += 1;
            in_queue += usize::from(Flown::decode(value).is_ok_and(|f| !f.is_received));
        })?;
        let to = Key::new(Table::Queue).number(self.session + 1);
        scan_around(&*view, &self.queue(0), &to, &mut |_, _| all += 1)?;
        Ok((usize::saturating_sub(all, in_queue), flights))
    }

    /// The next messages of those on the disk, which `cold` then has no more.
    pub(crate) fn warm(&self, now: Now, cold: &mut Cold) -> Result<Vec<Entry>, Error> {
        let view = self.store.view()?;
        let mut found = Vec::new();
        let scanned = view.scan(&self.queue(cold.from), &self.queue(cold.to), &mut |key, value| {
            found.push((sequence(key), value.to_vec()));
            found.len() < PORTION
        });
        match scanned {
            Ok(()) => {}
            Err(error) if !error.is_damage() => return Err(error),
            // What was read before the damage comes first; then it goes on behind.
            Err(_) if !found.is_empty() => {}
            Err(error) => {
                let behind = self.behind(cold, &*view);
                tracing::error!(%error, client_number = self.session, "waiting messages cannot be read and are lost");
                self.counts.dropped(Drop::Damaged);
                match behind {
                    Some(behind) => cold.from = behind,
                    None => *cold = Cold::default(),
                }
                return Ok(Vec::new());
            }
        }
        let is_last = scanned.is_ok() && found.len() < PORTION;
        let mut entries = Vec::with_capacity(found.len());
        for (sequence, value) in found {
            cold.from = sequence + 1;
            cold.count = cold.count.saturating_sub(1);
            cold.bytes = cold.bytes.saturating_sub(place(&value).map_or(0, |(_, p, _)| p.size));
            entries.extend(self.entry(now, &*view, sequence, &value)?);
        }
        if is_last {
            *cold = Cold::default();
        }
        Ok(entries)
    }

    /// The first place that can be read behind those at the front that cannot; later than the front in any case.
    fn behind(&self, cold: &Cold, view: &dyn View) -> Option<u64> {
        let mut behind = None;
        // That it ends in the same damage is expected.
        let _ = view.scan_back(&self.queue(cold.from), &self.queue(cold.to), &mut |key, _| {
            behind = Some(sequence(key));
            true
        });
        behind.map(|behind| behind.max(cold.from + 1))
    }

    /// Drops the first message of those on the disk.
    pub(crate) fn drop_first(&self, cold: &mut Cold) -> Result<(), Error> {
        let mut first = None;
        let view = self.store.view()?;
        let scanned = view.scan(&self.queue(cold.from), &self.queue(cold.to), &mut |key, value| {
            first = Some((stored(sequence(key), value), place(value).map_or(0, |(_, p, _)| p.size)));
            false
        });
        if let Err(error) = scanned {
            if !error.is_damage() {
                return Err(error);
            }
            // What is damaged goes first; what is left is counted anew.
            self.counts.dropped(Drop::Damaged);
            *cold = match self.behind(cold, &*view) {
                Some(behind) => self.measure_to(behind, cold.to, &*view)?,
                None => Cold::default(),
            };
            return Ok(());
        }
        let Some((stored, size)) = first else {
            *cold = Cold::default();
            return Ok(());
        };
        self.store.remove(self.session, &stored);
        cold.from = stored.sequence + 1;
        cold.count = cold.count.saturating_sub(1);
        cold.bytes = cold.bytes.saturating_sub(size);
        Ok(())
    }

    /// The message of a place; None if it is damaged, which costs the place.
    fn entry(&self, now: Now, view: &dyn View, sequence: u64, value: &[u8]) -> Result<Option<Entry>, Error> {
        let stored = stored(sequence, value);
        let bytes = match stored.shared {
            None => None,
            Some(shared) => match view.value(&Key::new(Table::Shared).number(shared.0)) {
                Err(error) if !error.is_damage() => return Err(error),
                bytes => bytes.unwrap_or_default(),
            },
        };
        let entry = place(value).and_then(|(shared, place, rest)| {
            let body = if shared.is_some() { bytes.as_deref().ok_or(Damaged)? } else { rest };
            let message = record::decode_message(now, body)?;
            let record::Place { qos, retain, ids, via, .. } = place;
            Ok(Entry { message, qos, retain, ids, via, stored: Some(Box::new(stored)) })
        });
        if entry.is_err() {
            self.counts.dropped(Drop::Damaged);
            self.store.remove(self.session, &stored);
        }
        Ok(entry.ok())
    }
}

/// The number at the end of a queue's key.
fn sequence(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |n| u64::from_be_bytes(*n))
}

fn stored(sequence: u64, value: &[u8]) -> Stored {
    // Its key is as long as all keys of queues.
    let size = (17 + value.len()) as u32;
    Stored { sequence, batch: 0, size, shared: store::is_shared(value) }
}

fn place(value: &[u8]) -> Result<(Option<Shared>, record::Place, &[u8]), Damaged> {
    let (shared, rest) = store::split_body(value).ok_or(Damaged)?;
    let (place, rest) = record::decode_place(rest)?;
    Ok((shared, place, rest))
}

/// One message on its way into the queues of durable sessions: encoded once, and stored once if several get it.
pub(crate) struct Keeping<'a> {
    message: &'a Message,
    is_shared: bool,
    encoded: Vec<u8>,
    shared: Option<Shared>,
    store: Option<&'a Store>,
    /// The last batch that anything of it went into; zero if nothing did.
    pub(crate) batch: u64,
}

impl<'a> Keeping<'a> {
    /// For a message that `several` durable sessions may get.
    pub(crate) fn new(store: Option<&'a Store>, message: &'a Message, several: bool) -> Keeping<'a> {
        Keeping { message, is_shared: several, encoded: Vec::new(), shared: None, store, batch: 0 }
    }

    /// Stores the entry's place in its session's queue.
    pub(crate) fn keep(&mut self, ledger: &Ledger<'_>, entry: &Entry) -> Box<Stored> {
        if self.encoded.is_empty() {
            record::encode_message(&mut self.encoded, self.message);
        }
        let place = record::encode_place(entry);
        let stored = if self.is_shared {
            let shared = *self.shared.get_or_insert_with(|| ledger.store.share(&self.encoded));
            ledger.store.push(ledger.session, &place, Body::Shared(shared))
        } else {
            ledger.store.push(ledger.session, &place, Body::Inline(&self.encoded))
        };
        self.batch = self.batch.max(stored.batch);
        Box::new(stored)
    }
}

impl std::ops::Drop for Keeping<'_> {
    fn drop(&mut self) {
        if let (Some(store), Some(shared)) = (self.store, self.shared) {
            store.release(shared);
        }
    }
}

/// The filter's text as records have it.
pub(crate) fn filter_key(session: u64, filter: &Arc<str>) -> Key {
    Key::new(Table::Filters).number(session).text(filter.as_bytes())
}
