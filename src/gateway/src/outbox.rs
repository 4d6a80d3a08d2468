//! Where a machine puts what is to be sent and done.

use crate::action::{Action, Direction};
use crate::peer::Peer;

/// One message in an [`Outbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whom it is for.
    pub peer: Peer,
    /// Where it begins in [`Outbox::wire`]; it ends where the next one begins.
    pub begin: usize,
    /// See [`Outbox::probe`].
    pub is_probe: bool,
}

/// Filled by a machine, emptied by its driver after each call.
///
/// Bytes for peers are written into one buffer, [`wire`](Self::wire); where one datagram (or one layer message) ends and
/// the next begins is kept beside it only when the driver asked for that. So a stream driver lends its connection's own
/// output buffer and nothing is copied.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Bytes to send, in order.
    pub wire: Vec<u8>,
    /// Where each message in `wire` begins and whom it is for; kept only if `is_framed`.
    pub frames: Vec<Frame>,
    /// Set by a driver that must know where messages begin.
    pub is_framed: bool,
    /// What is to be done, in order.
    pub actions: Vec<Action>,
    /// Set by the driver while an operator traces the peer that is being served.
    pub is_traced: bool,
}

impl Outbox {
    /// Where to append the bytes of one message for `peer`.
    pub fn send(&mut self, peer: Peer) -> &mut Vec<u8> {
        if self.is_framed {
            self.frames.push(Frame { peer, begin: self.wire.len(), is_probe: false });
        }
        &mut self.wire
    }

    /// Where to append the bytes of one message that is to show whether `peer` is at the address that it seems to have moved
    /// to: it goes there alone. Datagrams only.
    pub fn probe(&mut self, peer: Peer) -> &mut Vec<u8> {
        self.frames.push(Frame { peer, begin: self.wire.len(), is_probe: true });
        &mut self.wire
    }

    /// Asks for something to be done.
    pub fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// A line for `tidegate trace`, composed only if somebody listens.
    pub fn trace(&mut self, peer: Peer, direction: Direction, line: impl FnOnce() -> String) {
        if self.is_traced {
            self.actions.push(Action::Trace(peer, direction, line()));
        }
    }

    /// The messages in `wire` with their peers. For drivers that set `is_framed`.
    pub fn messages(&self) -> impl Iterator<Item = (Frame, &[u8])> {
        self.frames.iter().enumerate().map(|(i, frame)| {
            let end = self.frames.get(i + 1).map_or(self.wire.len(), |next| next.begin);
            (*frame, &self.wire[frame.begin..end])
        })
    }

    /// Forgets bytes and frames; keeps the memory.
    pub fn clear(&mut self) {
        self.wire.clear();
        self.frames.clear();
        self.actions.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_only_when_asked_for() {
        let (a, b) = (Peer { slot: 1, generation: 1 }, Peer { slot: 2, generation: 1 });
        let mut out = Outbox { is_framed: true, ..Outbox::default() };
        out.send(a).extend_from_slice(b"one");
        out.send(b).extend_from_slice(b"two!");
        let messages: Vec<_> = out.messages().map(|(f, bytes)| (f.peer, bytes)).collect();
        assert_eq!(messages, [(a, &b"one"[..]), (b, &b"two!"[..])]);
        let mut out = Outbox::default();
        out.send(a).extend_from_slice(b"one");
        assert!(out.frames.is_empty());
    }
}
