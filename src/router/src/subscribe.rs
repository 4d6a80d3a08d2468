//! Subscribing, and the retained messages that follow it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gateway::{Drop, Filter, Now, Qos, Refusal, Subscribe};

use crate::config::Options;
use crate::ledger::{Keeping, filter_key};
use crate::matches::Matches;
use crate::post::Post;
use crate::queue::Entry;
use crate::record::encode_subscription;
use crate::routes::Joined;
use crate::session::{Session, To};
use crate::{Router, rewrite};

impl Router {
    /// Subscribes and queues the retained messages that the subscription asks for.
    ///
    /// Refused: `TopicFilter`, `QuotaExceeded` (too many subscriptions), `ExclusiveTaken`, `NoSession` (ended), `NotKept`
    /// (the session is durable, and the store cannot write).
    pub fn subscribe(
        &self,
        now: Now,
        session: &Arc<Session>,
        subscribe: Subscribe,
        _: &mut Matches,
        post: &mut Post,
    ) -> Result<Qos, Refusal> {
        self.join(now, session, subscribe, post)
    }

    fn join(
        &self,
        now: Now,
        session: &Arc<Session>,
        mut subscribe: Subscribe,
        post: &mut Post,
    ) -> Result<Qos, Refusal> {
        let options = self.options();
        let filter = rewrite::filter(&options.rewrite, &subscribe.filter, session)?;
        if filter.is_fastlane() {
            if !session.state.lock().expiry.is_zero() {
                return Err(Refusal::TopicFilter);
            }
            subscribe.qos = Qos::AtMostOnce;
        }
        if session.is_durable() && !self.can_keep() {
            return Err(Refusal::NotKept);
        }
        let joined = self.table.write().subscribe(session, &filter, &subscribe);
        match joined {
            Joined::Taken => return Err(Refusal::ExclusiveTaken),
            Joined::New => self.enter(session, &filter, &options)?,
            Joined::Again => {}
        }
        if let Some(ledger) = self.ledger(session) {
            let state = session.state.lock();
            if !state.is_ended {
                let key = filter_key(ledger.session, filter.text());
                post.wait_for(ledger.store.put(key, encode_subscription(&filter, &subscribe)));
            }
        }
        self.epoch.fetch_add(1, Ordering::Release);
        let is_wanted = match subscribe.retain_handling {
            0 => true,
            1 => joined == Joined::New,
            _ => false,
        };
        // A shared subscription gets no retained messages (MQTT 5.0, 4.8.2).
        if is_wanted && filter.group().is_none() {
            self.send_retained(now, session, &filter, &subscribe, &options, post);
        }
        Ok(subscribe.qos)
    }

    /// Enters a new subscription into the session's own list, by which it is removed when the session ends; takes it
    /// back out of the table if the session has ended or has too many.
    fn enter(&self, session: &Arc<Session>, filter: &Filter, options: &Options) -> Result<(), Refusal> {
        let refused = {
            let mut state = session.state.lock();
            if state.is_ended {
                Refusal::NoSession
            } else if state.filters.len() >= options.max_subscriptions {
                Refusal::QuotaExceeded
            } else {
                if state.filters.is_empty() {
                    // Most clients have one.
                    state.filters.reserve_exact(1);
                }
                state.filters.push(filter.clone());
                return Ok(());
            }
        };
        self.table.write().unsubscribe(session, filter);
        self.epoch.fetch_add(1, Ordering::Release);
        Err(refused)
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
        let ids: Option<Arc<[u32]>> =
            (subscribe.identifier != 0).then(|| Arc::from([subscribe.identifier].as_slice()));
        let mut room = options.max_queued;
        let ledger = self.ledger(session);
        // The session is locked first: a newer message that was retained meanwhile comes behind, not before.
        let mut state = session.state.lock();
        self.retained.read().visit(filter.plain(), now.instant, |message| {
            if subscribe.no_local && message.publisher() == session.publisher {
                return true;
            }
            if room == 0 {
                // The subscription stands even if not all of it fits.
                self.counts.dropped(Drop::QueueFull);
                return true;
            }
            room -= 1;
            let qos = message.qos().min(subscribe.qos);
            let (message, ids) = (message.clone(), ids.clone());
            let mut keeping = Keeping::new(self.store(), &message, false);
            let entry = Entry { message: message.clone(), qos, retain: true, ids, via: None, stored: None };
            let to = To { now, options, counts: &self.counts, ledger };
            state.push(entry, &to, &mut keeping, post);
            post.wait_for(keeping.batch);
            true
        });
    }

    /// Makes the subscriptions that configuration has for every client; those that a resumed session has stay.
    pub(crate) fn auto_subscribe(
        &self,
        now: Now,
        session: &Arc<Session>,
        username: Option<&str>,
        post: &mut Post,
    ) {
        let options = self.options();
        for auto in &options.auto_subscribe {
            let Some(text) = rewrite::fill(&auto.filter, session.client_id(), username) else { continue };
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
            let _ = self.join(now, session, subscribe, post);
        }
    }

    /// Unsubscribes; false if there was no such subscription.
    pub fn unsubscribe(
        &self,
        session: &Arc<Session>,
        filter: &Filter,
        post: &mut Post,
    ) -> Result<bool, Refusal> {
        let options = self.options();
        let filter = rewrite::filter(&options.rewrite, filter, session)?;
        {
            let mut state = session.state.lock();
            let Some(at) = state.filters.iter().position(|f| *f == filter) else {
                // That it is gone may still be on its way to the disk.
                post.wait_for(self.ledger(session).map_or(0, |l| l.store.latest()));
                return Ok(false);
            };
            state.filters.swap_remove(at);
            if state.filters.is_empty() {
                state.filters = Vec::new();
            }
            if let Some(ledger) = self.ledger(session) {
                post.wait_for(ledger.store.delete(filter_key(ledger.session, filter.text())));
            }
        }
        self.table.write().unsubscribe(session, &filter);
        self.epoch.fetch_add(1, Ordering::Release);
        Ok(true)
    }
}
