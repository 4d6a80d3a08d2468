//! One stream connection as its driver keeps it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use gateway::{Close, Facts, Gateway, Instant, Peer};

use crate::client::Client;
use crate::house::Port;
use crate::layer::{Learnt, Stack};
use crate::perform::Peers;

/// See the module. Idle, it holds no buffer; the size is asserted in a test, because a million of them may be open.
pub struct Conn {
    pub(crate) socket: mio::net::TcpStream,
    pub(crate) generation: u32,
    pub(crate) machine: Box<dyn Gateway>,
    pub(crate) client: Client,
    pub(crate) port: Arc<Port>,
    pub(crate) address: SocketAddr,
    pub(crate) layers: Option<Box<Layered>>,
    /// Bytes of a packet that is not complete, or that may not be read yet.
    pub(crate) rest: Option<Box<BytesMut>>,
    /// Bytes for the socket.
    #[expect(clippy::box_collection, reason = "eight bytes in an idle connection instead of twenty-four")]
    pub(crate) out: Option<Box<Vec<u8>>>,
    /// Where it stands in the driver's wheel.
    pub(crate) scheduled: Instant,
    /// Until when a handshake may last, a resting peer rests, or a closed one may linger.
    pub(crate) hold: Instant,
    /// Since when the socket takes no bytes.
    pub(crate) blocked_since: Instant,
    pub(crate) closing: Option<Close>,
    pub(crate) flags: Flags,
}

/// What is true of a connection; one bit each.
#[derive(Clone, Copy, Default)]
pub struct Flags(u16);

/// `opened` was called.
pub const OPENED: Flags = Flags(1);
/// In the list of connections to flush.
pub const DIRTY: Flags = Flags(2);
/// In the list of connections whose session is to be drained.
pub const READY: Flags = Flags(4);
/// The session has more than the output had room for.
pub const MORE: Flags = Flags(8);
/// The socket's send buffer is full.
pub const BLOCKED: Flags = Flags(16);
/// The machine reads no bytes before its next answer.
pub const PAUSED: Flags = Flags(32);
/// The peer is over its rate and rests.
pub const RESTING: Flags = Flags(64);
/// The socket has bytes that were not read.
pub const UNREAD: Flags = Flags(128);
/// The peer has closed its side: read on until the end.
pub const HUNG_UP: Flags = Flags(256);
/// Everything is said; waits for the peer to close so that nothing said is lost to a reset.
pub const LINGERING: Flags = Flags(512);
/// In the list of connections to read again.
pub const AGAIN: Flags = Flags(1024);
/// Nothing can be written any more.
pub const BROKEN: Flags = Flags(2048);

impl Flags {
    /// Whether any of these is set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Sets them; true if none was set before.
    pub fn set(&mut self, other: Flags) -> bool {
        let was = self.has(other);
        self.0 |= other.0;
        !was
    }

    /// Clears them; true if any was set before.
    pub fn clear(&mut self, other: Flags) -> bool {
        let was = self.has(other);
        self.0 &= !other.0;
        was
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// A connection's layers and the bytes between them and the machine.
pub struct Layered {
    pub(crate) stack: Stack,
    pub(crate) learnt: Learnt,
    /// From the socket, not yet opened.
    pub(crate) wire: BytesMut,
    /// From the machine, not yet sealed.
    pub(crate) plain: Vec<u8>,
}

/// A connection without its machine and output, while these are in use.
pub struct Seat<'a> {
    pub(crate) peer: Peer,
    pub(crate) client: &'a mut Client,
    pub(crate) port: &'a Arc<Port>,
    pub(crate) address: SocketAddr,
    pub(crate) learnt: Option<&'a Learnt>,
    pub(crate) events: Events,
}

/// What happened to a connection while its machine was served.
#[derive(Default)]
pub struct Events {
    pub(crate) close: Option<Close>,
    pub(crate) is_ready: bool,
    pub(crate) is_replied: bool,
}

impl Peers for Seat<'_> {
    fn client(&mut self, peer: Peer) -> Option<&mut Client> {
        (peer == self.peer).then_some(&mut *self.client)
    }

    fn facts(&self, peer: Peer) -> Option<Facts> {
        (peer == self.peer).then(|| facts(self.port, self.address, self.learnt))
    }

    fn port(&self, peer: Peer) -> Option<&Arc<Port>> {
        (peer == self.peer).then_some(self.port)
    }

    fn close(&mut self, _: Peer, why: Close) {
        self.events.close.get_or_insert(why);
    }

    fn ready(&mut self, _: Peer) {
        self.events.is_ready = true;
    }

    fn replied(&mut self, _: Peer) {
        self.events.is_replied = true;
    }
}

/// What the machine is told about a stream peer.
pub fn facts(port: &Arc<Port>, address: SocketAddr, learnt: Option<&Learnt>) -> Facts {
    let origins = port.setup.websocket.as_ref().map(|w| w.allowed_origins.as_slice()).unwrap_or_default();
    let is_direct = learnt.is_none_or(|l| {
        !l.forwarded && l.origin.as_deref().is_none_or(|o| origins.iter().any(|allowed| allowed == o))
    });
    Facts {
        address: learnt.and_then(|l| l.address).unwrap_or(address),
        listener: port.facts.clone(),
        transport: port.transport(false),
        certificate: learnt.and_then(|l| l.certificate.clone()),
        path: learnt.and_then(|l| l.path.clone()),
        subprotocol: learnt.and_then(|l| l.subprotocol.clone()),
        psk: learnt.and_then(|l| l.psk.clone()),
        client_id: learnt.and_then(|l| l.client_id.clone()),
        is_direct,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Conn>() <= 216, "{} bytes", size_of::<Conn>());
    }

    #[test]
    fn flags_tell_what_changed() {
        let mut f = Flags::default();
        assert!(f.set(DIRTY) && !f.set(DIRTY) && f.has(DIRTY | READY) && !f.has(READY));
        assert!(f.clear(DIRTY) && !f.clear(DIRTY));
    }
}
