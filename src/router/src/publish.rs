//! From a publisher to the queues of everybody who subscribed, and to the retained messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gateway::topic::check_name;
use gateway::{Drop, Message, Now, Publisher, Refusal};

use crate::config::Options;
use crate::matches::Matches;
use crate::members::Member;
use crate::post::{Fast, Post, Signal};
use crate::queue::{Entry, Pushed};
use crate::routes::Route;
use crate::session::Session;
use crate::share::Group;
use crate::timers::Timer;
use crate::{Router, rewrite};

/// Deadlines that one call of [`Router::timeout`] handles; a driver has other work between.
const BUDGET: usize = 1024;

impl Router {
    /// Publishes a message of `from`, or of the gateway itself, and returns how many subscriptions it matched.
    ///
    /// `once` is the packet id of a QoS 2 message: it is published when it comes first, and not again until it was
    /// released (MQTT-4.3.3-10).
    ///
    /// Refused: `TopicName` for a malformed `$delayed` or rewritten topic, `QuotaExceeded` if a queue is full and refuses;
    /// then other subscribers may have it.
    pub fn publish(
        &self,
        now: Now,
        from: Option<&Session>,
        message: Message,
        once: Option<u16>,
        matches: &mut Matches,
        post: &mut Post,
    ) -> Result<usize, Refusal> {
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
        if !session.state.lock().begin_once(id) {
            self.counts.dropped(Drop::Duplicate);
            return Ok(1);
        }
        let published = self.admit(now, message, matches, post);
        if published.is_err() {
            session.state.lock().release(id);
        }
        published
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
            Some(rest) => self.delay(now, &message, rest),
            None => self.route(message, matches, post),
        }
    }

    /// `$delayed/{seconds}/{topic}`.
    fn delay(&self, now: Now, message: &Message, rest: &str) -> Result<usize, Refusal> {
        let options = self.options();
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

    /// To the retained messages first: who subscribes meanwhile gets it from there, from here, or from both, but nothing
    /// older after it.
    fn route(&self, message: Message, matches: &mut Matches, post: &mut Post) -> Result<usize, Refusal> {
        let options = self.options();
        if message.retain() {
            self.retained.write().set(&message, &options, &self.counts, &self.timers);
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let is_worth_it = message.publisher() != Publisher::NONE;
        let find = |topic: &str| self.table.read().routes(topic);
        let routes = matches.find(epoch, message.topic(), is_worth_it, find);
        let mut is_refused = false;
        for route in &routes.plain {
            is_refused |= self.offer(route, &message, &options, post) == Pushed::Refused;
        }
        for group in &routes.groups {
            is_refused |= self.share(group, &message, &options, post) == Pushed::Refused;
        }
        if is_refused { Err(Refusal::QuotaExceeded) } else { Ok(routes.len()) }
    }

    fn offer(&self, route: &Route, message: &Message, options: &Options, post: &mut Post) -> Pushed {
        let Route { session, options: subscribed, ids } = route;
        if subscribed.no_local && message.publisher() == session.publisher {
            return Pushed::Dropped;
        }
        let retain = subscribed.retain_as_published && message.retain();
        let (message, ids) = (message.clone(), ids.clone());
        if subscribed.kind.is_fast() {
            return fast(session, message, retain, ids, post);
        }
        let entry = Entry { qos: message.qos().min(subscribed.qos), message, retain, ids, via: None };
        session.state.lock().push(entry, options, &self.counts, post)
    }

    /// To one member of the group. A member whose queue refuses is passed over if another has room.
    pub(crate) fn share(
        &self,
        group: &Arc<Group>,
        message: &Message,
        options: &Options,
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
                let entry = Entry { message, qos, retain, ids, via: Some(group.clone()) };
                session.state.lock().push(entry, options, &self.counts, post)
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
            match timer {
                Timer::Delayed(message) => {
                    // Its publisher was told long ago; what cannot be queued now is counted where it is dropped.
                    let _ = self.route(message.with_published(now), matches, post);
                }
                Timer::Retained(topic) => self.retained.write().expire(&topic, key, &self.timers),
                Timer::Absent(session) => self.absent(now, &session, key, matches, post),
            }
        }
    }
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
