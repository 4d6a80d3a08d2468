//! What operators and metrics see.

use std::sync::Arc;
use std::time::Duration;

use gateway::Message;

use crate::ledger::Ledger;
use crate::post::Attachment;
use crate::session::Session;
use crate::{Filter, Now, Router};

/// Sizes of everything that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions, shared ones included.
    pub subscriptions: usize,
    /// Shared subscriptions.
    pub shared: usize,
    /// Different filters subscribed to.
    pub filters: usize,
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// Delayed messages.
    pub delayed: usize,
    /// Their bytes.
    pub delayed_bytes: usize,
}

/// One session for operators.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Client id.
    pub client_id: Box<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Where it is connected.
    pub at: Option<Attachment>,
    /// Who owns it.
    pub principal: Option<Arc<str>>,
    /// How long it outlives its connection.
    pub expiry: Duration,
    /// Filters it subscribed to, with the mountpoint.
    pub filters: Vec<Filter>,
    /// Messages waiting.
    pub queued: usize,
    /// Deliveries not settled.
    pub inflight: usize,
}

impl SessionInfo {
    fn of(session: &Session, ledger: Option<&Ledger<'_>>) -> SessionInfo {
        let state = session.state.lock();
        let (queued, inflight) = match ledger.filter(|_| state.is_frozen) {
            // What cannot be read now shows as nothing.
            Some(ledger) => ledger.depth().unwrap_or_default(),
            None => state.depth(),
        };
        SessionInfo {
            client_id: session.client_id.clone(),
            namespace: session.realm.namespace.clone(),
            at: state.at,
            principal: session.principal.clone(),
            expiry: state.expiry.time(),
            filters: state.filters.clone(),
            queued,
            inflight,
        }
    }
}

impl Router {
    /// Sizes.
    pub fn stats(&self) -> Stats {
        let (subscriptions, shared, filters) = {
            let table = self.table.read();
            let (exact, wild) = table.len();
            (table.subscriptions, table.shared, exact + wild)
        };
        let (retained, retained_bytes) = self.retained.read().size();
        let (delayed, delayed_bytes) = self.timers.delayed();
        let sessions = self.registry.len();
        Stats { sessions, subscriptions, shared, filters, retained, retained_bytes, delayed, delayed_bytes }
    }

    /// Sessions whose client id holds `part`, at most `limit`.
    pub fn sessions(&self, part: &str, limit: usize) -> Vec<SessionInfo> {
        let mut found = Vec::new();
        self.registry.each(|session| {
            if found.len() < limit && session.client_id.contains(part) {
                found.push(SessionInfo::of(session, self.ledger(session).as_ref()));
            }
            found.len() < limit
        });
        found
    }

    /// The session of this client id in whatever namespace.
    pub fn session(&self, client_id: &str) -> Option<SessionInfo> {
        let mut found = None;
        self.registry.each(|session| {
            if *session.client_id == *client_id {
                found = Some(SessionInfo::of(session, self.ledger(session).as_ref()));
            }
            found.is_none()
        });
        found
    }

    /// Where this client is connected; None if it is not, and if there is none.
    pub fn attachment(&self, namespace: &str, client_id: &str) -> Option<Option<Attachment>> {
        let session = self.registry.shard(namespace, client_id).find(namespace, client_id)?;
        let at = session.state.lock().at;
        Some(at)
    }

    /// Where the sessions are connected that have this client id, or that this principal owns; at most `limit`.
    pub fn attachments(
        &self,
        client_id: Option<&str>,
        principal: Option<&str>,
        limit: usize,
    ) -> Vec<Attachment> {
        let mut found = Vec::new();
        self.registry.each(|session| {
            let is_meant = client_id.is_some_and(|id| *session.client_id == *id)
                || principal.is_some_and(|p| session.principal.as_deref() == Some(p));
            if is_meant {
                found.extend(session.state.lock().at);
            }
            found.len() < limit
        });
        found
    }

    /// All retained messages, `$SYS` last, at most `limit`; by filter see [`Router::retained`].
    pub fn retained_topics(&self, now: Now, limit: usize) -> Vec<Message> {
        let everything = self.retained.read();
        let mut all = everything.find("#", now.instant, limit);
        all.extend(everything.find("$SYS/#", now.instant, limit.saturating_sub(all.len())));
        all
    }
}
