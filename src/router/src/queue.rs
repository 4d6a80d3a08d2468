//! What a session has to deliver: messages that wait, and those in flight with their packet ids.
//!
//! ```text
//! publisher -> push -> queue -> step -> in flight -> receive (PUBREC) -> settle (PUBACK, PUBCOMP)
//!                                ^                                |
//!                                +---- rewind: another connection +
//! ```
//!
//! One queue serves the connected and the absent: an absent session is not drained, a slow one seldom.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use gateway::{DeliveryId, Drop, Instant, Message, Qos};
use hashbrown::HashSet;

use crate::config::{OnFull, Options};
use crate::count::Counts;
use crate::share::Group;

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
    pub(crate) via: Option<Arc<Group>>,
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
        self.is_skewed = false;
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
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.inflight.is_empty() && self.incoming.is_empty()
    }

    /// Messages waiting and in flight.
    pub(crate) fn depth(&self) -> (usize, usize) {
        (self.queue.len(), self.inflight.len())
    }

    pub(crate) fn has_room(&self, options: &Options) -> bool {
        self.queue.len() < options.max_queued && self.queued_bytes < options.max_queued_bytes
    }

    /// Whether [`step`](Self::step) would hand something over.
    pub(crate) fn is_deliverable(&self, credit: u16) -> bool {
        match self.inflight.get(self.sent) {
            Some(flight) => credit > 0 || flight.entry.is_none(),
            None => self.queue.front().is_some_and(|e| credit > 0 || !e.is_kept()),
        }
    }

    pub(crate) fn push(
        &mut self,
        entry: Entry,
        is_connected: bool,
        options: &Options,
        counts: &Counts,
    ) -> Pushed {
        let size = entry.message.size();
        let reason = |e: &Entry| if is_connected && !e.is_kept() { Drop::SlowPeer } else { Drop::QueueFull };
        while self.queue.len() >= options.max_queued
            || (self.queued_bytes + size > options.max_queued_bytes && !self.queue.is_empty())
        {
            // At the bound the oldest QoS 0 goes first.
            let victim = match self.oldest_qos0() {
                Some(at) => at,
                None if !entry.is_kept() => {
                    counts.dropped(reason(&entry));
                    return Pushed::Dropped;
                }
                None if options.on_full == OnFull::Refuse => return Pushed::Refused,
                None => 0,
            };
            if let Some(old) = self.take(victim) {
                counts.dropped(reason(&old));
            }
        }
        self.queued_bytes += size;
        self.queued_qos0 += usize::from(!entry.is_kept());
        self.queue.push_back(entry);
        Pushed::Queued
    }

    fn oldest_qos0(&self) -> Option<usize> {
        if self.queued_qos0 == 0 {
            return None;
        }
        self.queue.iter().position(|e| !e.is_kept())
    }

    fn take(&mut self, at: usize) -> Option<Entry> {
        let entry = if at == 0 { self.queue.pop_front() } else { self.queue.remove(at) }?;
        self.queued_bytes = self.queued_bytes.saturating_sub(entry.message.size());
        self.queued_qos0 -= usize::from(!entry.is_kept());
        Some(entry)
    }

    /// Hands one thing over: None if nothing can be, otherwise whether there is room for more.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        most_bytes: usize,
        credit: &mut u16,
        last_id: &mut u16,
        counts: &Counts,
        hand: &mut impl FnMut(Next<'_>) -> bool,
    ) -> Option<bool> {
        // What is sent again comes before what is new (MQTT-4.6.0-1).
        if let Some(flight) = self.inflight.get(self.sent) {
            let next = match &flight.entry {
                None => Next::Release(flight.id),
                Some(_) if *credit == 0 => return None,
                Some(entry) => {
                    *credit -= 1;
                    Next::Message(entry, Some(flight.id), true)
                }
            };
            self.sent += 1;
            return Some(hand(next));
        }
        let front = self.queue.front()?;
        if front.message.is_expired(now) {
            self.take(0);
            counts.dropped(Drop::Expired);
            return Some(true);
        }
        if !front.is_kept() {
            let entry = self.take(0)?;
            return Some(hand(Next::Message(&entry, None, false)));
        }
        let size = front.message.size();
        let is_full = !self.inflight.is_empty() && self.inflight_bytes + size > most_bytes;
        if *credit == 0 || is_full {
            return None;
        }
        let id = self.next_id(*last_id)?;
        *last_id = id.0;
        *credit -= 1;
        let entry = self.take(0)?;
        let has_room = hand(Next::Message(&entry, Some(id), false));
        self.inflight_bytes += size;
        self.inflight.push_back(Flight { id, entry: Some(entry) });
        self.sent = self.inflight.len();
        Some(has_room)
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
    pub(crate) fn settle(&mut self, id: DeliveryId) -> bool {
        let Some(at) = self.position(id) else { return false };
        let flight = if at == 0 { self.inflight.pop_front() } else { self.inflight.remove(at) };
        self.sent = self.sent.saturating_sub(usize::from(at < self.sent));
        if let Some(entry) = flight.and_then(|f| f.entry) {
            self.inflight_bytes = self.inflight_bytes.saturating_sub(entry.message.size());
        }
        true
    }

    /// The client has it; false if there is no such delivery of QoS 2.
    pub(crate) fn receive(&mut self, id: DeliveryId) -> bool {
        let Some(at) = self.position(id) else { return false };
        let Some(flight) = self.inflight.get_mut(at) else { return false };
        if flight.entry.as_ref().is_some_and(|e| e.qos != Qos::ExactlyOnce) {
            return false;
        }
        if let Some(entry) = flight.entry.take() {
            self.inflight_bytes = self.inflight_bytes.saturating_sub(entry.message.size());
        }
        true
    }

    /// Everything that the client does not have, oldest first.
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.inflight.into_iter().filter_map(|f| f.entry).chain(self.queue).collect()
    }

    /// Takes what other members of a shared subscription may get, oldest first.
    pub(crate) fn take_shared(&mut self) -> Vec<Entry> {
        let mut taken = Vec::new();
        for flight in std::mem::take(&mut self.inflight) {
            match flight.entry {
                Some(entry) if entry.is_movable() => {
                    self.inflight_bytes = self.inflight_bytes.saturating_sub(entry.message.size());
                    taken.push(entry);
                }
                _ => self.inflight.push_back(flight),
            }
        }
        self.sent = 0;
        for entry in std::mem::take(&mut self.queue) {
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
    use gateway::Now;

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
            let entry = Entry { message, qos, retain: false, ids: None, via: None };
            self.work.push(entry, is_connected, &self.options, &self.counts)
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
            let most = options.max_queued_bytes;
            while work.step(Instant::default(), most, credit, last_id, counts, &mut hand).is_some() {}
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
        assert!(w.work.settle(DeliveryId(2)));
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
                assert!(w.work.settle(DeliveryId(got[0].1)));
            }
        }
        assert!(w.work.settle(DeliveryId(2)) && w.work.settle(DeliveryId(1)));
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
            assert!(w.work.settle(DeliveryId(ids[n])) && !w.work.settle(DeliveryId(ids[n])));
        }
        assert_eq!((w.work.is_idle(), w.work.inflight_bytes, w.work.queued_bytes), (true, 0, 0));
    }
}
