//! Requests of one peer that are remembered so that a repeated one is answered again and not carried out again
//! (RFC 7252, 4.2 and 4.5).
//!
//! No look at it scans all: a device that publishes 16 times a second has some four thousand exchanges to be remembered.

use std::collections::VecDeque;
use std::time::Duration;

use gateway::Instant;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::block::Asked;
use crate::frame::{Code, Kind, Message, Token};

/// EXCHANGE_LIFETIME with the default transmission parameters (RFC 7252, 4.8.2).
pub(crate) const EXCHANGE_LIFETIME: Duration = Duration::from_secs(247);
/// NON_LIFETIME (RFC 7252, 4.8.2).
pub(crate) const NON_LIFETIME: Duration = Duration::from_secs(145);

/// A message as it was sent. An acknowledgement without options is at most 12 bytes.
pub(crate) type Sent = SmallVec<[u8; 16]>;

/// A request that came. There are many of them, most long answered: 56 bytes.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// Con or Non.
    pub(crate) kind: Kind,
    /// Its token.
    pub(crate) token: Token,
    /// Its bytes.
    size: u16,
    /// What it said about blocks, if anything.
    asked: Option<Box<Asked>>,
    /// When the request's message id may be used again.
    pub(crate) expires: Instant,
    /// What was sent back last; nothing yet if it is empty.
    pub(crate) answer: Sent,
    /// An acknowledgement was sent, or there is none to send.
    pub(crate) is_acknowledged: bool,
    /// Answered to the end.
    pub(crate) is_done: bool,
}

impl Exchange {
    fn new(request: &Message, size: usize, expires: Instant) -> Exchange {
        let asked = Asked::of(request);
        Exchange {
            kind: request.kind,
            token: request.token,
            // No datagram is longer than a u16 says.
            size: u16::try_from(size).unwrap_or(u16::MAX),
            asked: (asked != Asked::default()).then(|| Box::new(asked)),
            expires,
            answer: Sent::new(),
            is_acknowledged: request.kind != Kind::Con,
            is_done: false,
        }
    }

    /// Bytes of the request.
    pub(crate) fn size(&self) -> usize {
        self.size.into()
    }

    /// What the request said about blocks.
    pub(crate) fn asked(&self) -> Asked {
        self.asked.as_deref().copied().unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    by_id: HashMap<u16, Exchange>,
    /// Confirmable requests that do something, oldest first. An entry whose time is not that of the exchange with its id
    /// is of an exchange that is gone.
    kept: VecDeque<(Instant, u16)>,
    /// NON, GET, all but the last block of a body, and what was refused: may be forgotten before the others, repeating one
    /// does no harm.
    loose: VecDeque<(Instant, u16)>,
    /// Confirmable requests that were not acknowledged, and when they must be.
    unacknowledged: VecDeque<(Instant, u16)>,
    /// Until when a request that does something may be repeated.
    last: Instant,
    /// When all that is remembered can be forgotten.
    end: Instant,
}

impl Exchanges {
    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Remembers a request; returns whether there is one more than before.
    pub(crate) fn begin(&mut self, now: Instant, request: &Message, size: usize, patience: Duration) -> bool {
        let is_con = request.kind == Kind::Con;
        let expires = now + if is_con { EXCHANGE_LIFETIME } else { NON_LIFETIME };
        self.end = self.end.max(expires);
        let exchange = Exchange::new(request, size, expires);
        let is_safe = request.code == Code::GET || exchange.asked().block1.is_some_and(|b| b.is_more);
        if !is_safe {
            self.last = self.last.max(expires);
        }
        let order = if is_con && !is_safe { &mut self.kept } else { &mut self.loose };
        order.push_back((expires, request.id));
        if is_con {
            self.unacknowledged.push_back((now + patience, request.id));
        }
        self.by_id.insert(request.id, exchange).is_none()
    }

    /// Remembers a request that comes once, until it is answered.
    pub(crate) fn hold(&mut self, request: &Message) {
        let exchange = Exchange { is_acknowledged: true, ..Exchange::new(request, 0, Instant::NEVER) };
        self.by_id.insert(request.id, exchange);
    }

    /// Forgets a request that is held, as it is answered.
    pub(crate) fn release(&mut self, id: u16) -> Option<Exchange> {
        self.by_id.remove(&id)
    }

    /// The exchange of a request that came before and may be repeated still.
    pub(crate) fn repeated(&self, now: Instant, id: u16) -> Option<&Exchange> {
        self.by_id.get(&id).filter(|e| e.expires > now)
    }

    /// The exchange of a request that is to be answered.
    pub(crate) fn open(&mut self, id: u16) -> Option<&mut Exchange> {
        self.by_id.get_mut(&id).filter(|e| !e.is_done)
    }

    /// Nothing was done for the request: it may be forgotten before those that did something.
    pub(crate) fn loosen(&mut self, id: u16) {
        let Some(expires) = self.by_id.get(&id).map(|e| e.expires) else { return };
        // All of them are remembered for as long: they are in the order of their times.
        let begin = self.kept.partition_point(|(at, _)| *at < expires);
        if let Some(at) = self.kept.iter().skip(begin).position(|entry| *entry == (expires, id)) {
            self.kept.remove(begin + at);
            self.loose.push_back((expires, id));
        }
    }

    /// How many there may be to forget.
    pub(crate) fn loose(&self) -> usize {
        self.loose.len()
    }

    /// Notes that the request was acknowledged.
    pub(crate) fn acknowledged(&mut self, id: u16) {
        self.unacknowledged.retain(|(_, other)| *other != id);
        if let Some(exchange) = self.by_id.get_mut(&id) {
            exchange.is_acknowledged = true;
        }
    }

    /// A request whose acknowledgement cannot wait any longer.
    pub(crate) fn late(&self, now: Instant) -> Option<u16> {
        self.unacknowledged.front().filter(|(at, _)| *at <= now).map(|(_, id)| *id)
    }

    /// When the next acknowledgement is due, or everything is to be forgotten.
    pub(crate) fn due(&self) -> Option<Instant> {
        let end = (!self.kept.is_empty() || !self.loose.is_empty()).then_some(self.end);
        self.unacknowledged.front().map(|(at, _)| *at).or(end)
    }

    /// Until when the peer may repeat what must not be done twice.
    pub(crate) fn last(&self) -> Instant {
        self.last
    }

    /// Forgets what cannot be repeated any more; returns how many.
    pub(crate) fn forget_expired(&mut self, now: Instant) -> usize {
        let before = self.by_id.len();
        for order in [&mut self.kept, &mut self.loose] {
            while let Some((at, id)) = order.pop_front_if(|(at, _)| *at <= now) {
                if self.by_id.get(&id).is_some_and(|e| e.expires == at) {
                    self.by_id.remove(&id);
                }
            }
        }
        before - self.by_id.len()
    }

    /// Makes room by forgetting the one that does least harm; false if there is none.
    pub(crate) fn forget_one(&mut self) -> bool {
        for _ in 0..self.loose.len() {
            let Some((at, id)) = self.loose.pop_front() else { break };
            match self.by_id.get(&id) {
                Some(e) if e.expires == at && e.is_done => return self.by_id.remove(&id).is_some(),
                Some(e) if e.expires == at => self.loose.push_back((at, id)),
                _ => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(all: &mut Exchanges, now: Instant, kind: Kind, code: Code, id: u16) {
        let request = Message { code, ..Message::empty(kind, id) };
        all.begin(now, &request, 10, Duration::from_secs(1));
        all.acknowledged(id);
        all.open(id).unwrap().is_done = true;
    }

    #[test]
    fn an_exchange_takes_what_the_configuration_says_of_it() {
        assert_eq!(size_of::<(u16, Exchange)>(), 64);
    }

    #[test]
    fn each_kind_is_remembered_for_its_lifetime() {
        let (mut all, now) = (Exchanges::default(), Instant::default());
        begin(&mut all, now, Kind::Con, Code::PUT, 1);
        begin(&mut all, now, Kind::Non, Code::PUT, 2);
        assert_eq!(all.forget_expired(now + Duration::from_secs(144)), 0);
        assert_eq!(all.forget_expired(now + NON_LIFETIME), 1);
        assert!(all.repeated(now + NON_LIFETIME, 1).is_some() && all.repeated(now, 2).is_none());
        assert_eq!(all.forget_expired(now + EXCHANGE_LIFETIME), 1);
        assert_eq!((all.len(), all.kept.len(), all.loose.len()), (0, 0, 0));
    }

    #[test]
    fn a_message_id_that_is_used_again_is_not_forgotten_with_its_first_use() {
        let (mut all, now) = (Exchanges::default(), Instant::default());
        // The GET before it keeps the NON in the list for longer than it counts.
        begin(&mut all, now, Kind::Con, Code::GET, 1);
        begin(&mut all, now, Kind::Non, Code::PUT, 2);
        let later = now + Duration::from_secs(200);
        assert!(all.repeated(later, 2).is_none());
        begin(&mut all, later, Kind::Con, Code::PUT, 2);
        all.forget_expired(now + EXCHANGE_LIFETIME);
        assert!(all.repeated(now + EXCHANGE_LIFETIME, 2).is_some());
    }

    #[test]
    fn only_what_does_little_harm_makes_room() {
        let (mut all, now) = (Exchanges::default(), Instant::default());
        begin(&mut all, now, Kind::Con, Code::PUT, 1);
        begin(&mut all, now, Kind::Con, Code::GET, 2);
        assert!(all.forget_one());
        assert!(!all.forget_one());
        assert!(all.repeated(now, 1).is_some());
    }

    #[test]
    fn what_is_not_answered_yet_does_not_make_room() {
        let (mut all, now) = (Exchanges::default(), Instant::default());
        let get = Message { code: Code::GET, ..Message::empty(Kind::Con, 1) };
        all.begin(now, &get, 10, Duration::from_secs(1));
        assert!(!all.forget_one());
        all.open(1).unwrap().is_done = true;
        assert!(all.forget_one());
    }
}
