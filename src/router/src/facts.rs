//! What a gateway keeps with a session (topic ids, counters, how a device is reached): names and values that go with the
//! session, and outlive the process if it does.
//!
//! They are in memory once a session's were asked for, and in the store if the session is durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gateway::Refusal;
use hashbrown::HashMap;
use parking_lot::Mutex;
use store::{Error, Key, Table, scan_around};

use crate::Router;
use crate::ledger::Ledger;
use crate::post::Post;
use crate::session::Session;

/// Most facts of one session, and most bytes of their names and values.
const MOST: (usize, usize) = (4096, 256 << 10);

/// Longest name in bytes.
const LONGEST: usize = 255;

/// The facts of the sessions that have any.
#[derive(Default)]
pub(crate) struct Facts(Mutex<HashMap<u64, Known>>);

#[derive(Default)]
struct Known {
    values: BTreeMap<Box<str>, Bytes>,
    bytes: usize,
}

impl Facts {
    /// The session has ended.
    pub(crate) fn forget(&self, session: &Session) {
        self.0.lock().remove(&session.publisher().0);
    }
}

impl Router {
    /// Keeps a fact with the session, or forgets it if there is no value.
    ///
    /// Refused: `QuotaExceeded` if the name is too long or the session has too many or too large ones, `NotKept` if the store cannot read or write,
    /// `NoSession` if it has ended.
    pub fn save(
        &self,
        session: &Session,
        name: &str,
        value: Option<Bytes>,
        post: &mut Post,
    ) -> Result<(), Refusal> {
        let ledger = self.ledger(session);
        if name.len() > LONGEST {
            return Err(Refusal::QuotaExceeded);
        }
        if ledger.is_some() && !self.can_keep() {
            return Err(Refusal::NotKept);
        }
        // The session is locked so that it does not end meanwhile.
        let state = session.state.lock();
        if state.is_ended {
            return Err(Refusal::NoSession);
        }
        let mut all = self.facts.0.lock();
        let known = known(&mut all, session, ledger.as_ref()).map_err(|_| Refusal::NotKept)?;
        let old = known.values.get(name).map(|old| name.len() + old.len());
        let new = value.as_ref().map_or(0, |v| name.len() + v.len());
        let bytes = known.bytes - old.unwrap_or(0) + new;
        if value.is_some() && (bytes > MOST.1 || (old.is_none() && known.values.len() >= MOST.0)) {
            return Err(Refusal::QuotaExceeded);
        }
        known.bytes = bytes;
        if let Some(ledger) = &ledger {
            let key = Key::new(Table::Facts).number(ledger.session).text(name.as_bytes());
            post.wait_for(match &value {
                Some(value) => ledger.store.put(key, value.to_vec()),
                None => ledger.store.delete(key),
            });
        }
        match value {
            // What is kept must not pin the buffer it was received in.
            Some(value) => known.values.insert(name.into(), Bytes::copy_from_slice(&value)),
            None => known.values.remove(name),
        };
        Ok(())
    }

    /// Whether there is a session of this client that is subscribed to anything.
    pub fn has_subscriptions(&self, namespace: &str, client_id: &str) -> bool {
        let session = self.registry.shard(namespace, client_id).find(namespace, client_id);
        session.is_some_and(|s| !s.state.lock().filters.is_empty())
    }

    /// A fact kept with the session of this client, and the user name that owns the session; None if there is no such session
    /// or fact.
    pub fn known(&self, namespace: &str, client_id: &str, name: &str) -> Option<(Bytes, Option<Arc<str>>)> {
        let session = self.registry.shard(namespace, client_id).find(namespace, client_id)?;
        let found = self.load(&session, name).ok()?;
        let (_, value) = found.into_iter().find(|(n, _)| **n == *name)?;
        Some((value, session.principal.clone()))
    }

    /// The session's facts whose names begin so, in the order of their names.
    ///
    /// Refused: `NotKept` if the store cannot be read, `NoSession` if the session has ended.
    pub fn load(&self, session: &Session, prefix: &str) -> Result<Vec<(Box<str>, Bytes)>, Refusal> {
        let state = session.state.lock();
        if state.is_ended {
            return Err(Refusal::NoSession);
        }
        let mut all = self.facts.0.lock();
        let ledger = self.ledger(session);
        let known = known(&mut all, session, ledger.as_ref()).map_err(|_| Refusal::NotKept)?;
        let from =
            known.values.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        Ok(from.take_while(|(n, _)| n.starts_with(prefix)).map(|(n, v)| (n.clone(), v.clone())).collect())
    }
}

fn known<'a>(
    all: &'a mut HashMap<u64, Known>,
    session: &Session,
    ledger: Option<&Ledger<'_>>,
) -> Result<&'a mut Known, Error> {
    let number = session.publisher().0;
    if !all.contains_key(&number) {
        let mut known = Known::default();
        if let Some(ledger) = ledger {
            let (from, to) =
                (Key::new(Table::Facts).number(number), Key::new(Table::Facts).number(number + 1));
            let view = ledger.store.view()?;
            scan_around(&*view, &from, &to, &mut |key, value| {
                // Names are written as text; one that is none any more is damaged, and missing.
                if let Some(name) = key.get(8..).and_then(|n| std::str::from_utf8(n).ok()) {
                    known.bytes += name.len() + value.len();
                    known.values.insert(name.into(), Bytes::copy_from_slice(value));
                }
            })?;
        }
        all.insert(number, known);
    }
    Ok(all.entry(number).or_default())
}
