//! The embedded router: topics, subscriptions, sessions, retained and delayed messages. Synchronous, without a task.
//!
//! Drivers call it and carry its [`Signal`]s to each other. A publisher's driver matches the topic (usually from its own
//! [`Matches`]) and pushes onto the queue of every session that matched, each under that session's lock; so a
//! publisher's order is kept for every subscriber, whether it is connected, offline or moving from one driver to
//! another. The first message for a session posts one signal to its driver, which then drains the session.
//!
//! Locks, in the order in which they may be taken together: a registry shard, a session, the timers; or the subscription
//! table, a group; or a group (read), a session. No two sessions, and no table with a session, are ever locked together.

mod config;
mod count;
mod list;
mod post;
mod registry;
mod retained;
mod rewrite;
mod routes;
mod session;
mod share;
mod timers;
mod tree;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gateway::topic::check_name;
use gateway::{
    Connect, Deliver, DeliveryId, Drop, Filter, Instant, Message, Now, Publisher, Qos, Refusal, Settle, Stop,
    Subscribe, Will,
};
use parking_lot::{Mutex, RwLock};

pub use config::{AutoSubscribe, OnFull, Options, Rewrite, RewriteAction, Strategy};
pub use count::Counts;
pub use list::{SessionInfo, Stats};
pub use post::{Attachment, Fast, Post, Signal};
pub use routes::Matches;
pub use session::Session;

use registry::Registry;
use retained::Retained;
use routes::{Joined, Route, Table};
use session::{Entry, Pushed, State};
use share::Group;
use timers::{Timer, Timers};

/// See the module.
pub struct Router {
    options: RwLock<Arc<Options>>,
    table: RwLock<Table>,
    /// Changes whenever a subscription does.
    epoch: AtomicU64,
    registry: Registry,
    retained: RwLock<Retained>,
    timers: Timers,
    counts: Counts,
    publishers: AtomicU64,
}

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

impl Router {
    /// An empty router.
    pub fn new(options: Options) -> Router {
        Router {
            options: RwLock::new(Arc::new(options)),
            table: RwLock::new(Table::default()),
            epoch: AtomicU64::new(1),
            registry: Registry::default(),
            retained: RwLock::new(Retained::default()),
            timers: Timers::default(),
            counts: Counts::default(),
            publishers: AtomicU64::new(1),
        }
    }

    /// Other options from now on; what is already kept stays.
    pub fn reload(&self, options: Options) {
        *self.options.write() = Arc::new(options);
    }

    /// Drops by reason.
    pub fn drops(&self) -> &Counts {
        &self.counts
    }

    fn options(&self) -> Arc<Options> {
        self.options.read().clone()
    }

    /// Opens the client's session at `at`, or takes it over from where it was connected (MQTT-3.1.4-3).
    ///
    /// Refused: `NotOwner` if it belongs to another principal, `QuotaExceeded` if there are too many.
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
        let expiry = connect.expiry.min(options.max_session_expiry);
        let credit = connect.credit.max(1);
        let mut will = connect.will.take();
        if let Some(will) = &mut will
            && !mount.is_empty()
        {
            will.message = will.message.with_topic(&format!("{mount}{}", will.message.topic()));
        }
        let mut shard = self.registry.shard(namespace, &connect.client_id);
        if let Some(old) = shard.find(namespace, &connect.client_id) {
            if old.principal != principal {
                return Err(Refusal::NotOwner);
            }
            let mut state = old.state.lock();
            if let Some(was) = state.at {
                post.signals.push((was, Signal::Stop(Stop::TakenOver)));
            }
            let old_will = state.will.take();
            // This connection closes the earlier one, and with it a session whose expiry is 0 (MQTT-3.1.2-6 of 3.1.1).
            let is_over = state.at.is_some() && state.expiry.is_zero();
            let is_resumed = !connect.clean_start && !is_over && *old.mount == *mount;
            // A will that was to wait is published now if its session ends (MQTT-3.1.2-8), and not at all if it goes on
            // (MQTT-3.1.3-9).
            let is_lost = |w: &Will| !is_resumed || (state.at.is_some() && w.delay.is_zero());
            let lost = old_will.filter(|w| is_lost(w));
            if is_resumed {
                state.attach(at, credit);
                state.expiry = expiry;
                state.will = will.take();
                state.signal(post);
            }
            drop(state);
            if is_resumed {
                drop(shard);
                self.publish_will(now, &old, lost, matches, post);
                self.auto_subscribe(now, &old, username, matches, post);
                return Ok(Opened { session: old, present: true });
            }
            shard.remove(&old);
            let session =
                self.make(namespace, connect, principal, mount, State::new(at, credit, expiry, will));
            shard.insert(session.clone());
            drop(shard);
            self.publish_will(now, &old, lost, matches, post);
            self.end(now, &old, post);
            self.auto_subscribe(now, &session, username, matches, post);
            return Ok(Opened { session, present: false });
        }
        if self.registry.len() >= options.max_sessions {
            return Err(Refusal::QuotaExceeded);
        }
        let session = self.make(namespace, connect, principal, mount, State::new(at, credit, expiry, will));
        shard.insert(session.clone());
        self.registry.added();
        drop(shard);
        self.auto_subscribe(now, &session, username, matches, post);
        Ok(Opened { session, present: false })
    }

    fn make(
        &self,
        namespace: &str,
        connect: &Connect,
        principal: Option<Arc<str>>,
        mount: Box<str>,
        state: State,
    ) -> Arc<Session> {
        Arc::new(Session {
            client_id: connect.client_id.clone(),
            namespace: self.registry.namespace(namespace),
            mount: if mount.is_empty() { self.registry.namespace("") } else { mount.into() },
            principal,
            publisher: Publisher(self.publishers.fetch_add(1, Ordering::Relaxed)),
            state: Mutex::new(state),
        })
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
        let mut state = session.state.lock();
        if state.at != Some(at) || state.is_ended {
            return;
        }
        state.detach();
        if let Some(expiry) = expiry {
            state.expiry = expiry.min(options.max_session_expiry);
        }
        let will = state.will.take().filter(|_| with_will);
        let expiry = state.expiry;
        let connection = state.connection;
        // A will waits for its delay or the session's end, whichever is first (MQTT-3.1.3-9).
        let (due, later) = match will {
            Some(w) if !w.delay.is_zero() && !expiry.is_zero() => (None, Some(w)),
            other => (other, None),
        };
        if let Some(w) = later {
            let at = now.instant + w.delay.min(expiry);
            state.will = Some(w);
            self.timers.set(at, Timer::Will(session.clone(), connection));
        }
        let moved = if options.redispatch_on_disconnect { state.take_shared() } else { Vec::new() };
        drop(state);
        self.publish_will(now, session, due, matches, post);
        self.redispatch(moved, &options, post);
        if expiry.is_zero() {
            self.registry.shard(&session.namespace, &session.client_id).forget(&self.registry, session);
            self.end(now, session, post);
        } else if expiry != Duration::MAX {
            self.timers.set(now.instant + expiry, Timer::Expire(session.clone(), connection));
        }
    }

    /// Another session expiry for a connected session.
    pub fn set_expiry(&self, _: Now, session: &Session, expiry: Duration) {
        let most = self.options().max_session_expiry;
        session.state.lock().expiry = expiry.min(most);
    }

    /// Ends a session that is in no connection: its subscriptions go, and what it had not received is dropped and counted,
    /// but for QoS 1 of shared subscriptions, which other members get (4.8.2).
    fn end(&self, now: Now, session: &Arc<Session>, post: &mut Post) {
        let (filters, undelivered) = {
            let mut state = session.state.lock();
            state.is_ended = true;
            state.at = None;
            (std::mem::take(&mut state.filters), state.take_undelivered())
        };
        if !filters.is_empty() {
            let mut table = self.table.write();
            for filter in &filters {
                table.unsubscribe(session, filter);
            }
            drop(table);
            self.epoch.fetch_add(1, Ordering::Release);
        }
        let (moved, lost): (Vec<_>, Vec<_>) = undelivered
            .into_iter()
            .filter(|e| !e.message.is_expired(now.instant))
            .partition(|e| e.via.is_some() && e.qos == Qos::AtLeastOnce);
        for _ in lost.iter().filter(|e| e.qos > Qos::AtMostOnce) {
            self.counts.dropped(Drop::SessionEnded);
        }
        self.redispatch(moved, &self.options(), post);
    }

    fn redispatch(&self, entries: Vec<Entry>, options: &Options, post: &mut Post) {
        for entry in entries {
            let Some(group) = entry.via.clone() else { continue };
            if !matches!(self.share(&group, &entry.message, options, post), Pushed::Queued) {
                self.counts.dropped(Drop::SessionEnded);
            }
        }
    }

    fn publish_will(
        &self,
        now: Now,
        session: &Session,
        will: Option<Box<Will>>,
        m: &mut Matches,
        post: &mut Post,
    ) {
        if let Some(will) = will {
            let message = will.message.with_published(now).with_publisher(session.publisher);
            // Nobody is left to be told that a will was refused; the drop is counted where it happens.
            let _ = self.route(now, message, m, post);
        }
    }

    /// Publishes a message of `from`, or of the gateway itself, and returns how many subscriptions it matched.
    ///
    /// `once` is the packet id of a QoS 2 message: it is published when it comes first, and not again until it was
    /// released (MQTT-4.3.3-10).
    ///
    /// Refused: `TopicName` for a malformed `$delayed` or rewritten topic, `QuotaExceeded` if a queue is full and refuses.
    pub fn publish(
        &self,
        now: Now,
        from: Option<&Session>,
        message: Message,
        once: Option<u16>,
        matches: &mut Matches,
        post: &mut Post,
    ) -> Result<usize, Refusal> {
        let mut message = message;
        if let Some(session) = from {
            if let Some(id) = once
                && !session.state.lock().begin_once(id)
            {
                return Ok(1);
            }
            message = message.with_publisher(session.publisher);
            let options = self.options.read();
            if !options.rewrite.is_empty() || !session.mount.is_empty() {
                let renamed =
                    rewrite::name(&options.rewrite, message.topic(), &session.client_id, &session.mount);
                drop(options);
                if let Some(topic) = renamed {
                    check_name(&topic).map_err(|_| Refusal::TopicName)?;
                    message = message.with_topic(&topic);
                }
            }
        }
        let published = if message.topic().starts_with("$delayed/") {
            self.delay(now, &message)
        } else {
            self.route(now, message, matches, post)
        };
        if published.is_err()
            && let (Some(session), Some(id)) = (from, once)
        {
            session.state.lock().release(id);
        }
        published
    }

    /// `$delayed/{seconds}/{topic}`.
    fn delay(&self, now: Now, message: &Message) -> Result<usize, Refusal> {
        let options = self.options();
        let rest = message.topic().strip_prefix("$delayed/").ok_or(Refusal::TopicName)?;
        let (seconds, topic) = rest.split_once('/').ok_or(Refusal::TopicName)?;
        let delay = seconds.parse().map(Duration::from_secs).map_err(|_| Refusal::TopicName)?;
        if delay > options.max_delay || check_name(topic).is_err() || topic.starts_with("$delayed/") {
            return Err(Refusal::TopicName);
        }
        let message = message.with_topic(topic);
        if !self.timers.delay(now.instant + delay, message, options.max_delayed, options.max_delayed_bytes) {
            self.counts.dropped(Drop::DelayedFull);
            return Err(Refusal::QuotaExceeded);
        }
        Ok(1)
    }

    /// To everybody who subscribed, and to the retained messages.
    fn route(
        &self,
        now: Now,
        message: Message,
        matches: &mut Matches,
        post: &mut Post,
    ) -> Result<usize, Refusal> {
        let options = self.options.read().clone();
        if message.retain() {
            self.retain(&message, &options);
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let is_own = message.publisher() == Publisher::NONE;
        let routes = matches.find(epoch, message.topic(), is_own, |topic| self.table.read().routes(topic));
        let mut refused = false;
        for route in &routes.plain {
            refused |= self.offer(now, route, &message, &options, post) == Pushed::Refused;
        }
        for group in &routes.groups {
            refused |= self.share(group, &message, &options, post) == Pushed::Refused;
        }
        if refused { Err(Refusal::QuotaExceeded) } else { Ok(routes.len()) }
    }

    fn offer(&self, _: Now, route: &Route, message: &Message, options: &Options, post: &mut Post) -> Pushed {
        let session = &route.session;
        if route.options.no_local && message.publisher() == session.publisher {
            return Pushed::Dropped;
        }
        let retain = route.options.retain_as_published && message.retain();
        if route.options.is_fast {
            let Some(at) = session.state.lock().at else { return Pushed::Dropped };
            let (message, mount, ids) = (message.clone(), session.mount.clone(), route.ids.clone());
            post.signals.push((at, Signal::Fast(Fast { message, retain, mount, ids })));
            return Pushed::Queued;
        }
        let qos = message.qos().min(route.options.qos);
        let entry = Entry { message: message.clone(), qos, retain, ids: route.ids.clone(), via: None };
        session.state.lock().push(entry, options, &self.counts, post)
    }

    fn share(&self, group: &Arc<Group>, message: &Message, options: &Options, post: &mut Post) -> Pushed {
        let mut result = Pushed::Ended;
        for member in group.order(message, options) {
            let qos = message.qos().min(member.options.qos);
            let ids = (member.identifier != 0).then(|| Arc::from([member.identifier].as_slice()));
            let retain = member.options.retain_as_published && message.retain();
            if member.options.is_fast {
                let Some(at) = member.session.state.lock().at else { continue };
                let (message, mount) = (message.clone(), member.session.mount.clone());
                post.signals.push((at, Signal::Fast(Fast { message, retain, mount, ids })));
                return Pushed::Queued;
            }
            let entry = Entry { message: message.clone(), qos, retain, ids, via: Some(group.clone()) };
            result = member.session.state.lock().push(entry, options, &self.counts, post);
            if result == Pushed::Queued {
                break;
            }
        }
        result
    }

    fn retain(&self, message: &Message, options: &Options) {
        let is_kept = self.retained.write().set(message, options, &self.counts);
        if is_kept
            && !message.payload().is_empty()
            && let Some(at) = message.expires()
        {
            self.timers.set(at, Timer::Retained(message.topic().into()));
        }
    }

    /// The client has released a QoS 2 message it published; false if there was none with this id.
    pub fn release(&self, session: &Session, id: u16) -> bool {
        session.state.lock().release(id)
    }

    /// Subscribes and queues the retained messages that the subscription asks for.
    ///
    /// Refused: `TopicFilter`, `QuotaExceeded` (too many subscriptions), `ExclusiveTaken`, `NoSession` (ended).
    pub fn subscribe(
        &self,
        now: Now,
        session: &Arc<Session>,
        subscribe: Subscribe,
        _: &mut Matches,
        post: &mut Post,
    ) -> Result<Qos, Refusal> {
        let options = self.options();
        let mut subscribe = subscribe;
        let filter =
            rewrite::filter(&options.rewrite, &subscribe.filter, &session.client_id, &session.mount)?;
        if filter.is_fastlane() {
            if !session.state.lock().expiry.is_zero() {
                return Err(Refusal::TopicFilter);
            }
            subscribe.qos = Qos::AtMostOnce;
        }
        {
            // The session's own list first: one that ends meanwhile finds the filter there and removes it.
            let mut state = session.state.lock();
            if state.is_ended {
                return Err(Refusal::NoSession);
            }
            if !state.filters.contains(&filter) {
                if state.filters.len() >= options.max_subscriptions {
                    return Err(Refusal::QuotaExceeded);
                }
                if state.filters.is_empty() {
                    // Most clients have one.
                    state.filters.reserve_exact(1);
                }
                state.filters.push(filter.clone());
            }
        }
        let joined = self.table.write().subscribe(session, &filter, &subscribe);
        self.epoch.fetch_add(1, Ordering::Release);
        if joined == Joined::Taken {
            session.state.lock().filters.retain(|f| *f != filter);
            return Err(Refusal::ExclusiveTaken);
        }
        if session.state.lock().is_ended {
            self.table.write().unsubscribe(session, &filter);
            self.epoch.fetch_add(1, Ordering::Release);
            return Err(Refusal::NoSession);
        }
        let wants = match subscribe.retain_handling {
            0 => true,
            1 => joined == Joined::New,
            _ => false,
        };
        if wants && filter.group().is_none() {
            self.send_retained(now, session, &filter, &subscribe, &options, post);
        }
        Ok(subscribe.qos)
    }

    fn send_retained(
        &self,
        now: Now,
        session: &Session,
        filter: &Filter,
        subscribe: &Subscribe,
        options: &Options,
        post: &mut Post,
    ) {
        let found = self.retained.read().find(filter.plain(), now.instant, options.max_queued);
        let ids: Option<Arc<[u32]>> =
            (subscribe.identifier != 0).then(|| Arc::from([subscribe.identifier].as_slice()));
        let mut state = session.state.lock();
        for message in found {
            if subscribe.no_local && message.publisher() == session.publisher {
                continue;
            }
            let qos = message.qos().min(subscribe.qos);
            let entry = Entry { message, qos, retain: true, ids: ids.clone(), via: None };
            // The subscription stands even if not all of it fits; what was dropped is counted.
            state.push(entry, options, &self.counts, post);
        }
    }

    fn auto_subscribe(
        &self,
        now: Now,
        session: &Arc<Session>,
        user: Option<&str>,
        m: &mut Matches,
        post: &mut Post,
    ) {
        let options = self.options();
        for auto in &options.auto_subscribe {
            let Some(text) = rewrite::fill(&auto.filter, &session.client_id, user) else { continue };
            let Ok(filter) = Filter::parse(&text) else { continue };
            let subscribe = Subscribe {
                filter,
                qos: auto.qos,
                no_local: auto.no_local,
                retain_as_published: auto.retain_as_published,
                retain_handling: auto.retain_handling,
                identifier: 0,
            };
            // A full session, or an exclusive filter that somebody holds, is no reason to refuse the connection.
            let _ = self.subscribe(now, session, subscribe, m, post);
        }
    }

    /// Unsubscribes; false if there was no such subscription.
    pub fn unsubscribe(&self, session: &Arc<Session>, filter: &Filter) -> Result<bool, Refusal> {
        let options = self.options();
        let filter = rewrite::filter(&options.rewrite, filter, &session.client_id, &session.mount)?;
        let was = {
            let mut state = session.state.lock();
            let before = state.filters.len();
            state.filters.retain(|f| *f != filter);
            state.filters.len() < before
        };
        if was {
            self.table.write().unsubscribe(session, &filter);
            self.epoch.fetch_add(1, Ordering::Release);
        }
        Ok(was)
    }

    /// A delivery ended (PUBACK, PUBCOMP, or refused).
    pub fn settle(&self, _: Now, session: &Session, id: DeliveryId, how: Settle, post: &mut Post) -> bool {
        session.state.lock().settle(id, how, &self.counts, post)
    }

    /// The client has received a QoS 2 delivery (PUBREC); false if there is none with this id.
    pub fn receive(&self, session: &Session, id: DeliveryId) -> bool {
        session.state.lock().receive(id)
    }

    /// Hands over what the session has, while it has credit and `hand` says that there is room: first what was in flight
    /// when the connection began, then the queue. Returns whether there was more when there was no room: then no signal
    /// follows, and the driver calls again when there is.
    pub fn drain(
        &self,
        now: Now,
        session: &Session,
        at: Attachment,
        hand: impl FnMut(&Deliver<'_>) -> bool,
    ) -> bool {
        let mut state = session.state.lock();
        if state.at != Some(at) {
            return false;
        }
        state.drain(now.instant, &session.mount, &self.counts, hand)
    }

    /// Retained messages that the filter matches, at most `limit`.
    pub fn retained(&self, now: Now, filter: &Filter, limit: usize) -> Vec<Message> {
        self.retained.read().find(filter.plain(), now.instant, limit)
    }

    /// Whether anybody would get a message on this topic.
    pub fn has_subscribers(&self, topic: &str, matches: &mut Matches) -> bool {
        let epoch = self.epoch.load(Ordering::Acquire);
        matches.find(epoch, topic, true, |topic| self.table.read().routes(topic)).len() > 0
    }

    /// When [`timeout`](Self::timeout) has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Publishes delayed messages and wills that are due, ends sessions and forgets retained messages that have expired.
    pub fn timeout(&self, now: Now, matches: &mut Matches, post: &mut Post) {
        while let Some(timer) = self.timers.pop(now.instant) {
            match timer {
                Timer::Delayed(message) => {
                    // Its publisher was told long ago; what cannot be queued now is counted where it is dropped.
                    let _ = self.route(now, message.with_published(now), matches, post);
                }
                Timer::Retained(topic) => self.retained.write().expire(&topic, now.instant),
                Timer::Will(session, connection) => {
                    let will = {
                        let mut state = session.state.lock();
                        let is_due = state.connection == connection && state.at.is_none();
                        if is_due { state.will.take() } else { None }
                    };
                    self.publish_will(now, &session, will, matches, post);
                }
                Timer::Expire(session, connection) => {
                    let mut shard = self.registry.shard(&session.namespace, &session.client_id);
                    let will = {
                        let mut state = session.state.lock();
                        if state.connection != connection || state.at.is_some() || state.is_ended {
                            continue;
                        }
                        state.is_ended = true;
                        state.will.take()
                    };
                    shard.forget(&self.registry, &session);
                    drop(shard);
                    self.publish_will(now, &session, will, matches, post);
                    self.end(now, &session, post);
                }
            }
        }
    }

    /// Ends a session wherever it is: its connection is stopped, nothing of it is kept. False if there is none.
    pub fn kick(&self, now: Now, namespace: &str, client_id: &str, post: &mut Post) -> bool {
        let mut shard = self.registry.shard(namespace, client_id);
        let Some(session) = shard.find(namespace, client_id) else { return false };
        let at = session.state.lock().at;
        if let Some(at) = at {
            post.signals.push((at, Signal::Stop(Stop::Kicked)));
            return true;
        }
        shard.forget(&self.registry, &session);
        drop(shard);
        self.end(now, &session, post);
        true
    }
}
