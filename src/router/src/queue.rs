//! What a session has to deliver: messages that wait, and those in flight with their packet ids.
//!
//! ```text
//! publisher -> push -> queue -> step -> in flight -> receive (PUBREC) -> settle (PUBACK, PUBCOMP)
//!                                ^                                |
//!                                +---- rewind: another connection +
//! ```
//!
//! One queue serves the connected and the absent: an absent session is not drained, a slow one seldom. What of it is on
//! the disk may be there alone ([`Cold`]); it comes before what is in memory.
//!
//! Of a durable session, each change is written down in its [`Ledger`]. A QoS 2 delivery is sent when the disk has its packet
//! id: otherwise a client that has received it would get it a second time from a gateway that has forgotten.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use gateway::{DeliveryId, Drop, Message, Now, Qos};
use hashbrown::HashSet;
use store::{Error, Stored};

use crate::config::{OnFull, Options};
use crate::count::Counts;
use crate::ledger::{Cold, Ledger};

/// What an idle session has none of.
#[derive(Default)]
pub(crate) struct Work {
    queue: VecDeque<Entry>,
    queued_bytes: usize,
    /// Entries of QoS 0 in the queue.
    queued_qos0: usize,
    /// In the order of delivery.
    inflight: VecDeque<Flight>,
    inflight_bytes: usize,
    /// Flights before this index were sent on this connection.
    sent: usize,
    /// What is on the disk alone. It comes before the queue, but for what was just read back.
    cold: Cold,
    /// Entries at the front of the queue that were read back, and come before all others.
    warm: usize,
    /// The batch that was last said to hold something back.
    named: u64,
    /// What comes next could not be read.
    is_unreadable: bool,
    /// Places were taken out of the middle, which the disk knows when it has this batch: until then nothing is left to it.
    holes_until: u64,
    /// Packet ids in flight are no longer in the order of the ring: one was never settled and was stepped over.
    is_skewed: bool,
    /// QoS 2 packet ids received and not released (MQTT-4.3.3); at most 65,535.
    pub(crate) incoming: HashSet<u16>,
}

/// A message for one session.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) message: Message,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) ids: Option<Arc<[u32]>>,
    /// The shared subscription it came by.
    pub(crate) via: Option<Arc<str>>,
    /// Its record, if the session is durable.
    pub(crate) stored: Option<Box<Stored>>,
}

impl Entry {
    /// Whether it is kept for a session that is not connected, and sent until it is acknowledged.
    pub(crate) fn is_kept(&self) -> bool {
        self.qos > Qos::AtMostOnce
    }

    /// Whether another member of its shared subscription may get it (MQTT 5.0, 4.8.2).
    pub(crate) fn is_movable(&self) -> bool {
        self.via.is_some() && self.qos == Qos::AtLeastOnce
    }
}

struct Flight {
    id: DeliveryId,
    /// None once the client has received it (PUBREC).
    entry: Option<Entry>,
    /// It was sent, on this connection or another.
    was_sent: bool,
    /// The batch that must be on the disk before it is sent; zero is none.
    gate: u64,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits for its turn.
    Queued,
    /// It was dropped, and counted if that is a loss.
    Dropped,
    /// The session's queue is full and says so to the publisher.
    Refused,
    /// There is no such session any more.
    Ended,
}

/// What one delivery or drop needs to know of the world.
pub(crate) struct Step<'a> {
    pub(crate) now: Now,
    pub(crate) most_bytes: usize,
    pub(crate) counts: &'a Counts,
    pub(crate) ledger: Option<Ledger<'a>>,
}

/// What is handed over next.
pub(crate) enum Next<'a> {
    /// A message; the flag says that it was sent before.
    Message(&'a Entry, Option<DeliveryId>, bool),
    /// A QoS 2 delivery that the client has and did not complete.
    Release(DeliveryId),
}

/// Most spare ones that a driver keeps, and the longest queues that they keep.
const SPARE: (usize, usize) = (512, 32);

thread_local! {
    /// A session needs this from a message's coming to its acknowledgement, and on a driver hundreds begin and end at
    /// once: more than an allocator keeps at hand.
    #[expect(clippy::vec_box, reason = "the boxes are what is spared")]
    static SPARES: RefCell<Vec<Box<Work>>> = const { RefCell::new(Vec::new()) };
}

impl Work {
    /// An empty one.
    pub(crate) fn fresh() -> Box<Work> {
        SPARES.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Keeps an idle one for the next session that needs one.
    pub(crate) fn spare(mut self: Box<Self>) {
        self.sent = 0;
        (self.queued_bytes, self.queued_qos0, self.inflight_bytes) = (0, 0, 0);
        self.is_skewed = false;
        self.cold = Cold::default();
        self.warm = 0;
        self.named = 0;
        self.is_unreadable = false;
        self.holes_until = 0;
        let is_small = |capacity: usize| capacity <= SPARE.1;
        if is_small(self.queue.capacity())
            && is_small(self.inflight.capacity())
            && is_small(self.incoming.capacity())
        {
            SPARES.with_borrow_mut(|spares| {
                if spares.len() < SPARE.0 {
                    spares.push(self);
                }
            });
        }
    }

    /// Another connection, or none: nothing was sent on it.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
        self.named = 0;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.inflight.is_empty() && self.incoming.is_empty() && self.cold.count == 0
    }

    /// Messages waiting and in flight.
    pub(crate) fn depth(&self) -> (usize, usize) {
        (self.waiting(), self.inflight.len())
    }

    fn waiting(&self) -> usize {
        self.queue.len() + self.cold.count
    }

    fn waiting_bytes(&self) -> usize {
        self.queued_bytes + self.cold.bytes
    }

    pub(crate) fn has_room(&self, options: &Options) -> bool {
        self.waiting() < options.max_queued && self.waiting_bytes() < options.max_queued_bytes
    }

    /// The batch that holds back what comes next, if it was not named before; None if nothing is held back.
    pub(crate) fn waits_for(&mut self, durable: u64) -> Option<Option<u64>> {
        if std::mem::take(&mut self.is_unreadable) {
            // When the store has written again, reading may work too.
            return Some(Some(durable + 1));
        }
        let gate = self.inflight.get(self.sent).map(|f| f.gate).filter(|&gate| gate > durable)?;
        let named = std::mem::replace(&mut self.named, gate);
        Some((named < gate).then_some(gate))
    }

    /// Whether a delivery that has its packet id can be sent.
    pub(crate) fn is_sendable(&self, credit: u16, durable: u64) -> bool {
        let is_due = |f: &Flight| f.gate <= durable && (credit > 0 || f.entry.is_none());
        self.inflight.get(self.sent).is_some_and(is_due)
    }

    /// Whether something was not handed over yet.
    pub(crate) fn has_unsent(&self) -> bool {
        self.inflight.len() > self.sent || self.cold.count > 0 || !self.queue.is_empty()
    }

    /// Whether [`step`](Self::step) would hand something over.
    pub(crate) fn is_deliverable(&self, credit: u16) -> bool {
        match self.inflight.get(self.sent) {
            Some(flight) => credit > 0 || flight.entry.is_none(),
            None if self.cold.count > 0 => credit > 0,
            None => self.queue.front().is_some_and(|e| credit > 0 || !e.is_kept()),
        }
    }

    /// Makes room for `entry` at the end of the queue; what it became if there is none to be had.
    pub(crate) fn make_room(
        &mut self,
        entry: &Entry,
        is_connected: bool,
        options: &Options,
        counts: &Counts,
        ledger: Option<&Ledger<'_>>,
    ) -> Result<(), Pushed> {
        let size = entry.message.size();
        let reason = |is_kept: bool| if is_connected && !is_kept { Drop::SlowPeer } else { Drop::QueueFull };
        while self.waiting() >= options.max_queued
            || (self.waiting_bytes() + size > options.max_queued_bytes && self.waiting() > 0)
        {
            // At the bound the oldest QoS 0 goes first.
            match self.oldest_qos0() {
                Some(at) => {
                    self.take(at);
                    counts.dropped(reason(false));
                }
                None if !entry.is_kept() => {
                    counts.dropped(reason(false));
                    return Err(Pushed::Dropped);
                }
                None if options.on_full == OnFull::Refuse => return Err(Pushed::Refused),
                None => {
                    self.drop_oldest(ledger).map_err(|_| Pushed::Refused)?;
                    counts.dropped(reason(true));
                }
            }
        }
        Ok(())
    }

    fn drop_oldest(&mut self, ledger: Option<&Ledger<'_>>) -> Result<(), Error> {
        if let Some(ledger) = ledger
            && self.is_next_cold()
        {
            return ledger.drop_first(&mut self.cold);
        }
        if let (Some(old), Some(ledger)) = (self.take(0), ledger) {
            ledger.remove(&old);
        }
        Ok(())
    }

    /// Puts an entry at the end of the queue.
    pub(crate) fn append(&mut self, entry: Entry) {
        self.queued_bytes += entry.message.size();
        self.queued_qos0 += usize::from(!entry.is_kept());
        self.queue.push_back(entry);
    }

    /// Leaves to the disk what it has, if there are more than `most` in memory.
    pub(crate) fn spill(&mut self, most: usize, durable: u64) {
        if self.queue.len() <= most || self.queued_qos0 > 0 || self.holes_until > durable {
            return;
        }
        self.cool();
        while let Some(stored) = self.queue.front().and_then(|e| e.stored.as_deref())
            && stored.batch <= durable
        {
            let sequence = stored.sequence;
            let Some(entry) = self.take(0) else { return };
            if self.cold.count == 0 {
                self.cold.from = sequence;
            }
            self.cold.to = sequence + 1;
            self.cold.count += 1;
            self.cold.bytes += entry.message.size();
        }
    }

    /// Lets go of what was read back and not delivered.
    fn cool(&mut self) {
        for entry in self.queue.drain(..std::mem::take(&mut self.warm)).rev() {
            let Some(stored) = &entry.stored else { continue };
            self.queued_bytes -= entry.message.size();
            if self.cold.count == 0 {
                self.cold.to = stored.sequence + 1;
            }
            self.cold.from = stored.sequence;
            self.cold.count += 1;
            self.cold.bytes += entry.message.size();
        }
    }

    fn is_next_cold(&self) -> bool {
        self.warm == 0 && self.cold.count > 0
    }

    /// Reads back the next messages that are on the disk alone.
    fn warm(&mut self, now: Now, ledger: &Ledger<'_>) -> Result<(), Error> {
        let entries = ledger.warm(now, &mut self.cold)?;
        self.warm = entries.len();
        for entry in entries.into_iter().rev() {
            self.queued_bytes += entry.message.size();
            self.queue.push_front(entry);
        }
        Ok(())
    }

    /// Reads back what is not on the disk alone: what is in flight, and which packet ids were received.
    pub(crate) fn thaw(&mut self, now: Now, ledger: &Ledger<'_>) -> Result<Option<u16>, Error> {
        let view = ledger.store.view()?;
        let incoming = ledger.read_incoming(&*view)?;
        let flights = ledger.read_flights(now, &*view)?;
        let (last_id, from) = flights.last().map_or((None, 0), |f| (Some(f.id.0), f.sequence + 1));
        self.cold = ledger.measure(from, &*view)?;
        self.incoming.extend(incoming);
        self.is_skewed = !flights.is_empty();
        for flight in flights {
            self.inflight_bytes += flight.entry.as_ref().map_or(0, |e| e.message.size());
            self.inflight.push_back(Flight { id: flight.id, entry: flight.entry, was_sent: true, gate: 0 });
        }
        Ok(last_id)
    }

    fn oldest_qos0(&self) -> Option<usize> {
        if self.queued_qos0 == 0 {
            return None;
        }
        self.queue.iter().position(|e| !e.is_kept())
    }

    fn take(&mut self, at: usize) -> Option<Entry> {
        let entry = if at == 0 { self.queue.pop_front() } else { self.queue.remove(at) }?;
        self.warm -= usize::from(at < self.warm);
        self.queued_bytes = self.queued_bytes.saturating_sub(entry.message.size());
        self.queued_qos0 -= usize::from(!entry.is_kept());
        Some(entry)
    }

    /// Hands one thing over: None if nothing can be, otherwise whether there is room for more.
    pub(crate) fn step(
        &mut self,
        step: &Step<'_>,
        credit: &mut u16,
        last_id: &mut u16,
        hand: &mut impl FnMut(Next<'_>) -> bool,
    ) -> Option<bool> {
        let durable = step.ledger.map_or(u64::MAX, |l| l.store.durable());
        loop {
            // What is sent again comes before what is new (MQTT-4.6.0-1).
            if let Some(flight) = self.inflight.get_mut(self.sent)
                && flight.gate <= durable
            {
                let next = match &flight.entry {
                    None => Next::Release(flight.id),
                    Some(_) if *credit == 0 => return None,
                    Some(entry) => {
                        *credit -= 1;
                        Next::Message(entry, Some(flight.id), std::mem::replace(&mut flight.was_sent, true))
                    }
                };
                self.sent += 1;
                return Some(hand(next));
            }
            let held_back = self.inflight.len() - self.sent;
            // A portion of which nothing can be read is no reason to let later ones overtake.
            while let Some(ledger) = &step.ledger
                && self.is_next_cold()
            {
                let Err(error) = self.warm(step.now, ledger) else { continue };
                tracing::warn!(%error, "messages on the disk cannot be read");
                self.is_unreadable = true;
                return None;
            }
            let front = self.queue.front()?;
            if front.message.is_expired(step.now.instant) {
                if let (Some(entry), Some(ledger)) = (self.take(0), &step.ledger) {
                    ledger.remove(&entry);
                }
                step.counts.dropped(Drop::Expired);
                return Some(true);
            }
            if !front.is_kept() {
                if held_back > 0 {
                    return None;
                }
                let entry = self.take(0)?;
                return Some(hand(Next::Message(&entry, None, false)));
            }
            let size = front.message.size();
            let is_full = !self.inflight.is_empty() && self.inflight_bytes + size > step.most_bytes;
            if usize::from(*credit) <= held_back || is_full {
                return None;
            }
            let id = self.next_id(*last_id)?;
            *last_id = id.0;
            let entry = self.take(0)?;
            let written = step.ledger.map_or(0, |l| l.fly(id, &entry));
            let is_held = entry.qos == Qos::ExactlyOnce && step.ledger.is_some_and(|l| l.is_strict);
            let gate = if is_held { written } else { 0 };
            self.inflight_bytes += size;
            self.inflight.push_back(Flight { id, entry: Some(entry), was_sent: false, gate });
        }
    }

    /// Ids are given out in a ring, so the oldest in flight is the first that could be met again. One that is never
    /// settled is stepped over, and from then on each id is looked for.
    fn next_id(&mut self, last: u16) -> Option<DeliveryId> {
        let Some(oldest) = self.inflight.front() else {
            self.is_skewed = false;
            return Some(DeliveryId(after(last)));
        };
        if self.inflight.len() >= usize::from(u16::MAX) {
            return None;
        }
        let mut id = DeliveryId(after(last));
        self.is_skewed |= oldest.id == id;
        while self.is_skewed && self.inflight.iter().any(|f| f.id == id) {
            id = DeliveryId(after(id.0));
        }
        Some(id)
    }

    fn position(&self, id: DeliveryId) -> Option<usize> {
        let oldest = self.inflight.front()?.id;
        // Acknowledgements come in order from almost every client.
        if oldest == id {
            return Some(0);
        }
        if self.is_skewed {
            return self.inflight.iter().position(|f| f.id == id);
        }
        let distance = |id: DeliveryId| id.0.wrapping_sub(oldest.0);
        self.inflight.binary_search_by_key(&distance(id), |f| distance(f.id)).ok()
    }

    /// The delivery is over; false if there was none.
    pub(crate) fn settle(&mut self, id: DeliveryId, ledger: Option<&Ledger<'_>>) -> bool {
        let Some(at) = self.position(id) else { return false };
        let flight = if at == 0 { self.inflight.pop_front() } else { self.inflight.remove(at) };
        self.sent = self.sent.saturating_sub(usize::from(at < self.sent));
        let entry = flight.and_then(|f| f.entry);
        if let Some(ledger) = ledger {
            ledger.land(id, entry.as_ref());
        }
        if let Some(entry) = entry {
            self.inflight_bytes = self.inflight_bytes.saturating_sub(entry.message.size());
        }
        true
    }

    /// The client has it; false if there is no such delivery of QoS 2.
    pub(crate) fn receive(&mut self, id: DeliveryId, ledger: Option<&Ledger<'_>>) -> Option<u64> {
        let at = self.position(id)?;
        let flight = self.inflight.get_mut(at)?;
        if flight.entry.as_ref().is_some_and(|e| e.qos != Qos::ExactlyOnce) {
            return None;
        }
        let Some(entry) = flight.entry.take() else {
            // Said again: what was written then may still be on its way.
            return Some(ledger.map_or(0, |l| l.store.latest()));
        };
        self.inflight_bytes = self.inflight_bytes.saturating_sub(entry.message.size());
        let batch = ledger.map_or(0, |l| l.receive(id, &entry));
        // Nor is another connection asked to release it before that.
        flight.gate = if ledger.is_some_and(|l| l.is_strict) { batch } else { 0 };
        Some(batch)
    }

    /// Everything that the client does not have, oldest first. What cannot be read back is not among it.
    pub(crate) fn into_entries(mut self, now: Now, ledger: Option<&Ledger<'_>>) -> Vec<Entry> {
        let mut entries: Vec<_> =
            std::mem::take(&mut self.inflight).into_iter().filter_map(|f| f.entry).collect();
        // What cannot be read is lost with the session.
        entries.extend(self.take_waiting(now, ledger).0);
        entries
    }

    /// All that waits, on the disk or not, in its order. If not all of it can be read now: what can be, and how many of these
    /// come before the rest.
    fn take_waiting(&mut self, now: Now, ledger: Option<&Ledger<'_>>) -> (Vec<Entry>, Option<usize>) {
        let newer = self.queue.split_off(std::mem::take(&mut self.warm));
        let mut waiting: Vec<Entry> = std::mem::take(&mut self.queue).into();
        let mut first = None;
        while let Some(ledger) = ledger
            && self.cold.count > 0
        {
            let Ok(portion) = ledger.warm(now, &mut self.cold) else {
                first = Some(waiting.len());
                break;
            };
            self.queued_bytes += portion.iter().map(|e| e.message.size()).sum::<usize>();
            waiting.extend(portion);
        }
        waiting.extend(newer);
        (waiting, first)
    }

    /// How many the client does not have.
    pub(crate) fn undelivered(&self) -> usize {
        self.waiting() - self.queued_qos0 + self.inflight.iter().filter(|f| f.entry.is_some()).count()
    }

    /// Takes what other members of a shared subscription may get, oldest first. Their records stay until they have
    /// another place.
    pub(crate) fn take_shared(&mut self, now: Now, ledger: Option<&Ledger<'_>>) -> Vec<Entry> {
        let mut taken = Vec::new();
        for flight in std::mem::take(&mut self.inflight) {
            match flight.entry {
                Some(entry) if entry.is_movable() => {
                    self.inflight_bytes = self.inflight_bytes.saturating_sub(entry.message.size());
                    if let Some(ledger) = ledger {
                        ledger.land(flight.id, None);
                    }
                    taken.push(entry);
                }
                _ => self.inflight.push_back(flight),
            }
        }
        let (waiting, unread) = self.take_waiting(now, ledger);
        if let Some(first) = unread {
            // It stays as it is; what was in flight moves.
            (self.queue, self.warm, self.sent) = (waiting.into(), first, 0);
            return taken;
        }
        if let Some(ledger) = ledger {
            // Their records are removed in the batch that is being gathered.
            self.holes_until = ledger.store.latest() + 1;
        }
        self.sent = 0;
        for entry in waiting {
            if entry.is_movable() {
                self.queued_bytes = self.queued_bytes.saturating_sub(entry.message.size());
                taken.push(entry);
            } else {
                self.queue.push_back(entry);
            }
        }
        taken
    }
}

/// The packet id after this one; zero is none (MQTT-2.2.1-3).
fn after(id: u16) -> u16 {
    id.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        work: Work,
        options: Options,
        counts: Counts,
        last_id: u16,
    }

    impl World {
        fn new(options: Options) -> World {
            World { work: Work::default(), options, counts: Counts::default(), last_id: 0 }
        }

        fn push(&mut self, payload: &str, qos: Qos, is_connected: bool) -> Pushed {
            let message = Message::new(Now::default(), "t", payload.as_bytes()).with_qos(qos);
            let entry = Entry { message, qos, retain: false, ids: None, via: None, stored: None };
            match self.work.make_room(&entry, is_connected, &self.options, &self.counts, None) {
                Ok(()) => {
                    self.work.append(entry);
                    Pushed::Queued
                }
                Err(pushed) => pushed,
            }
        }

        fn drain(&mut self) -> Vec<(String, u16)> {
            let World { work, options, counts, last_id } = self;
            let credit = &mut u16::MAX.clone();
            let mut got = Vec::new();
            let mut hand = |next: Next<'_>| {
                if let Next::Message(entry, id, _) = next {
                    let payload = String::from_utf8_lossy(entry.message.payload()).into_owned();
                    got.push((payload, id.map_or(0, |id| id.0)));
                }
                true
            };
            let (now, most_bytes) = (Now::default(), options.max_queued_bytes);
            let step = Step { now, most_bytes, counts, ledger: None };
            while work.step(&step, credit, last_id, &mut hand).is_some() {}
            got
        }

        fn payloads(&mut self) -> Vec<String> {
            self.drain().into_iter().map(|(payload, _)| payload).collect()
        }
    }

    #[test]
    fn at_the_bound_the_oldest_of_qos_0_goes_first_and_then_the_oldest() {
        let mut w = World::new(Options { max_queued: 3, ..Options::default() });
        w.push("1", Qos::AtLeastOnce, true);
        w.push("0a", Qos::AtMostOnce, true);
        w.push("0b", Qos::AtMostOnce, true);
        w.push("2", Qos::AtLeastOnce, true);
        assert_eq!(w.counts.of(Drop::SlowPeer), 1);
        w.push("3", Qos::AtLeastOnce, false);
        w.push("4", Qos::AtLeastOnce, false);
        assert_eq!(w.push("0c", Qos::AtMostOnce, true), Pushed::Dropped);
        assert_eq!((w.counts.of(Drop::SlowPeer), w.counts.of(Drop::QueueFull)), (2, 2));
        assert_eq!(w.payloads(), ["2", "3", "4"]);
    }

    #[test]
    fn a_full_queue_that_refuses_keeps_what_it_has() {
        let mut w = World::new(Options { max_queued: 1, on_full: OnFull::Refuse, ..Options::default() });
        assert_eq!(w.push("1", Qos::AtLeastOnce, true), Pushed::Queued);
        assert_eq!(w.push("2", Qos::AtLeastOnce, true), Pushed::Refused);
        assert_eq!(w.payloads(), ["1"]);
    }

    #[test]
    fn bytes_are_bounded_while_waiting_and_in_flight() {
        let size = Message::new(Now::default(), "t", &[b'x'; 100]).size();
        let mut w = World::new(Options { max_queued_bytes: size * 3, ..Options::default() });
        let payload = "x".repeat(100);
        for _ in 0..5 {
            w.push(&payload, Qos::AtLeastOnce, true);
        }
        assert_eq!((w.work.depth(), w.counts.of(Drop::QueueFull)), ((3, 0), 2));
        assert_eq!(w.drain().len(), 3);
        for _ in 0..3 {
            w.push(&payload, Qos::AtLeastOnce, true);
        }
        assert!(w.drain().is_empty(), "three are in flight");
        assert!(w.work.settle(DeliveryId(2), None));
        assert_eq!(w.drain().len(), 1);
    }

    #[test]
    fn a_packet_id_that_is_never_settled_is_stepped_over() {
        let mut w = World::new(Options::default());
        w.push("stuck", Qos::ExactlyOnce, true);
        w.push("also stuck", Qos::ExactlyOnce, true);
        assert_eq!(w.drain().len(), 2);
        for _ in 0..2 {
            for _ in 0..65_533 {
                w.push("x", Qos::AtLeastOnce, true);
                let got = w.drain();
                assert_eq!(got.len(), 1);
                assert!(![0, 1, 2].contains(&got[0].1));
                assert!(w.work.settle(DeliveryId(got[0].1), None));
            }
        }
        assert!(w.work.settle(DeliveryId(2), None) && w.work.settle(DeliveryId(1), None));
        assert!(w.work.is_idle());
    }

    #[test]
    fn acknowledgements_are_found_in_any_order_around_the_end_of_the_ring() {
        let mut w = World::new(Options::default());
        w.last_id = 65_530;
        for _ in 0..20 {
            w.push("x", Qos::AtLeastOnce, true);
        }
        let ids: Vec<u16> = w.drain().into_iter().map(|(_, id)| id).collect();
        assert_eq!((ids[4], ids[5]), (65_535, 1));
        for n in (0..20).map(|n| (n * 7 + 3) % 20) {
            assert!(w.work.settle(DeliveryId(ids[n]), None) && !w.work.settle(DeliveryId(ids[n]), None));
        }
        assert_eq!((w.work.is_idle(), w.work.inflight_bytes, w.work.queued_bytes), (true, 0, 0));
    }
}
