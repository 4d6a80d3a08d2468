//! One client's session: where it is connected, what it subscribed to, and when it ends. Everything changes under one
//! lock, by few functions, which write down in the session's [`Ledger`] what must outlive the process.

use std::sync::Arc;
use std::time::Duration;

use gateway::{DeliveryId, Drop, Filter, Instant, Now, Publisher, Settle, Will};
use parking_lot::Mutex;
use store::{Error, Key, Table};

use crate::config::Options;
use crate::count::Counts;
use crate::ledger::{Keeping, Ledger};
use crate::post::{Attachment, Post, Signal};
use crate::queue::{Entry, Next, Pushed, Step, Work};
use crate::record::{SessionParts, encode_session};
use crate::timers;

/// Messages of a durable session that are kept in memory beside the disk: for one without a connection, and for one whose
/// connection is slow.
const IN_MEMORY: (usize, usize) = (32, 512);

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
    /// Whether the store has them, each under its publisher's number.
    pub(crate) is_durable: bool,
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

    pub(crate) fn is_durable(&self) -> bool {
        self.realm.is_durable
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
            realm: Arc::new(Realm { namespace: "".into(), mount: "".into(), is_durable: false }),
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
    /// What it has to deliver was not read back since the start.
    pub(crate) is_frozen: bool,
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
    pub(crate) key: timers::Key,
    /// Since when, in milliseconds since 1970.
    pub(crate) since: u64,
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
            is_frozen: false,
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

    /// One that the store has, and that has no connection.
    pub(crate) fn restored(expiry: Expiry, will: Option<Box<Will>>) -> State {
        State {
            at: None,
            is_signalled: false,
            is_ended: false,
            is_frozen: true,
            credit: 0,
            most_credit: 0,
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

    /// Reads back what the store has of it, if that has not been done yet.
    pub(crate) fn thaw(&mut self, now: Now, ledger: Option<&Ledger<'_>>) -> Result<(), Error> {
        if let (true, Some(ledger)) = (self.is_frozen, ledger) {
            let work = self.work.get_or_insert_with(Work::fresh);
            if let Some(id) = work.thaw(now, ledger)? {
                self.last_id = id;
            }
            self.is_frozen = false;
            self.tidy();
        }
        Ok(())
    }

    /// Queues a message for the session. What is for sessions that are not there is decided here, the bounds are the
    /// queue's.
    pub(crate) fn push(
        &mut self,
        mut entry: Entry,
        to: &To<'_>,
        keeping: &mut Keeping<'_>,
        post: &mut Post,
    ) -> Pushed {
        if self.is_ended {
            return Pushed::Ended;
        }
        let is_connected = self.at.is_some();
        if !is_connected && !entry.is_kept() && !to.options.queue_qos0 {
            return Pushed::Dropped;
        }
        if let Err(error) = self.thaw(to.now, to.ledger.as_ref()) {
            tracing::warn!(%error, "a session cannot be read");
            to.counts.dropped(Drop::StoreFull);
            return Pushed::Refused;
        }
        let work = self.work.get_or_insert_with(Work::fresh);
        if let Err(why) = work.make_room(&entry, is_connected, to.options, to.counts, to.ledger.as_ref()) {
            self.tidy();
            return why;
        }
        match &to.ledger {
            Some(ledger) if entry.is_kept() => {
                entry.stored = Some(keeping.keep(ledger, &entry));
                work.append(entry);
                let most = if is_connected { IN_MEMORY.1 } else { IN_MEMORY.0 };
                work.spill(most, ledger.store.durable());
            }
            _ => work.append(entry),
        }
        if work.is_deliverable(self.credit) {
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

    /// See [`crate::Router::drain`]. With a batch, it has to be on the disk before there is more.
    pub(crate) fn drain(
        &mut self,
        step: &Step<'_>,
        mut hand: impl FnMut(Next<'_>) -> bool,
    ) -> (bool, Option<u64>) {
        let State { work, credit, last_id, is_signalled, .. } = self;
        let mut waits_for = None;
        if let Some(work) = work {
            loop {
                while let Some(has_room) = work.step(step, credit, last_id, &mut hand) {
                    if !has_room {
                        // The driver comes back when there is room again.
                        return (true, None);
                    }
                }
                let Some(ledger) = &step.ledger else { break };
                let durable = ledger.store.durable();
                waits_for = work.waits_for(durable);
                // What had to wait a moment ago may have been written since.
                if waits_for.is_some() || !work.is_sendable(*credit, durable) {
                    break;
                }
            }
        }
        if let Some(batch) = waits_for {
            // The signal that follows the batch is as good as sent.
            *is_signalled = true;
            return (false, batch);
        }
        *is_signalled = false;
        self.tidy();
        (false, None)
    }

    /// A delivery ended; its credit comes back.
    pub(crate) fn settle(
        &mut self,
        id: DeliveryId,
        how: Settle,
        counts: &Counts,
        ledger: Option<&Ledger<'_>>,
        post: &mut Post,
    ) -> bool {
        let Some(work) = self.work.as_mut().filter(|_| !self.is_ended) else { return false };
        if !work.settle(id, ledger) {
            return false;
        }
        if how == Settle::Refused {
            counts.dropped(Drop::Refused);
        }
        self.credit = self.credit.saturating_add(1).min(self.most_credit);
        if work.is_deliverable(self.credit) {
            self.signal(post);
        } else {
            self.tidy();
        }
        true
    }

    /// The client has received a QoS 2 delivery; only its release is kept from now on. The batch that says so.
    pub(crate) fn receive(&mut self, id: DeliveryId, ledger: Option<&Ledger<'_>>) -> Option<u64> {
        self.work.as_mut().filter(|_| !self.is_ended)?.receive(id, ledger)
    }

    /// Whether this QoS 2 packet id is new; it is remembered. The batch that says so, if it is.
    pub(crate) fn begin_once(&mut self, id: u16, ledger: Option<&Ledger<'_>>) -> Option<u64> {
        let is_new = self.work.get_or_insert_with(Work::fresh).incoming.insert(id);
        is_new.then(|| ledger.filter(|_| !self.is_ended).map_or(0, |l| l.incoming_begins(id)))
    }

    /// Forgets a QoS 2 packet id, with the batch that says so; None if it was not known.
    pub(crate) fn release(&mut self, id: u16, ledger: Option<&Ledger<'_>>) -> Option<u64> {
        let was = self.work.as_mut().is_some_and(|w| w.incoming.remove(&id));
        let batch = was.then(|| ledger.filter(|_| !self.is_ended).map_or(0, |l| l.incoming_ends(id)));
        self.tidy();
        batch
    }

    /// An idle session keeps nothing for work.
    fn tidy(&mut self) {
        if !self.is_signalled
            && let Some(idle) = self.work.take_if(|w| w.is_idle())
        {
            idle.spare();
        }
    }

    /// See [`crate::Router::has_unsent`].
    pub(crate) fn has_unsent(&self) -> bool {
        self.work.as_ref().is_some_and(|w| w.has_unsent())
    }

    /// Takes everything undelivered, oldest first: what was in flight, then what waited. What is on the disk alone is
    /// only counted if no other session could get it.
    pub(crate) fn take_undelivered(&mut self, now: Now, ledger: Option<&Ledger<'_>>) -> (Vec<Entry>, usize) {
        let is_shared = self.filters.iter().any(|f| f.group().is_some());
        let Some(ledger) = ledger else {
            return (self.work.take().map_or_else(Vec::new, |w| w.into_entries(now, None)), 0);
        };
        // What cannot be read is lost with the session.
        let _ = self.thaw(now, Some(ledger));
        let Some(work) = self.work.take() else { return (Vec::new(), 0) };
        if is_shared { (work.into_entries(now, Some(ledger)), 0) } else { (Vec::new(), work.undelivered()) }
    }

    /// Takes the QoS 1 entries of shared subscriptions, which other members may get.
    pub(crate) fn take_shared(&mut self, now: Now, ledger: Option<&Ledger<'_>>) -> Vec<Entry> {
        self.work.as_mut().map_or_else(Vec::new, |w| w.take_shared(now, ledger))
    }
}

/// What a message that is pushed needs to know.
pub(crate) struct To<'a> {
    pub(crate) now: Now,
    pub(crate) options: &'a Options,
    pub(crate) counts: &'a Counts,
    pub(crate) ledger: Option<Ledger<'a>>,
}

impl Session {
    /// Writes the session down as it is; `absent_since` is when its connection ended. The number of the batch.
    pub(crate) fn save(&self, state: &State, ledger: &Ledger<'_>, absent_since: Option<u64>) -> u64 {
        let parts = SessionParts {
            namespace: self.namespace(),
            mount: self.mount(),
            client_id: &self.client_id,
            principal: self.principal.as_deref(),
            expiry: state.expiry.time(),
            absent_since,
            will: state.will.as_deref(),
        };
        ledger.store.put(Key::new(Table::Sessions).number(ledger.session), encode_session(&parts))
    }
}
