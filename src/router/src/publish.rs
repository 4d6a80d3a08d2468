//! From a publisher to the queues of everybody who subscribed, and to the retained messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gateway::topic::check_name;
use gateway::{Drop, Message, Now, Publisher, Qos, Refusal};
use store::{Key, Store, Table};

use crate::config::Options;
use crate::ledger::Keeping;
use crate::matches::Matches;
use crate::members::Member;
use crate::post::{Fast, Post, Signal};
use crate::queue::{Entry, Pushed};
use crate::record::encode_delayed;
use crate::routes::{Route, Routes};
use crate::session::{Session, To};
use crate::share::Group;
use crate::timers::{Delayed, Timer};
use crate::{Router, retained, rewrite};

/// Deadlines that one call of [`Router::timeout`] handles; a driver has other work between.
const BUDGET: usize = 1024;
/// After so long a message that could not be kept is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl Router {
    /// Publishes a message of `from`, or of the gateway itself, and returns how many subscriptions it matched.
    ///
    /// `once` is the packet id of a QoS 2 message: it is published when it comes first, and not again until it was
    /// released (MQTT-4.3.3-10).
    ///
    /// Refused: `TopicName` for a malformed `$delayed` or rewritten topic, `QuotaExceeded` if a queue is full and refuses;
    /// then other subscribers may have it. `NotKept` if a durable session would get it and the store has no room or cannot
    /// write; then nobody has it.
    pub fn publish(
        &self,
        now: Now,
        from: Option<&Session>,
        message: Message,
        once: Option<u16>,
        matches: &mut Matches,
        post: &mut Post,
    ) -> Result<usize, Refusal> {
        // What a publisher is told of is on the disk as a whole or not at all.
        let _together = if message.qos() > Qos::AtMostOnce { self.together() } else { None };
        let Some(session) = from else { return self.admit(now, message, matches, post) };
        let mut message = message.with_publisher(session.publisher);
        let renamed = {
            let options = self.options.read();
            let is_plain = options.rewrite.is_empty() && session.mount().is_empty();
            if is_plain { None } else { rewrite::name(&options.rewrite, message.topic(), session) }
        };
        if let Some(topic) = renamed {
            check_name(&topic).map_err(|_| Refusal::TopicName)?;
            message = message.with_topic(&topic);
        }
        let Some(id) = once else { return self.admit(now, message, matches, post) };
        let ledger = self.ledger(session);
        let Some(batch) = session.state.lock().begin_once(id, ledger.as_ref()) else {
            self.counts.dropped(Drop::Duplicate);
            // The first may still be on its way to the disk.
            post.wait_for(self.store().map_or(0, Store::latest));
            return Ok(1);
        };
        post.wait_for(batch);
        let published = self.admit(now, message, matches, post);
        if published.is_err() {
            session.state.lock().release(id, ledger.as_ref());
        }
        published
    }

    /// The name under which subscribers get what the session publishes to `topic`, without the delay in front.
    pub fn name(&self, session: &Session, topic: &str) -> String {
        let renamed = rewrite::name(&self.options.read().rewrite, topic, session);
        let name = renamed.as_deref().unwrap_or(topic);
        rewrite::split_delayed(name).1.to_owned()
    }

    /// Publishes now or, under `$delayed`, later.
    pub(crate) fn admit(
        &self,
        now: Now,
        message: Message,
        matches: &mut Matches,
        post: &mut Post,
    ) -> Result<usize, Refusal> {
        match message.topic().strip_prefix("$delayed/") {
            Some(rest) => self.delay(now, &message, rest, post),
            None => self.route(now, message, matches, post),
        }
    }

    /// `$delayed/{seconds}/{topic}`.
    fn delay(&self, now: Now, message: &Message, rest: &str, post: &mut Post) -> Result<usize, Refusal> {
        let options = self.options();
        let (seconds, topic) = rest.split_once('/').ok_or(Refusal::TopicName)?;
        let delay = seconds.parse().map(Duration::from_secs).map_err(|_| Refusal::TopicName)?;
        if delay > options.max_delay || check_name(topic).is_err() || topic.starts_with("$delayed/") {
            return Err(Refusal::TopicName);
        }
        let message = message.with_topic(topic);
        // QoS 0 is not kept over a restart.
        let store = self.store().filter(|_| message.qos() > Qos::AtMostOnce);
        if store.is_some_and(|s| !s.has_room()) {
            self.counts.dropped(Drop::StoreFull);
            return Err(Refusal::NotKept);
        }
        let serial = store.map(Store::number);
        let key = serial.map(|serial| Key::new(Table::Delayed).number(serial));
        // Written first: another driver may find it due at once.
        if let (Some(store), Some(key)) = (store, key.clone()) {
            let due = now.after(delay).wall_ms;
            post.wait_for(store.put_new(key, encode_delayed(due, &message)));
        }
        let delayed = Delayed { message, serial };
        if !self.timers.delay(now.instant + delay, delayed, options.max_delayed, options.max_delayed_bytes) {
            if let (Some(store), Some(key)) = (store, key) {
                store.delete(key);
            }
            self.counts.dropped(Drop::DelayedFull);
            return Err(Refusal::QuotaExceeded);
        }
        Ok(1)
    }

    /// Something that was promised could not be kept: it is tried again, in its order.
    pub(crate) fn delay_again(&self, now: Now, delayed: Delayed) {
        let mut overdue = self.overdue.lock();
        overdue.push_back(delayed);
        if overdue.len() == 1 {
            self.timers.set(now.instant + AGAIN, Timer::Overdue);
        }
    }

    /// Publishes a delayed message whose time has come; gives it back if it cannot be kept at present.
    fn due(&self, now: Now, delayed: Delayed, matches: &mut Matches, post: &mut Post) -> Result<(), Delayed> {
        // Its publisher was told long ago; what cannot be queued now is counted where it is dropped. But what cannot be kept
        // now has been promised. A will may be to be delayed once more.
        let message = delayed.message.clone().with_published(now);
        if self.admit(now, message, matches, post) == Err(Refusal::NotKept) {
            return Err(delayed);
        }
        if let (Some(store), Some(serial)) = (self.store(), delayed.serial) {
            store.delete(Key::new(Table::Delayed).number(serial));
        }
        Ok(())
    }

    /// Tries what was due and could not be kept.
    fn overdue(&self, now: Now, matches: &mut Matches, post: &mut Post) {
        loop {
            let Some(delayed) = self.overdue.lock().pop_front() else { return };
            if let Err(delayed) = self.due(now, delayed, matches, post) {
                self.overdue.lock().push_front(delayed);
                self.timers.set(now.instant + AGAIN, Timer::Overdue);
                return;
            }
        }
    }

    /// To the retained messages first: who subscribes meanwhile gets it from there, from here, or from both, but nothing
    /// older after it.
    fn route(
        &self,
        now: Now,
        message: Message,
        matches: &mut Matches,
        post: &mut Post,
    ) -> Result<usize, Refusal> {
        let options = self.options();
        let epoch = self.epoch.load(Ordering::Acquire);
        let is_worth_it = message.publisher() != Publisher::NONE;
        let find = |topic: &str| self.table.read().routes(topic);
        let is_kept = message.qos() > Qos::AtMostOnce;
        if let Some(store) = self.store().filter(|s| is_kept && !s.has_room()) {
            let is_retained = message.retain() && retained::is_stored(message.topic());
            let routes = matches.find(epoch, message.topic(), is_worth_it, find);
            if (is_retained && !store.is_working()) || keepers(routes) > 0 {
                self.counts.dropped(Drop::StoreFull);
                return Err(Refusal::NotKept);
            }
        }
        if message.retain() {
            let batch =
                self.retained.write().set(&message, &options, &self.counts, &self.timers, self.store());
            if is_kept {
                post.wait_for(batch);
            }
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let routes = matches.find(epoch, message.topic(), is_worth_it, find);
        let several = is_kept && self.store().is_some() && keepers(routes) > 1;
        let mut keeping = Keeping::new(self.store(), &message, several);
        let mut is_refused = false;
        for route in &routes.plain {
            is_refused |= self.offer(now, route, &message, &options, &mut keeping, post) == Pushed::Refused;
        }
        for group in &routes.groups {
            is_refused |= self.share(now, group, &message, &options, &mut keeping, post) == Pushed::Refused;
        }
        post.wait_for(keeping.batch);
        if is_refused { Err(Refusal::QuotaExceeded) } else { Ok(routes.len()) }
    }

    fn offer(
        &self,
        now: Now,
        route: &Route,
        message: &Message,
        options: &Options,
        keeping: &mut Keeping<'_>,
        post: &mut Post,
    ) -> Pushed {
        let Route { session, options: subscribed, ids } = route;
        if subscribed.no_local && message.publisher() == session.publisher {
            return Pushed::Dropped;
        }
        let retain = subscribed.retain_as_published && message.retain();
        let (message, ids) = (message.clone(), ids.clone());
        if subscribed.kind.is_fast() {
            return fast(session, message, retain, ids, post);
        }
        let qos = message.qos().min(subscribed.qos);
        let entry = Entry { qos, message, retain, ids, via: None, stored: None };
        let to = To { now, options, counts: &self.counts, ledger: self.ledger(session) };
        session.state.lock().push(entry, &to, keeping, post)
    }

    /// To one member of the group. A member whose queue refuses is passed over if another has room.
    pub(crate) fn share(
        &self,
        now: Now,
        group: &Arc<Group>,
        message: &Message,
        options: &Options,
        keeping: &mut Keeping<'_>,
        post: &mut Post,
    ) -> Pushed {
        let offer = |member: &Member| {
            let Member { session, options: subscribed, .. } = member;
            let retain = subscribed.retain_as_published && message.retain();
            let (message, ids) = (message.clone(), member.ids());
            let pushed = if subscribed.kind.is_fast() {
                fast(session, message, retain, ids, post)
            } else {
                let qos = message.qos().min(subscribed.qos);
                let via = Some(group.filter.clone());
                let entry = Entry { message, qos, retain, ids, via, stored: None };
                let to = To { now, options, counts: &self.counts, ledger: self.ledger(session) };
                session.state.lock().push(entry, &to, keeping, post)
            };
            (pushed, pushed == Pushed::Queued)
        };
        group.offer(message, options, offer).unwrap_or(Pushed::Ended)
    }

    /// Publishes delayed messages and wills that are due, ends sessions and forgets retained messages that have expired.
    /// If more is due than fits into one call, [`next_timeout`](Self::next_timeout) says so.
    pub fn timeout(&self, now: Now, matches: &mut Matches, post: &mut Post) {
        for _ in 0..BUDGET {
            let Some((key, timer)) = self.timers.pop(now.instant) else { return };
            let _together = self.together();
            match timer {
                Timer::Delayed(delayed) => {
                    let is_behind = !self.overdue.lock().is_empty();
                    let left = if is_behind { Err(delayed) } else { self.due(now, delayed, matches, post) };
                    if let Err(delayed) = left {
                        self.delay_again(now, delayed);
                    }
                }
                Timer::Overdue => self.overdue(now, matches, post),
                Timer::Retained(topic) => {
                    self.retained.write().expire(&topic, key, &self.timers, self.store());
                }
                Timer::Absent(session) => self.absent(now, &session, key, matches, post),
            }
        }
    }
}

/// How many sessions would keep a message of QoS 1 or 2, as far as it matters: none, one, several.
fn keepers(routes: &Routes) -> usize {
    let plain = routes.plain.iter().filter(|r| r.session.is_durable() && r.options.qos > Qos::AtMostOnce);
    let groups = routes.groups.iter().filter(|g| g.may_keep());
    plain.map(drop).chain(groups.map(drop)).take(2).count()
}

/// Past the session's queue.
fn fast(
    session: &Session,
    message: Message,
    retain: bool,
    ids: Option<Arc<[u32]>>,
    post: &mut Post,
) -> Pushed {
    let Some(at) = session.state.lock().at else { return Pushed::Dropped };
    let mount = session.realm.mount.clone();
    post.signals.push((at, Signal::Fast(Fast { message, retain, mount, ids })));
    Pushed::Queued
}
