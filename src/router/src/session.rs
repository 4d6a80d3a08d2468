//! One client's session: where it is connected, what it subscribed to, and when it ends. Everything changes under one
//! lock, by few functions: a store that keeps sessions has its places here and in [`crate::queue`].

use std::sync::Arc;
use std::time::Duration;

use gateway::{DeliveryId, Filter, Instant, Publisher, Settle, Will};
use parking_lot::Mutex;

use crate::config::Options;
use crate::count::Counts;
use crate::post::{Attachment, Post, Signal};
use crate::queue::{Entry, Next, Pushed, Work};
use crate::timers::Key;

/// A session. Shared by the registry, the routes to it, and the driver that hosts its connection.
pub struct Session {
    pub(crate) client_id: Box<str>,
    pub(crate) realm: Arc<Realm>,
    pub(crate) principal: Option<Arc<str>>,
    pub(crate) publisher: Publisher,
    pub(crate) state: Mutex<State>,
}

/// What many sessions have in common.
pub(crate) struct Realm {
    pub(crate) namespace: Arc<str>,
    pub(crate) mount: Arc<str>,
}

impl Session {
    /// The client id.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The namespace the client id is unique in.
    pub fn namespace(&self) -> &str {
        &self.realm.namespace
    }

    /// The prefix of all its topics.
    pub fn mount(&self) -> &str {
        &self.realm.mount
    }

    /// What tells its messages from those of others.
    pub fn publisher(&self) -> Publisher {
        self.publisher
    }

    #[cfg(test)]
    pub(crate) fn for_test(client_id: &str) -> Arc<Session> {
        let at = Attachment { driver: 0, peer: gateway::Peer::default() };
        Arc::new(Session {
            client_id: client_id.into(),
            realm: Arc::new(Realm { namespace: "".into(), mount: "".into() }),
            principal: None,
            publisher: Publisher(1),
            state: Mutex::new(State::new(at, 10, Expiry::of(Duration::MAX), None)),
        })
    }
}

/// How long a session outlives its connection, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry(u64);

impl Expiry {
    pub(crate) fn of(time: Duration) -> Expiry {
        Expiry(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }

    /// The session ends with its connection.
    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn time(self) -> Duration {
        if self.0 == u64::MAX { Duration::MAX } else { Duration::from_micros(self.0) }
    }

    /// When a session that lost its connection now ends, if it does.
    fn after(self, now: Instant) -> Option<Instant> {
        let at = now + self.time();
        (at != Instant::NEVER).then_some(at)
    }
}

/// What changes.
pub(crate) struct State {
    pub(crate) at: Option<Attachment>,
    /// A `Ready` is on its way to the driver, or being worked on.
    pub(crate) is_signalled: bool,
    /// It is over; whoever still refers to it finds nothing to do.
    pub(crate) is_ended: bool,
    /// Deliveries of QoS 1 and 2 that may still be sent on this connection, and the most there may be.
    credit: u16,
    most_credit: u16,
    /// The packet id given out last.
    last_id: u16,
    pub(crate) expiry: Expiry,
    pub(crate) filters: Vec<Filter>,
    pub(crate) will: Option<Box<Will>>,
    work: Option<Box<Work>>,
    /// While it is not connected and time has something to do with it.
    pub(crate) absence: Option<Box<Absence>>,
}

/// What time does to an absent session.
pub(crate) struct Absence {
    /// The deadline that is set, the earlier of the two.
    pub(crate) key: Key,
    /// When the will is published.
    pub(crate) will_at: Option<Instant>,
    /// When the session ends.
    pub(crate) ends_at: Option<Instant>,
}

impl State {
    pub(crate) fn new(at: Attachment, credit: u16, expiry: Expiry, will: Option<Box<Will>>) -> State {
        State {
            at: Some(at),
            is_signalled: false,
            is_ended: false,
            credit,
            most_credit: credit,
            last_id: 0,
            expiry,
            filters: Vec::new(),
            will,
            work: None,
            absence: None,
        }
    }

    /// Another connection takes the session: what was in flight is sent again, in its order.
    pub(crate) fn attach(&mut self, at: Attachment, credit: u16, expiry: Expiry, will: Option<Box<Will>>) {
        self.rewind(Some(at));
        (self.credit, self.most_credit) = (credit, credit);
        (self.expiry, self.will) = (expiry, will);
    }

    /// The connection is over. Returns when the will is due and when the session ends, if time decides.
    pub(crate) fn detach(&mut self, now: Instant) -> (Option<Instant>, Option<Instant>) {
        self.rewind(None);
        let ends_at = self.expiry.after(now);
        // Whichever is first (MQTT-3.1.3-9).
        let will_at = self.will.as_ref().map(|w| now + w.delay);
        (will_at.map(|at| ends_at.map_or(at, |end| at.min(end))), ends_at)
    }

    fn rewind(&mut self, at: Option<Attachment>) {
        self.at = at;
        self.is_signalled = false;
        if let Some(work) = &mut self.work {
            work.rewind();
        }
    }

    /// Messages waiting and in flight, for operators.
    pub(crate) fn depth(&self) -> (usize, usize) {
        self.work.as_ref().map_or((0, 0), |w| w.depth())
    }

    /// Whether a shared subscription may choose this member now: connected, with room.
    pub(crate) fn is_willing(&self, options: &Options) -> bool {
        !self.is_ended && self.at.is_some() && self.work.as_ref().is_none_or(|w| w.has_room(options))
    }

    /// Queues a message for the session. What is for sessions that are not there is decided here, the bounds are the
    /// queue's.
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
        let is_connected = self.at.is_some();
        if !is_connected && !entry.is_kept() && !options.queue_qos0 {
            return Pushed::Dropped;
        }
        let work = self.work.get_or_insert_with(Work::fresh);
        let pushed = work.push(entry, is_connected, options, counts);
        if pushed == Pushed::Queued && work.is_deliverable(self.credit) {
            self.signal(post);
        }
        pushed
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
        most_bytes: usize,
        counts: &Counts,
        mut hand: impl FnMut(Next<'_>) -> bool,
    ) -> bool {
        let State { work, credit, last_id, is_signalled, .. } = self;
        if let Some(work) = work {
            while let Some(has_room) = work.step(now, most_bytes, credit, last_id, counts, &mut hand) {
                if !has_room {
                    // The driver comes back when there is room again.
                    return true;
                }
            }
        }
        *is_signalled = false;
        self.tidy();
        false
    }

    /// A delivery ended; its credit comes back.
    pub(crate) fn settle(&mut self, id: DeliveryId, how: Settle, counts: &Counts, post: &mut Post) -> bool {
        let Some(work) = &mut self.work else { return false };
        if !work.settle(id) {
            return false;
        }
        if how == Settle::Refused {
            counts.dropped(gateway::Drop::Refused);
        }
        self.credit = self.credit.saturating_add(1).min(self.most_credit);
        if work.is_deliverable(self.credit) {
            self.signal(post);
        } else {
            self.tidy();
        }
        true
    }

    /// The client has received a QoS 2 delivery; only its release is kept from now on.
    pub(crate) fn receive(&mut self, id: DeliveryId) -> bool {
        self.work.as_mut().is_some_and(|w| w.receive(id))
    }

    /// Whether this QoS 2 packet id is new; it is remembered.
    pub(crate) fn begin_once(&mut self, id: u16) -> bool {
        self.work.get_or_insert_with(Work::fresh).incoming.insert(id)
    }

    /// Forgets a QoS 2 packet id; false if it was not known.
    pub(crate) fn release(&mut self, id: u16) -> bool {
        let was = self.work.as_mut().is_some_and(|w| w.incoming.remove(&id));
        self.tidy();
        was
    }

    /// An idle session keeps nothing for work.
    fn tidy(&mut self) {
        if !self.is_signalled
            && let Some(idle) = self.work.take_if(|w| w.is_idle())
        {
            idle.spare();
        }
    }

    /// Takes everything undelivered, oldest first: what was in flight, then what waited.
    pub(crate) fn take_undelivered(&mut self) -> Vec<Entry> {
        self.work.take().map_or_else(Vec::new, |w| w.into_entries())
    }

    /// Takes the QoS 1 entries of shared subscriptions, which other members may get.
    pub(crate) fn take_shared(&mut self) -> Vec<Entry> {
        self.work.as_mut().map_or_else(Vec::new, |w| w.take_shared())
    }
}
