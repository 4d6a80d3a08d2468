//! `[coap]`: transmission parameters and bounds of the CoAP gateway. The keys are described in `config.example.toml`.

use std::time::Duration;

use gateway::config::{Kind, Section};
use gateway::topic::check_name;

/// Which notifications are Confirmable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyType {
    /// Those of QoS 1 and 2.
    Qos,
    /// All.
    Con,
    /// None, but for what RFC 7641, 4.5 demands.
    Non,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// ACK_TIMEOUT (RFC 7252, 4.8).
    pub ack_timeout: Duration,
    /// MAX_RETRANSMIT.
    pub max_retransmit: u32,
    /// Longest time until a request is acknowledged although its answer is not ready.
    pub processing_delay: Duration,
    /// A conversation without session and observation is forgotten after this.
    pub idle_timeout: Duration,
    /// Keep-alive of a named session that asks for none.
    pub keep_alive: Duration,
    /// How long the session of a credential, or a named one, outlives its client's silence.
    pub session_expiry: Duration,
    /// Largest payload of one datagram in bytes.
    pub max_payload: usize,
    /// Largest body of a request or a representation in bytes.
    pub max_body_size: usize,
    /// Bytes for bodies that come in blocks and are not whole yet, of all peers together; as many for those that go.
    pub max_reassembly: usize,
    /// Requests of one peer remembered for de-duplication.
    pub max_exchanges: usize,
    /// The same of all peers together.
    pub max_exchanges_total: usize,
    /// Observations of one peer.
    pub max_observations: usize,
    /// See [`NotifyType`].
    pub notify_type: NotifyType,
    /// Whether answers to peers whose address was not verified stay below three times the request.
    pub amplification_limit: bool,
    /// Largest message that is taken over TCP and WebSocket, in bytes (Max-Message-Size; RFC 8323, 5.3.1).
    pub max_message_size: usize,
    /// A stream on which nothing was heard for so long is pinged, and closed if nothing is heard for so long again.
    pub ping_interval: Duration,
    /// Topics listed in `/.well-known/core`.
    pub max_discovered: usize,
    /// Where clients publish requests to devices: `{this}/{client id}/request`; empty is nowhere.
    pub request_topic: Box<str>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            ack_timeout: Duration::from_secs(2),
            max_retransmit: 4,
            processing_delay: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(300),
            keep_alive: Duration::from_secs(300),
            session_expiry: Duration::from_secs(7 * 86_400),
            max_payload: 1024,
            max_body_size: 4 << 20,
            max_reassembly: 64 << 20,
            max_exchanges: 4_096,
            max_exchanges_total: 2_000_000,
            max_observations: 100,
            notify_type: NotifyType::Qos,
            amplification_limit: true,
            max_message_size: 1 << 20,
            ping_interval: Duration::from_secs(120),
            max_discovered: 100,
            request_topic: "coap".into(),
        }
    }
}

impl Config {
    /// Reads the section `[coap]` but for its listeners.
    pub fn read(s: &mut Section<'_>) -> Config {
        let d = Config::default();
        let (ms, day) = (Duration::from_millis(100), Duration::from_secs(86_400));
        let types = [("qos", NotifyType::Qos), ("con", NotifyType::Con), ("non", NotifyType::Non)];
        Config {
            ack_timeout: s.duration("ack_timeout", d.ack_timeout, ms..=Duration::from_secs(60)),
            max_retransmit: s.number("max_retransmit", d.max_retransmit, 0..=10),
            processing_delay: s.duration("processing_delay", d.processing_delay, ms..=Duration::from_secs(1)),
            idle_timeout: s.duration("idle_timeout", d.idle_timeout, Duration::from_secs(1)..=day),
            keep_alive: s.duration("keep_alive", d.keep_alive, Duration::from_secs(1)..=day),
            session_expiry: s.duration("session_expiry", d.session_expiry, Duration::ZERO..=365 * day),
            max_payload: s.size("max_payload", d.max_payload, 64..=60_000),
            max_body_size: s.size("max_body_size", d.max_body_size, 1024..=16 << 20),
            max_reassembly: s.size("max_reassembly", d.max_reassembly, 65_536..=1 << 40),
            max_exchanges: s.number("max_exchanges", d.max_exchanges as u32, 4..=65_536) as usize,
            max_exchanges_total: s.number("max_exchanges_total", d.max_exchanges_total as u32, 4..=u32::MAX)
                as usize,
            max_observations: s.number("max_observations", d.max_observations as u32, 1..=65_536) as usize,
            notify_type: s.choice("notify_type", d.notify_type, &types),
            amplification_limit: s.flag("amplification_limit", d.amplification_limit),
            max_message_size: s.size("max_message_size", d.max_message_size, 1152..=16 << 20),
            ping_interval: s.duration("ping_interval", d.ping_interval, Duration::from_secs(1)..=day),
            max_discovered: s.number("max_discovered", d.max_discovered as u32, 0..=10_000) as usize,
            request_topic: s.read("request_topic", topic).unwrap_or(d.request_topic),
        }
    }
}

/// A topic that others can stand below, or nothing.
fn topic(kind: &Kind) -> Result<Box<str>, String> {
    match kind {
        Kind::Text(t) if t.is_empty() => Ok("".into()),
        Kind::Text(t) if check_name(t).is_ok() && !t.starts_with('$') && !t.ends_with('/') => {
            Ok(t.as_str().into())
        }
        _ => Err("must be a topic such as `coap`, without `+`, `#` and `$`, or empty".to_owned()),
    }
}
