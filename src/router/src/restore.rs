//! The start: sessions with their subscriptions, retained and delayed messages come back from the store. What sessions have
//! to deliver does not: it is read when a session is used, so that the start takes no longer for all that waits.

use std::sync::Arc;

use gateway::{Drop, Instant, Now, Publisher};
use parking_lot::Mutex;
use store::{Error, Key, Table, View, scan_around, split_number};

use crate::Router;
use crate::record::{self, Kept};
use crate::retained::key_of;
use crate::session::{Expiry, Session, State};
use crate::timers::Delayed;

/// What came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Sessions.
    pub sessions: usize,
    /// Their subscriptions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Delayed messages.
    pub delayed: usize,
    /// Records that could not be read, and were left out.
    pub damaged: usize,
}

impl Router {
    /// Takes over what the store has. Called once, before anybody connects.
    pub fn restore(&self, now: Now) -> Result<Restored, Error> {
        let mut restored = Restored::default();
        let Some(store) = self.store() else { return Ok(restored) };
        let view = store.view()?;
        let sessions = self.restore_sessions(now, &*view, &mut restored)?;
        self.restore_filters(&*view, &sessions, &mut restored)?;
        self.restore_retained(now, &*view, &mut restored)?;
        self.restore_delayed(now, &*view, &mut restored)?;
        for _ in 0..restored.damaged {
            self.counts.dropped(Drop::Damaged);
        }
        Ok(restored)
    }

    fn restore_sessions(
        &self,
        now: Now,
        view: &dyn View,
        restored: &mut Restored,
    ) -> Result<Vec<Arc<Session>>, Error> {
        let mut sessions = Vec::new();
        restored.damaged += each(view, Table::Sessions, &mut |key, value| match (
            split_number(key),
            record::decode_session(now, value),
        ) {
            (Some((number, _)), Ok(kept)) => {
                sessions.push(self.restore_session(now, number, kept));
                true
            }
            (Some((number, _)), Err(_)) => {
                // Nobody knows whose it was; what it has goes with it.
                self.store().map(|store| store.end(number));
                false
            }
            _ => false,
        })?;
        restored.sessions = sessions.len();
        Ok(sessions)
    }

    fn restore_session(&self, now: Now, number: u64, kept: Kept) -> Arc<Session> {
        let Kept { namespace, mount, client_id, principal, expiry, absent_since, will } = kept;
        let delay = will.as_ref().map(|w| w.delay);
        let session = Arc::new(Session {
            client_id,
            realm: self.registry.realm(&namespace, mount, true),
            principal,
            publisher: Publisher(number),
            state: Mutex::new(State::restored(Expiry::of(expiry), will)),
        });
        self.registry.shard(&namespace, &session.client_id).insert(session.clone());
        // One that was connected when the process ended has lost its connection now.
        let since = absent_since.unwrap_or(now.wall_ms);
        let gone = std::time::Duration::from_millis(now.wall_ms.saturating_sub(since));
        let left = |time: std::time::Duration| now.instant + time.saturating_sub(gone);
        let ends_at = Some(left(expiry)).filter(|_| expiry != std::time::Duration::MAX);
        let will_at = delay.map(left).map(|at| ends_at.map_or(at, |end: Instant| at.min(end)));
        let mut state = session.state.lock();
        self.wait(&mut state, &session, since, will_at, ends_at);
        let is_finite = will_at.is_some() || ends_at.is_some();
        if let Some(ledger) = self.ledger(&session).filter(|_| absent_since.is_none() && is_finite) {
            session.save(&state, &ledger, Some(since));
        }
        drop(state);
        session
    }

    fn restore_filters(
        &self,
        view: &dyn View,
        sessions: &[Arc<Session>],
        restored: &mut Restored,
    ) -> Result<(), Error> {
        // Both are in the order of the sessions' numbers.
        let mut at = 0;
        let mut orphans = Vec::new();
        let mut table = self.table.write();
        restored.damaged += each(view, Table::Filters, &mut |key, value| {
            let Some((number, filter)) = split_number(key) else { return false };
            while sessions.get(at).is_some_and(|s| s.publisher.0 < number) {
                at += 1;
            }
            let Some(session) = sessions.get(at).filter(|s| s.publisher.0 == number) else {
                orphans.push(Key::of(Table::Filters, key));
                return true;
            };
            let Ok(subscribe) = record::decode_options(filter, value) else { return false };
            table.subscribe(session, &subscribe.filter, &subscribe);
            let mut state = session.state.lock();
            if state.filters.is_empty() {
                state.filters.reserve_exact(1);
            }
            state.filters.push(subscribe.filter);
            restored.subscriptions += 1;
            true
        })?;
        drop(table);
        if let Some(store) = self.store() {
            for orphan in orphans {
                store.delete(orphan);
            }
        }
        Ok(())
    }

    fn restore_retained(&self, now: Now, view: &dyn View, restored: &mut Restored) -> Result<(), Error> {
        let mut retained = self.retained.write();
        restored.damaged +=
            each(view, Table::Retained, &mut |topic, value| match record::decode_message(now, value) {
                Ok(message) if key_of(message.topic()) == Key::of(Table::Retained, topic) => {
                    retained.keep(message, &self.timers);
                    restored.retained += 1;
                    true
                }
                _ => false,
            })?;
        Ok(())
    }

    fn restore_delayed(&self, now: Now, view: &dyn View, restored: &mut Restored) -> Result<(), Error> {
        let options = self.options();
        let mut due_first = Vec::new();
        restored.damaged += each(view, Table::Delayed, &mut |key, value| match (
            split_number(key),
            record::decode_delayed(now, value),
        ) {
            (Some((serial, _)), Ok((due, message))) => {
                due_first.push((due, Delayed { message, serial: Some(serial) }));
                true
            }
            _ => false,
        })?;
        restored.delayed = due_first.len();
        // What came due while nobody looked is published in the order in which it did.
        due_first.sort_by_key(|(due, _)| *due);
        for (due, delayed) in due_first {
            let left = std::time::Duration::from_millis(due.saturating_sub(now.wall_ms));
            let at = now.instant + left.min(options.max_delay);
            // What was accepted once is not refused by a bound that is lower now.
            self.timers.delay(at, delayed, usize::MAX, usize::MAX);
        }
        Ok(())
    }
}

/// Visits all records of a table, around what cannot be read; how many `visit` or the engine could not read.
pub(crate) fn each(
    view: &dyn View,
    table: Table,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<usize, Error> {
    let mut damaged = 0;
    let is_damaged = scan_around(view, &Key::new(table), &Key::end(table), &mut |key, value| {
        damaged += usize::from(!visit(key, value));
    })?;
    Ok(damaged + usize::from(is_damaged))
}
