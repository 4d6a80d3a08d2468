//! Who is at the other end, and why a conversation with them ends.

use std::net::SocketAddr;
use std::sync::Arc;

/// A stable handle for one conversation of a driver; not an address. A slot is used again, its generation is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Place in the driver's table.
    pub slot: u32,
    /// Tells the conversations that had this slot one after the other apart.
    pub generation: u32,
}

/// What carries a conversation's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket over TCP.
    WebSocket,
    /// WebSocket over TLS.
    SecureWebSocket,
    /// UDP datagrams.
    Udp,
    /// DTLS over UDP.
    Dtls,
}

impl Transport {
    /// Whether it carries datagrams, and not a stream of bytes.
    pub fn is_datagram(self) -> bool {
        matches!(self, Transport::Udp | Transport::Dtls)
    }

    /// The name in logs, metrics and `$SYS`.
    pub fn label(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::WebSocket => "ws",
            Transport::SecureWebSocket => "wss",
            Transport::Udp => "udp",
            Transport::Dtls => "dtls",
        }
    }
}

/// What a certificate said, after its chain was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Subject common name, if it has one.
    pub common_name: Option<Box<str>>,
    /// SHA-256 of the DER encoding.
    pub fingerprint: [u8; 32],
}

/// What all conversations of a listener have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in configuration, logs and metrics.
    pub name: Box<str>,
    /// The protocol that its gateway speaks: `mqtt`, `coap`, …
    pub protocol: &'static str,
    /// Client ids are unique within a namespace.
    pub namespace: Box<str>,
    /// Prefix before every topic of its clients; may hold `%c` (client id) and `%u` (user name).
    pub mountpoint: Box<str>,
}

impl Listener {
    /// One that has neither namespace nor mountpoint.
    pub fn new(name: &str, protocol: &'static str) -> Listener {
        Listener { name: name.into(), protocol, namespace: "".into(), mountpoint: "".into() }
    }
}

/// What is known about a peer before it has said anything in its protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The peer's address: behind a proxy what the PROXY header says. IPv4-mapped IPv6 is given as IPv4.
    pub address: SocketAddr,
    /// Where it came in.
    pub listener: Arc<Listener>,
    /// How.
    pub transport: Transport,
    /// Its verified client certificate.
    pub certificate: Option<Arc<Certificate>>,
    /// The pre-shared key's identity that it has proven (RFC 4279).
    pub psk: Option<Arc<str>>,
    /// The client id that its credential stands for: its session can be opened before it has said anything.
    pub client_id: Option<Arc<str>>,
    /// Path and query of the HTTP request that became this WebSocket.
    pub path: Option<Box<str>>,
    /// The WebSocket subprotocol agreed on.
    pub subprotocol: Option<Box<str>>,
    /// Whether `address` may be trusted to be the client's own: no browser page of an origin that is not allowed and no
    /// HTTP proxy stands between. What is granted to loopback is granted only to direct peers.
    pub is_direct: bool,
}

impl Facts {
    /// Those of a peer that has proven nothing and with nothing between.
    pub fn new(listener: Arc<Listener>, transport: Transport, address: SocketAddr) -> Facts {
        Facts {
            address,
            listener,
            transport,
            certificate: None,
            psk: None,
            client_id: None,
            path: None,
            subprotocol: None,
            is_direct: true,
        }
    }
}

/// An enum whose variants are labels of counters: `ALL` lists them, `label` names them.
macro_rules! labelled {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every variant, in the order of its number.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The name in metrics, logs and `$SYS`.
            pub const fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

pub(crate) use labelled;

labelled! {
    /// Why a conversation ended.
    Close {
        /// The peer closed the transport without a word in its protocol.
        PeerClosed = "peer_closed",
        /// The peer said goodbye.
        Goodbye = "goodbye",
        /// The transport failed (reset, unreachable).
        TransportError = "transport_error",
        /// TLS: handshake or record failed.
        Tls = "tls",
        /// TLS: an identity that has no pre-shared key.
        PskIdentity = "psk_identity",
        /// TLS: the peer's pre-shared key is another one.
        PskKey = "psk_key",
        /// WebSocket or HTTP: not what was expected.
        WebSocket = "websocket",
        /// PROXY header missing or malformed.
        Proxy = "proxy",
        /// Bytes that are no packet of the protocol.
        Malformed = "malformed",
        /// A packet that may not come now, or breaks a rule of the protocol.
        ProtocolError = "protocol_error",
        /// A packet larger than the limit.
        TooLarge = "too_large",
        /// A protocol version that is not served.
        UnsupportedVersion = "unsupported_version",
        /// Nothing said in time to open the session.
        ConnectTimeout = "connect_timeout",
        /// Silent for longer than its keep-alive.
        KeepAlive = "keep_alive",
        /// An acknowledgement did not come in time.
        AckTimeout = "ack_timeout",
        /// Credentials refused.
        BadCredentials = "bad_credentials",
        /// Known, but may not do this.
        NotAuthorised = "not_authorised",
        /// Banned after too many failed logins, or by the operator.
        Banned = "banned",
        /// The client id is not acceptable.
        ClientId = "client_id",
        /// More than the receive maximum in flight (MQTT 5.0, 3.3.4).
        ReceiveMaximum = "receive_maximum",
        /// Topic alias out of range or unknown (MQTT 5.0, 3.3.2.3.4).
        TopicAlias = "topic_alias",
        /// A topic or filter that cannot be.
        Topic = "topic",
        /// Another connection took the session over.
        TakenOver = "taken_over",
        /// The peer is known already: it has moved here, and goes on as who it was.
        Moved = "moved",
        /// The operator ended it.
        Kicked = "kicked",
        /// The gateway stops.
        ShuttingDown = "shutting_down",
        /// A limit of the listener or the house was reached.
        QuotaExceeded = "quota_exceeded",
        /// The peer sends faster than its rate limit allows.
        RateLimited = "rate_limited",
        /// The peer does not read what it is sent.
        SlowPeer = "slow_peer",
        /// Idle for longer than such peers are remembered.
        Idle = "idle",
        /// DTLS: the association was given up for another one.
        Replaced = "replaced",
        /// The codec that the listener names is not there.
        NoCodec = "no_codec",
        /// A mistake of this program; it is logged.
        Internal = "internal",
    }
}

labelled! {
    /// Why something was dropped that did not end a conversation.
    Drop {
        /// Not authorised to publish to this topic.
        Acl = "acl",
        /// The session's queue is full.
        QueueFull = "queue_full",
        /// QoS 0 to a peer that does not read fast enough.
        SlowPeer = "slow_peer",
        /// The message expired before it was delivered.
        Expired = "expired",
        /// Larger than the receiver's maximum packet size (MQTT-3.1.2-24).
        TooLarge = "too_large",
        /// The session ended with the message undelivered.
        SessionEnded = "session_ended",
        /// The receiver refused the message (PUBACK or PUBREC of 0x80 or more; CoAP RST).
        Refused = "refused",
        /// The store of retained messages is full.
        RetainedFull = "retained_full",
        /// Too many messages wait for their delay.
        DelayedFull = "delayed_full",
        /// What must be kept finds no room in the store, or cannot be written to it.
        StoreFull = "store_full",
        /// A record of the store that could not be read.
        Damaged = "damaged",
        /// A datagram that is no message of the protocol.
        Malformed = "malformed",
        /// A duplicate that was answered from memory or ignored.
        Duplicate = "duplicate",
        /// A message that fits nothing that was sent (a late answer, an unknown token).
        Unexpected = "unexpected",
        /// More peers than the limit.
        PeersFull = "peers_full",
        /// Too many exchanges at once.
        ExchangesFull = "exchanges_full",
        /// Faster than the rate limit.
        RateLimited = "rate_limited",
        /// The socket's send buffer is full.
        SendBufferFull = "send_buffer_full",
        /// DTLS: a record that is not one, or does not belong to the state of its handshake.
        DtlsMalformed = "dtls_malformed",
        /// DTLS: a record that does not authenticate.
        DtlsForged = "dtls_forged",
        /// DTLS: a record that came before, or is too old to tell.
        DtlsReplayed = "dtls_replayed",
        /// DTLS: a record of an association that is not known here.
        DtlsUnknown = "dtls_unknown",
        /// DTLS: a handshake that failed or was not finished in time.
        DtlsHandshake = "dtls_handshake",
        /// DTLS: an identity that has no pre-shared key.
        DtlsIdentity = "dtls_identity",
        /// DTLS: the peer's pre-shared key is another one.
        DtlsKey = "dtls_key",
        /// DTLS: too many handshakes or associations; the oldest was given up.
        DtlsFull = "dtls_full",
        /// DTLS: a message that could not be sealed: its association has ended, or its record numbers are not kept yet.
        DtlsUnsent = "dtls_unsent",
        /// A request that nobody answers here.
        Unsupported = "unsupported",
        /// A frame that its codec cannot read.
        CodecFrame = "codec_frame",
        /// A frame of a device that has not said who it is.
        NoLogin = "no_login",
        /// A frame or a command that a script has failed on.
        ScriptFailed = "script_failed",
        /// A frame or a command that a script took too long for, or too much memory.
        ScriptLimit = "script_limit",
        /// A command that its codec cannot say to the device.
        CommandFailed = "command_failed",
        /// A command that the device has not answered in time.
        CommandTimeout = "command_timeout",
    }
}
