//! What a driver keeps of one conversation's client: its session, its grant, and what is rarely there in a box.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use auth::{Auth, Exchange, Grant};
use gateway::{Connect, Instant, Ticket};
use router::Session;

/// See the module. An idle, connected client costs these words and no box.
#[derive(Default)]
pub struct Client {
    /// The session that is attached to this conversation.
    pub session: Option<Arc<Session>>,
    /// What the client may do.
    pub grant: Option<Grant>,
    /// What is rarely there.
    pub extra: Option<Box<Extra>>,
    /// Protocol as the client named it, for presence and listings.
    pub protocol: &'static str,
    /// Wall time of CONNECT in milliseconds.
    pub connected_ms: u64,
    /// No presence messages for this client.
    pub is_transient: bool,
    /// Answers that wait for the store; those that come after them wait behind them.
    pub held: u32,
    /// It has not been told that its session is open: nothing is delivered before that.
    pub is_opening: bool,
    /// How its deliveries go out.
    pub pace: Pace,
}

/// See [`gateway::Action::Want`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As they come.
    #[default]
    Free,
    /// None.
    Held,
    /// One.
    Wanted,
}

/// See [`Client::extra`].
#[derive(Default)]
pub struct Extra {
    /// A CONNECT that waits for its password check.
    pub pending: Option<(Ticket, Box<Connect>)>,
    /// An enhanced authentication under way; with the CONNECT it is part of, or none when a session authenticates again.
    pub exchange: Option<(Exchange, Option<Box<Connect>>)>,
    /// Rate limits, where the listener has some.
    pub rate: Option<Rate>,
    /// Trace lines from before the client id was known.
    pub backlog: Vec<(gateway::Direction, String)>,
}

/// Most trace lines kept before the client id is known.
pub const BACKLOG: usize = 16;

impl Client {
    /// The box for what is rarely there.
    pub fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Fills in what the client may do anew, after the access list has changed. False if it may not even stay.
    pub fn regrant(&mut self, auth: &Auth, address: SocketAddr) -> bool {
        let (Some(session), Some(grant)) = (&self.session, &mut self.grant) else { return true };
        match auth.regrant(grant, session.client_id(), address.ip()) {
            Some(new) => *grant = new,
            None => return false,
        }
        true
    }

    /// Counts one message and its bytes against the client's rate; does nothing where there is no limit.
    pub fn spend(&mut self, now: Instant, messages: u32, bytes: usize) {
        if let Some(rate) = self.extra.as_deref_mut().and_then(|e| e.rate.as_mut()) {
            rate.messages.spend(now, f64::from(messages));
            rate.bytes.spend(now, bytes as f64);
        }
    }

    /// How long the client must rest until it is within its rate again; None if it is.
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        let rate = self.extra.as_deref()?.rate.as_ref()?;
        rate.messages.debt(now).max(rate.bytes.debt(now))
    }
}

/// Messages and bytes a second of one client.
pub struct Rate {
    messages: Bucket,
    bytes: Bucket,
}

impl Rate {
    /// Limits per second; zero is unlimited. None if both are.
    pub fn new(now: Instant, messages: u32, bytes: u32) -> Option<Rate> {
        (messages > 0 || bytes > 0)
            .then(|| Rate { messages: Bucket::new(now, messages), bytes: Bucket::new(now, bytes) })
    }
}

/// A token bucket of one second's worth that may run into debt: what came is never thrown away, its sender rests.
pub struct Bucket {
    rate: f64,
    level: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket of `rate` a second; zero never runs dry.
    pub fn new(now: Instant, rate: u32) -> Bucket {
        Bucket { rate: f64::from(rate), level: f64::from(rate), filled: now }
    }

    fn level(&self, now: Instant) -> f64 {
        (self.level + now.since(self.filled).as_secs_f64() * self.rate).min(self.rate)
    }

    /// Takes `amount` out.
    pub fn spend(&mut self, now: Instant, amount: f64) {
        if self.rate > 0.0 {
            self.level = self.level(now) - amount;
            self.filled = now;
        }
    }

    /// Time until the bucket is out of debt, at most an hour.
    pub fn debt(&self, now: Instant) -> Option<Duration> {
        let level = self.level(now);
        (self.rate > 0.0 && level < 0.0).then(|| Duration::from_secs_f64((-level / self.rate).min(3600.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lends_and_is_paid_back_at_its_rate() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let mut b = Bucket::new(at(0), 10);
        b.spend(at(0), 10.0);
        assert_eq!(b.debt(at(0)), None);
        b.spend(at(0), 5.0);
        assert_eq!(b.debt(at(0)), Some(Duration::from_millis(500)));
        assert_eq!(b.debt(at(500)), None);
        let mut free = Bucket::new(at(0), 0);
        free.spend(at(0), 1e9);
        assert_eq!(free.debt(at(0)), None);
    }
}
