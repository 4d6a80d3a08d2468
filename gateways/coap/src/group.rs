//! Requests to all CoAP nodes (RFC 7252, 8): only Non-confirmable ones, answered after a random time so that many answers do
//! not come at once, and not at all where there is nothing useful to say.

use std::time::Duration;

use gateway::{Action, Drop, Now, Outbox, Peer};

use crate::frame::{Code, Kind, Message};
use crate::{Coap, Response};

/// DEFAULT_LEISURE (8.2).
const LEISURE: Duration = Duration::from_secs(5);

/// Such requests of one peer at a time.
const MOST: usize = 16;

impl Coap {
    /// A datagram that was sent to a group.
    pub(crate) fn group_request(&mut self, now: Now, peer: Peer, datagram: &[u8], out: &mut Outbox) {
        let Ok(request) = Message::decode(datagram) else {
            return out.act(Action::Drop(peer, Drop::Malformed));
        };
        if self.is_somebody_else(peer, &request) {
            return self.stay(peer, out);
        }
        let Some(c) = self.peers.get_mut(&peer) else { return };
        // Neither a Reset nor an acknowledgement may come of it (8.1).
        if request.kind != Kind::Non || !request.code.is_request() {
            return out.act(Action::Drop(peer, Drop::Unexpected));
        }
        // Nothing that somebody waits for is forgotten for it, and it is not told that there is no room.
        let is_full = c.exchanges.len() >= self.config.max_exchanges
            || self.remembered >= self.config.max_exchanges_total;
        if is_full || c.groups.len() + c.leisure.len() >= MOST {
            return out.act(Action::Drop(peer, Drop::ExchangesFull));
        }
        c.heard(now.instant);
        if c.exchanges.repeated(now.instant, request.id).is_none() {
            c.groups.push(request.id);
        }
        self.exchange(now, peer, request, datagram.len(), out);
    }

    /// Keeps an answer until its time comes; what says nothing is not sent (8.2).
    pub(crate) fn answer_group(&mut self, now: Now, peer: Peer, id: u16, response: Response) {
        let spread = f64::from(u16::from_be_bytes(self.random::<2>().unwrap_or_default())) / 65_536.0;
        let is_open_to_spoofing = self.is_open_to_spoofing(peer);
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let Some((token, size)) = c.exchanges.repeated(now.instant, id).map(|e| (e.token, e.size())) else {
            return;
        };
        if response.code != Code::CONTENT || response.payload.is_empty() {
            return;
        }
        let mut message = Message { code: response.code, token, ..Message::empty(Kind::Non, c.next_id()) };
        response.options.iter().for_each(|(number, value)| message.add(*number, value));
        message.payload = response.payload.into();
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        if is_open_to_spoofing && bytes.len() > (3 * size).max(136) {
            return;
        }
        c.leisure.push((now.instant + LEISURE.mul_f64(spread), message));
    }

    /// Sends the answers whose time has come.
    pub(crate) fn answer_groups(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let (due, rest) = std::mem::take(&mut c.leisure).into_iter().partition(|(at, _)| *at <= now.instant);
        c.leisure = rest;
        let due: Vec<_> = due;
        for (_, message) in &due {
            self.send(peer, message, out);
        }
    }
}
