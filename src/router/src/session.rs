//! One client's session: its queue, what is in flight, and where it is connected. Everything changes under one lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gateway::{Deliver, Delivery, DeliveryId, Drop, Filter, Instant, Message, Publisher, Qos, Settle, Will};
use hashbrown::HashSet;
use parking_lot::Mutex;

use crate::config::{OnFull, Options};
use crate::count::Counts;
use crate::post::{Attachment, Post, Signal};
use crate::share::Group;

/// A session. Shared by the registry, the routes to it, and the driver that hosts its connection.
pub struct Session {
    pub(crate) client_id: Box<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) mount: Arc<str>,
    pub(crate) principal: Option<Arc<str>>,
    pub(crate) publisher: Publisher,
    pub(crate) state: Mutex<State>,
}

impl Session {
    /// The client id.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The namespace the client id is unique in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The prefix of all its topics.
    pub fn mount(&self) -> &str {
        &self.mount
    }

    /// What tells its messages from those of others.
    pub fn publisher(&self) -> Publisher {
        self.publisher
    }
}

/// What changes.
pub(crate) struct State {
    pub(crate) at: Option<Attachment>,
    /// A `Ready` is on its way to the driver, or being worked on.
    pub(crate) is_signalled: bool,
    pub(crate) is_ended: bool,
    /// Deliveries of QoS 1 and 2 that may still be sent on this connection, and the most there may be.
    pub(crate) credit: u16,
    pub(crate) most_credit: u16,
    pub(crate) last_id: u16,
    /// Counts connections, so that timers of earlier ones are known.
    pub(crate) connection: u32,
    pub(crate) expiry: Duration,
    pub(crate) filters: Vec<Filter>,
    pub(crate) will: Option<Box<Will>>,
    pub(crate) work: Option<Box<Work>>,
}

/// What an idle session has none of.
#[derive(Default)]
pub(crate) struct Work {
    queue: VecDeque<Entry>,
    queued_bytes: usize,
    /// Entries of QoS 0 in the queue.
    queued_qos0: usize,
    inflight: VecDeque<Flight>,
    /// Flights before this index were sent on this connection.
    sent: usize,
    /// QoS 2 packet ids received and not released (MQTT-4.3.3).
    incoming: HashSet<u16>,
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

impl State {
    pub(crate) fn new(at: Attachment, credit: u16, expiry: Duration, will: Option<Box<Will>>) -> State {
        State {
            at: Some(at),
            is_signalled: false,
            is_ended: false,
            credit,
            most_credit: credit,
            last_id: 0,
            connection: 0,
            expiry,
            filters: Vec::new(),
            will,
            work: None,
        }
    }

    /// Another connection takes the session: what was in flight is sent again, in its order.
    pub(crate) fn attach(&mut self, at: Attachment, credit: u16) {
        self.at = Some(at);
        self.is_signalled = false;
        self.connection = self.connection.wrapping_add(1);
        (self.credit, self.most_credit) = (credit, credit);
        if let Some(work) = &mut self.work {
            work.sent = 0;
        }
    }

    pub(crate) fn detach(&mut self) {
        self.at = None;
        self.is_signalled = false;
        self.connection = self.connection.wrapping_add(1);
        if let Some(work) = &mut self.work {
            work.sent = 0;
        }
    }

    fn queued(&self) -> (usize, usize) {
        self.work.as_ref().map_or((0, 0), |w| (w.queue.len(), w.queued_bytes))
    }

    /// Messages waiting and in flight, for operators.
    pub(crate) fn depth(&self) -> (usize, usize) {
        self.work.as_ref().map_or((0, 0), |w| (w.queue.len(), w.inflight.len()))
    }

    /// Whether a shared subscription may choose this member now: connected, with room.
    pub(crate) fn is_willing(&self, options: &Options) -> bool {
        let (messages, bytes) = self.queued();
        !self.is_ended
            && self.at.is_some()
            && messages < options.max_queued
            && bytes < options.max_queued_bytes
    }

    pub(crate) fn push(
        &mut self,
        entry: Entry,
        options: &Options,
        counts: &Counts,
        post: &mut Post,
    ) -> Pushed {
        if self.is_ended {
            return Pushed::Ended;
        }
        if self.at.is_none()
            && (self.expiry.is_zero() || (entry.qos == Qos::AtMostOnce && !options.queue_qos0))
        {
            return Pushed::Dropped;
        }
        let size = entry.message.size();
        let is_connected = self.at.is_some();
        let work = self.work.get_or_insert_default();
        while work.queue.len() >= options.max_queued
            || (work.queued_bytes + size > options.max_queued_bytes && !work.queue.is_empty())
        {
            let reason = |e: &Entry| {
                if is_connected && e.qos == Qos::AtMostOnce { Drop::SlowPeer } else { Drop::QueueFull }
            };
            // At the bound the oldest QoS 0 goes first.
            if let Some(at) = work.oldest_qos0() {
                if let Some(old) = work.take(at) {
                    counts.dropped(reason(&old));
                }
            } else if entry.qos == Qos::AtMostOnce {
                counts.dropped(reason(&entry));
                return Pushed::Dropped;
            } else if options.on_full == OnFull::Refuse {
                return Pushed::Refused;
            } else if let Some(old) = work.take(0) {
                counts.dropped(reason(&old));
            }
        }
        work.queued_bytes += size;
        let needs_credit = entry.qos > Qos::AtMostOnce;
        work.queued_qos0 += usize::from(!needs_credit);
        work.queue.push_back(entry);
        if !needs_credit || self.credit > 0 {
            self.signal(post);
        }
        Pushed::Queued
    }

    /// Tells the driver once that there is something.
    pub(crate) fn signal(&mut self, post: &mut Post) {
        if let Some(at) = self.at
            && !self.is_signalled
        {
            self.is_signalled = true;
            post.signals.push((at, Signal::Ready));
        }
    }

    /// See [`crate::Router::drain`].
    pub(crate) fn drain(
        &mut self,
        now: Instant,
        mount: &str,
        counts: &Counts,
        mut hand: impl FnMut(&Deliver<'_>) -> bool,
    ) -> bool {
        let State { work, credit, last_id, is_signalled, .. } = self;
        let Some(work) = work else {
            *is_signalled = false;
            return false;
        };
        loop {
            let has_room = match work.step(now, mount, credit, last_id, counts, &mut hand) {
                Some(has_room) => has_room,
                None => break,
            };
            if !has_room {
                // The driver comes back when there is room again.
                return true;
            }
        }
        *is_signalled = false;
        if work.is_idle() {
            self.work = None;
        }
        false
    }

    /// A delivery ended; its credit comes back. Returns the entry if a shared subscription should hear of it.
    pub(crate) fn settle(&mut self, id: DeliveryId, how: Settle, counts: &Counts, post: &mut Post) -> bool {
        let Some(work) = &mut self.work else { return false };
        let Some(at) = work.position(id) else { return false };
        work.inflight.remove(at);
        work.sent = work.sent.saturating_sub(usize::from(at < work.sent));
        if how == Settle::Refused {
            counts.dropped(Drop::Refused);
        }
        self.credit = self.credit.saturating_add(1).min(self.most_credit);
        if !work.queue.is_empty() || work.sent < work.inflight.len() {
            self.signal(post);
        } else if work.is_idle() && !self.is_signalled {
            self.work = None;
        }
        true
    }

    /// The client has received a QoS 2 delivery; only its release is kept from now on.
    pub(crate) fn receive(&mut self, id: DeliveryId) -> bool {
        let Some(work) = &mut self.work else { return false };
        let Some(at) = work.position(id) else { return false };
        if let Some(flight) = work.inflight.get_mut(at)
            && flight.entry.as_ref().is_none_or(|e| e.qos == Qos::ExactlyOnce)
        {
            flight.entry = None;
            return true;
        }
        false
    }

    /// Whether this QoS 2 packet id is new; it is remembered. An error if too many are open.
    pub(crate) fn begin_once(&mut self, id: u16) -> bool {
        self.work.get_or_insert_default().incoming.insert(id)
    }

    pub(crate) fn release(&mut self, id: u16) -> bool {
        let Some(work) = &mut self.work else { return false };
        let was = work.incoming.remove(&id);
        if work.is_idle() && !self.is_signalled {
            self.work = None;
        }
        was
    }

    /// Takes everything undelivered, oldest first: what was in flight, then what waited.
    pub(crate) fn take_undelivered(&mut self) -> Vec<Entry> {
        let Some(work) = self.work.take() else { return Vec::new() };
        let Work { queue, inflight, .. } = *work;
        // What the client had received of QoS 2 is delivered; only its release was open.
        inflight.into_iter().filter_map(|f| f.entry).chain(queue).collect()
    }

    /// Takes the QoS 1 entries of shared subscriptions, which other members may get.
    pub(crate) fn take_shared(&mut self) -> Vec<Entry> {
        let Some(work) = &mut self.work else { return Vec::new() };
        let is_movable = |e: &Entry| e.via.is_some() && e.qos == Qos::AtLeastOnce;
        let mut taken = Vec::new();
        let (flights, kept) = std::mem::take(&mut work.inflight)
            .into_iter()
            .partition::<VecDeque<_>, _>(|f| f.entry.as_ref().is_some_and(is_movable));
        work.inflight = kept;
        work.sent = 0;
        taken.extend(flights.into_iter().filter_map(|f| f.entry));
        let mut at = 0;
        while at < work.queue.len() {
            if is_movable(&work.queue[at]) {
                taken.extend(work.take(at));
            } else {
                at += 1;
            }
        }
        taken
    }
}

impl Work {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.inflight.is_empty() && self.incoming.is_empty()
    }

    fn oldest_qos0(&self) -> Option<usize> {
        if self.queued_qos0 == 0 {
            return None;
        }
        self.queue.iter().position(|e| e.qos == Qos::AtMostOnce)
    }

    fn take(&mut self, at: usize) -> Option<Entry> {
        let entry = if at == 0 { self.queue.pop_front() } else { self.queue.remove(at) }?;
        self.queued_bytes = self.queued_bytes.saturating_sub(entry.message.size());
        self.queued_qos0 -= usize::from(entry.qos == Qos::AtMostOnce);
        Some(entry)
    }

    fn position(&self, id: DeliveryId) -> Option<usize> {
        // Acknowledgements come in order from almost every client.
        if self.inflight.front().is_some_and(|f| f.id == id) {
            return Some(0);
        }
        self.inflight.iter().position(|f| f.id == id)
    }

    /// Hands one thing over: None if nothing can be, otherwise whether there is room for more.
    fn step(
        &mut self,
        now: Instant,
        mount: &str,
        credit: &mut u16,
        last_id: &mut u16,
        counts: &Counts,
        hand: &mut impl FnMut(&Deliver<'_>) -> bool,
    ) -> Option<bool> {
        if let Some(flight) = self.inflight.get(self.sent) {
            return match &flight.entry {
                None => {
                    self.sent += 1;
                    Some(hand(&Deliver::Release(flight.id)))
                }
                Some(_) if *credit == 0 => None,
                Some(entry) => {
                    self.sent += 1;
                    *credit -= 1;
                    Some(hand(&deliver(entry, Some(flight.id), mount, true)))
                }
            };
        }
        let front = self.queue.front()?;
        if front.message.is_expired(now) {
            self.take(0);
            counts.dropped(Drop::Expired);
            return Some(true);
        }
        if front.qos == Qos::AtMostOnce {
            let entry = self.take(0)?;
            return Some(hand(&deliver(&entry, None, mount, false)));
        }
        if *credit == 0 {
            return None;
        }
        let id = last_id.checked_add(1).unwrap_or(1);
        // Ids are given out in a ring: the oldest in flight is the first that could be met again.
        if self.inflight.iter().take(1).any(|f| f.id.0 == id) || self.inflight.len() >= usize::from(u16::MAX)
        {
            return None;
        }
        *last_id = id;
        *credit -= 1;
        let entry = self.take(0)?;
        let id = DeliveryId(id);
        let has_room = hand(&deliver(&entry, Some(id), mount, false));
        self.inflight.push_back(Flight { id, entry: Some(entry) });
        self.sent = self.inflight.len();
        Some(has_room)
    }
}

fn deliver<'a>(entry: &'a Entry, id: Option<DeliveryId>, mount: &str, duplicate: bool) -> Deliver<'a> {
    let topic = entry.message.topic();
    Deliver::Message(Delivery {
        id,
        message: &entry.message,
        topic: topic.strip_prefix(mount).unwrap_or(topic),
        qos: entry.qos,
        retain: entry.retain,
        duplicate,
        subscriptions: entry.ids.as_deref().unwrap_or_default(),
    })
}
