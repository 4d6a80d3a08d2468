//! How sessions begin, go on and end.
//!
//! ```text
//! connect -> connected <-------- connect (resumed) --------- absent -> expiry -> ended
//!                |  ^ connect (taken over)                     ^
//!                |  +--+                                       |
//!                +-- disconnect, expiry > 0 -------------------+
//!                +-- disconnect, expiry 0; connect with clean start -----------> ended
//! ```
//!
//! A session that outlives its connection is durable: the store has it from its first connection on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gateway::topic::check_name;
use gateway::{Connect, Drop, Message, Now, Publisher, Qos, Refusal, Stop, Will};
use parking_lot::Mutex;

use crate::Router;
use crate::config::Options;
use crate::ledger::{Keeping, Ledger};
use crate::matches::Matches;
use crate::post::{Attachment, Post, Signal};
use crate::queue::{Entry, Pushed};
use crate::session::{Absence, Expiry, Session, State};
use crate::timers::{Delayed, Key, Timer};

/// What a client brings to [`Router::connect`].
pub struct Open<'a> {
    /// Its request; the will is taken out.
    pub connect: &'a mut Connect,
    /// Client ids are unique within it.
    pub namespace: &'a str,
    /// Who owns the session; None is nobody in particular.
    pub principal: Option<Arc<str>>,
    /// Its user name, for `%u` in rules.
    pub username: Option<&'a str>,
    /// Prefix of all its topics.
    pub mount: Box<str>,
}

/// What came of [`Router::connect`].
pub struct Opened {
    /// The session.
    pub session: Arc<Session>,
    /// Whether it was there before (Session Present).
    pub present: bool,
}

/// Filters that leave the subscription table under one lock, so that a large session's end lets others in between.
const AT_ONCE: usize = 256;

impl Router {
    /// Opens the client's session at `at`, or takes it over from where it was connected (MQTT-3.1.4-3).
    ///
    /// Refused: `TopicName` if a will's topic is too long behind the mountpoint, `NotOwner` if it belongs to another principal, `QuotaExceeded` if there are too many, `NotKept` if it is
    /// durable and the store cannot read or write it.
    pub fn connect(
        &self,
        now: Now,
        at: Attachment,
        open: Open<'_>,
        matches: &mut Matches,
        post: &mut Post,
    ) -> Result<Opened, Refusal> {
        let options = self.options();
        let Open { connect, namespace, principal, username, mount } = open;
        let client_id = &*connect.client_id;
        let expiry = Expiry::of(connect.expiry.min(options.max_session_expiry));
        let credit = connect.credit.clamp(1, options.max_inflight);
        let will = connect.will.take().map(|will| mounted(will, &mount));
        if will.as_ref().is_some_and(|w| check_name(w.message.topic()).is_err()) {
            return Err(Refusal::TopicName);
        }
        self.thaw(now, namespace, client_id);
        // A session that is there goes on even while nothing can be written; a new one could not be promised.
        let cannot_begin = !expiry.is_zero() && !self.can_keep();
        let _together = self.together();
        let mut shard = self.registry.shard(namespace, client_id);
        let old = shard.find(namespace, client_id);
        let mut ended = None;
        if let Some(old) = old {
            let mut state = old.state.lock();
            // One that is ended is on its way out: whoever ended it has not come to the registry yet.
            if !state.is_ended {
                if old.principal != principal {
                    return Err(Refusal::NotOwner);
                }
                // This connection closes the earlier one, and with it a session whose expiry is 0 (MQTT-3.1.2-6 of 3.1.1).
                // So does a deadline that has passed and was not looked at yet.
                // One that only moves is not closed.
                let before = connect.moved_from.map(|peer| Attachment { driver: at.driver, peer });
                let moves = before.is_some() && state.at == before;
                let is_over = (!moves && state.at.is_some() && state.expiry.is_zero())
                    || state.absence.as_ref().is_some_and(|a| a.ends_at.is_some_and(|at| at <= now.instant));
                let is_resumed = !connect.clean_start && !is_over && *old.mount() == *mount;
                if !is_resumed && cannot_begin {
                    return Err(Refusal::NotKept);
                }
                let ledger = self.ledger(&old);
                if is_resumed && let Err(error) = state.thaw(now, ledger.as_ref()) {
                    tracing::warn!(%error, client_id, "a session cannot be read");
                    return Err(Refusal::NotKept);
                }
                let lost = self.displace(now, &mut state, is_resumed, post).filter(|_| !moves);
                if is_resumed {
                    state.attach(at, credit, expiry, will);
                    if let Some(ledger) = &ledger {
                        let batch = old.save(&state, ledger, None);
                        post.wait_for(if self.can_keep() { batch } else { 0 });
                    }
                    state.signal(post);
                    drop(state);
                    drop(shard);
                    self.publish_will(now, &old, lost, matches, post);
                    self.auto_subscribe(now, &old, username, post);
                    return Ok(Opened { session: old, present: true });
                }
                state.is_ended = true;
                state.at = None;
                if let Some(ledger) = &ledger {
                    post.wait_for(ledger.store.end(ledger.session));
                }
                ended = Some((old.clone(), lost));
            }
            drop(state);
            shard.remove(&old);
        }
        if ended.is_none() {
            if self.registry.len() >= options.max_sessions {
                return Err(Refusal::QuotaExceeded);
            }
            if cannot_begin {
                return Err(Refusal::NotKept);
            }
        }
        let is_durable = self.store().is_some() && !expiry.is_zero();
        let session = Arc::new(Session {
            client_id: connect.client_id.clone(),
            realm: self.registry.realm(namespace, mount, is_durable),
            principal,
            publisher: Publisher(self.number()),
            state: Mutex::new(State::new(at, credit, expiry, will)),
        });
        if let Some(ledger) = self.ledger(&session) {
            post.wait_for(session.save(&session.state.lock(), &ledger, None));
        }
        shard.insert(session.clone());
        drop(shard);
        if let Some((old, lost)) = ended {
            self.publish_will(now, &old, lost, matches, post);
            self.clear(now, &old, post);
        }
        self.auto_subscribe(now, &session, username, post);
        Ok(Opened { session, present: false })
    }

    /// Reads back what a session has to deliver, before others have to wait for it.
    fn thaw(&self, now: Now, namespace: &str, client_id: &str) {
        if self.store().is_none() {
            return;
        }
        let old = self.registry.shard(namespace, client_id).find(namespace, client_id);
        if let Some(old) = old {
            let ledger = self.ledger(&old);
            // Whether it cannot be read is seen where it is needed.
            let _ = old.state.lock().thaw(now, ledger.as_ref());
        }
    }

    /// Stops the session's connection, if it has one, and returns the will that is published for it. One that was to wait
    /// is published now if the session ends (MQTT-3.1.2-8), and not at all if it goes on (MQTT-3.1.3-9).
    fn displace(&self, now: Now, state: &mut State, is_resumed: bool, post: &mut Post) -> Option<Box<Will>> {
        let mut is_due = false;
        if let Some(absence) = state.absence.take() {
            self.timers.cancel(absence.key);
            is_due = absence.will_at.is_some_and(|at| at <= now.instant);
        }
        let was = state.at;
        if let Some(at) = was {
            post.signals.push((at, Signal::Stop(Stop::TakenOver)));
        }
        state.will.take().filter(|w| !is_resumed || is_due || (was.is_some() && w.delay.is_zero()))
    }

    /// Replaces the will of a session that is connected, or takes it back.
    ///
    /// Refused: `TopicName` if its topic is too long behind the mountpoint, `NoSession` if the session has ended, `NotKept` if it is durable and
    /// cannot be written.
    pub fn set_will(
        &self,
        session: &Session,
        will: Option<Box<Will>>,
        post: &mut Post,
    ) -> Result<(), Refusal> {
        let will = will.map(|will| mounted(will, session.mount()));
        if will.as_ref().is_some_and(|w| check_name(w.message.topic()).is_err()) {
            return Err(Refusal::TopicName);
        }
        let ledger = self.ledger(session);
        if ledger.is_some() && !self.can_keep() {
            return Err(Refusal::NotKept);
        }
        let mut state = session.state.lock();
        if state.is_ended || state.at.is_none() {
            return Err(Refusal::NoSession);
        }
        state.will = will;
        if let Some(ledger) = &ledger {
            post.wait_for(session.save(&state, ledger, None));
        }
        Ok(())
    }

    /// Whether something waits for the session that was not handed over yet.
    pub fn has_unsent(&self, session: &Session) -> bool {
        session.state.lock().has_unsent()
    }

    /// The session's connection at `at` is over. Does nothing if the session is connected elsewhere by now.
    #[expect(clippy::too_many_arguments, reason = "what happened, to whom, and where its consequences go")]
    pub fn disconnect(
        &self,
        now: Now,
        session: &Arc<Session>,
        at: Attachment,
        with_will: bool,
        expiry: Option<Duration>,
        matches: &mut Matches,
        post: &mut Post,
    ) {
        let options = self.options();
        let ledger = self.ledger(session);
        let _together = self.together();
        let mut state = session.state.lock();
        if state.at != Some(at) || state.is_ended {
            return;
        }
        if let Some(expiry) = expiry {
            state.expiry = Expiry::of(expiry.min(options.max_session_expiry));
        }
        if !with_will {
            state.will = None;
        }
        let (will_at, ends_at) = state.detach(now.instant);
        let is_due = will_at.is_some_and(|at| at <= now.instant);
        let will = if is_due { state.will.take() } else { None };
        // From here on nobody resumes a session that ends with its connection.
        state.is_ended = state.expiry.is_zero();
        let is_ended = state.is_ended;
        if !is_ended {
            self.wait(&mut state, session, now.wall_ms, will_at.filter(|_| !is_due), ends_at);
        }
        match &ledger {
            Some(ledger) if is_ended => ledger.store.end(ledger.session),
            Some(ledger) => session.save(&state, ledger, Some(now.wall_ms)),
            None => 0,
        };
        let moved = if options.redispatch_on_disconnect && !is_ended {
            state.take_shared(now, ledger.as_ref())
        } else {
            Vec::new()
        };
        drop(state);
        self.publish_will(now, session, will, matches, post);
        self.redispatch(now, moved, ledger.as_ref(), &options, post);
        if is_ended {
            self.end(now, session, post);
        }
    }

    /// Sets the deadline of an absent session, if time has something to do with it.
    pub(crate) fn wait(
        &self,
        state: &mut State,
        session: &Arc<Session>,
        since: u64,
        will_at: Option<gateway::Instant>,
        ends_at: Option<gateway::Instant>,
    ) {
        let Some(next) = [will_at, ends_at].into_iter().flatten().min() else { return };
        let key = self.timers.set(next, Timer::Absent(session.clone()));
        state.absence = Some(Box::new(Absence { key, since, will_at, ends_at }));
    }

    /// The deadline of an absent session has come, unless the session has been connected since.
    pub(crate) fn absent(
        &self,
        now: Now,
        session: &Arc<Session>,
        key: Key,
        matches: &mut Matches,
        post: &mut Post,
    ) {
        let mut state = session.state.lock();
        let Some(absence) = state.absence.take_if(|a| a.key == key) else { return };
        let is_past = |at: Option<gateway::Instant>| at.is_some_and(|at| at <= now.instant);
        let will = if is_past(absence.will_at) { state.will.take() } else { None };
        let is_ended = is_past(absence.ends_at);
        let ledger = self.ledger(session);
        if is_ended {
            state.is_ended = true;
            if let Some(ledger) = &ledger {
                ledger.store.end(ledger.session);
            }
        } else {
            let will_at = absence.will_at.filter(|_| will.is_none());
            self.wait(&mut state, session, absence.since, will_at, absence.ends_at);
            if let (Some(_), Some(ledger)) = (&will, &ledger) {
                session.save(&state, ledger, Some(absence.since));
            }
        }
        drop(state);
        self.publish_will(now, session, will, matches, post);
        if is_ended {
            self.end(now, session, post);
        }
    }

    /// Another session expiry for a connected session. One that was opened to end with its connection may outlive it from now
    /// on, but not the process.
    pub fn set_expiry(&self, _: Now, session: &Session, expiry: Duration) {
        let most = self.options().max_session_expiry;
        let mut state = session.state.lock();
        state.expiry = Expiry::of(expiry.min(most));
        if let Some(ledger) = self.ledger(session).filter(|_| !state.is_ended) {
            session.save(&state, &ledger, None);
        }
    }

    /// The operator ends a client's connection, or the session of a client that has none: its will is published, and
    /// nothing of it is kept. False if there is no such client.
    pub fn kick(&self, now: Now, namespace: &str, client_id: &str, post: &mut Post) -> bool {
        let found = self.registry.shard(namespace, client_id).find(namespace, client_id);
        let Some(session) = found else { return false };
        let _together = self.together();
        let mut state = session.state.lock();
        if let Some(at) = state.at {
            post.signals.push((at, Signal::Stop(Stop::Kicked)));
            return true;
        }
        if state.is_ended {
            return false;
        }
        state.is_ended = true;
        if let Some(ledger) = self.ledger(&session) {
            ledger.store.end(ledger.session);
        }
        if let Some(absence) = state.absence.take() {
            self.timers.cancel(absence.key);
        }
        let will = state.will.take();
        drop(state);
        self.publish_will(now, &session, will, &mut Matches::default(), post);
        self.end(now, &session, post);
        true
    }

    /// Forgets a session that was marked as ended.
    fn end(&self, now: Now, session: &Arc<Session>, post: &mut Post) {
        self.registry.shard(session.namespace(), session.client_id()).remove(session);
        self.clear(now, session, post);
    }

    /// Its subscriptions go, and what it had not received is dropped and counted, but for QoS 1 of shared subscriptions,
    /// which other members get (MQTT-4.8.2-5; QoS 2 is lost by MQTT-4.8.2-4).
    fn clear(&self, now: Now, session: &Arc<Session>, post: &mut Post) {
        let ledger = self.ledger(session);
        self.facts.forget(session);
        let (filters, undelivered, unread) = {
            let mut state = session.state.lock();
            let (undelivered, unread) = state.take_undelivered(now, ledger.as_ref());
            (std::mem::take(&mut state.filters), undelivered, unread)
        };
        for filters in filters.chunks(AT_ONCE) {
            let mut table = self.table.write();
            for filter in filters {
                table.unsubscribe(session, filter);
            }
        }
        if !filters.is_empty() {
            self.epoch.fetch_add(1, Ordering::Release);
        }
        let (moved, lost): (Vec<_>, Vec<_>) = undelivered
            .into_iter()
            .filter(|e| !e.message.is_expired(now.instant))
            .partition(Entry::is_movable);
        for _ in 0..unread + lost.iter().filter(|e| e.qos > Qos::AtMostOnce).count() {
            self.counts.dropped(Drop::SessionEnded);
        }
        // Its records go with the session.
        self.redispatch(now, moved, None, &self.options(), post);
    }

    /// Gives messages to other members of their groups, and removes their records `from` where they were.
    fn redispatch(
        &self,
        now: Now,
        entries: Vec<Entry>,
        from: Option<&Ledger<'_>>,
        options: &Options,
        post: &mut Post,
    ) {
        for entry in entries {
            let group = entry.via.as_deref().and_then(|filter| self.table.read().group(filter));
            let pushed = group.map(|group| {
                let mut keeping = Keeping::new(self.store(), &entry.message, false);
                self.share(now, &group, &entry.message, options, &mut keeping, post)
            });
            if !matches!(pushed, Some(Pushed::Queued)) {
                self.counts.dropped(Drop::SessionEnded);
            }
            if let Some(from) = from {
                from.remove(&entry);
            }
        }
    }

    fn publish_will(
        &self,
        now: Now,
        session: &Session,
        will: Option<Box<Will>>,
        matches: &mut Matches,
        post: &mut Post,
    ) {
        if let Some(will) = will {
            // Its expiry counts from here (MQTT 5.0, 3.1.3.2.4).
            let message: Message = will.message.with_published(now).with_publisher(session.publisher);
            // Nobody is left to be told that a will was refused; the drop is counted where it happens. One that cannot be
            // kept now is published when it can.
            if self.admit(now, message.clone(), matches, post) == Err(Refusal::NotKept) {
                self.delay_again(now, Delayed { message, serial: None });
            }
        }
    }
}

fn mounted(mut will: Box<Will>, mount: &str) -> Box<Will> {
    if !mount.is_empty() {
        will.message = will.message.with_topic(&crate::rewrite::mounted(will.message.topic(), mount));
    }
    will
}
