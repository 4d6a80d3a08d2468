//! What an [`Endpoint`](crate::Endpoint) tells its caller.

use std::fmt;
use std::net::SocketAddr;

/// An association: the connection id that this endpoint chose for it, on the wire only where the peer has that too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub [u8; 8]);

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Who the peer proved to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// It has the key of this identity.
    Psk(Box<[u8]>),
    /// It has the key of this certificate.
    Certificate {
        /// The subject's common name, if it has one and it is UTF-8.
        common_name: Option<Box<str>>,
        /// SHA-256 of the DER.
        fingerprint: [u8; 32],
    },
    /// It gave no certificate, and none is required.
    Nobody,
}

/// Something to do or to know.
#[derive(Debug)]
pub enum Event<'a> {
    /// Send: a flight of a handshake, an alert, a HelloVerifyRequest.
    Send {
        /// Where to.
        to: SocketAddr,
        /// One datagram.
        datagram: &'a [u8],
    },
    /// A handshake is over.
    Opened {
        /// The new association.
        id: Id,
        /// Where it was made from.
        from: SocketAddr,
        /// Who the peer is.
        identity: &'a Identity,
        /// Whether the peer uses connection ids: then its address may change.
        has_cid: bool,
        /// The association that this one takes the place of. `Closed` follows for it.
        replaces: Option<Id>,
    },
    /// A record with application data that was never seen before.
    Data {
        /// The association.
        id: Id,
        /// Where it came from: not the peer's address until that is shown reachable.
        from: SocketAddr,
        /// No later record came before it: only such a record may move the association.
        is_newest: bool,
        /// Plain text.
        payload: &'a [u8],
    },
    /// An association is over; nothing names it after this.
    Closed {
        /// The association.
        id: Id,
        /// What ended it.
        why: Closed,
    },
    /// Write down this association: replaces an earlier `Keep` and `KeepNumbers` of it.
    Keep {
        /// The association.
        id: Id,
        /// Sealed.
        record: &'a [u8],
    },
    /// Write down the numbers of this association, replacing earlier ones, before or with what the next events cause.
    KeepNumbers {
        /// The association.
        id: Id,
        /// Authenticated.
        record: &'a [u8],
        /// The reservation in it: hand it to [`kept`](crate::Endpoint::kept) once written.
        reserved: Reserved,
    },
    /// Delete what was written of this association.
    Forget {
        /// The association.
        id: Id,
    },
    /// Something that came was of no use.
    Drop(Reason),
}

/// Outgoing record numbers below this one are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reserved(pub(crate) u64);

/// What ended an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer sent close_notify, or a fatal alert.
    ByPeer,
    /// `close` was called.
    ByUs,
    /// A new association of the same peer took its place.
    Replaced,
    /// Its identity has as many newer ones as it may have.
    TooManyOfIdentity,
    /// The endpoint has as many associations as it may have, and this one was idle.
    TooMany,
    /// What was saved of it cannot be loaded.
    Lost,
    /// The engine gave it up.
    Failed,
}

/// Why something that came was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Not a record of DTLS 1.2.
    Malformed,
    /// A ClientHello that cannot be read, or is in fragments.
    BadHello,
    /// The cookie is not one that this address was given lately.
    BadCookie,
    /// No association has this connection id.
    UnknownId,
    /// No association has this address.
    UnknownAddress,
    /// The record was seen before, or is too old to tell.
    Replay,
    /// The record is not authentic.
    BadMac,
    /// Not tried: too many records that were not authentic named this parked association within a second.
    TooManyBadMacs,
    /// This half-open handshake made room for a newer one.
    HalfOpenFull,
    /// The PSK identity is not known.
    UnknownIdentity,
    /// The peer has another key than we for its identity.
    WrongKey,
    /// The peer's certificate is missing or not good, or no suite is common.
    HandshakeFailed,
    /// The peer did not finish its handshake in time.
    HandshakeTimeout,
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = Reason::HandshakeTimeout as usize + 1;
}
