//! `[router]`: bounds, queues, shared subscriptions, rewrite rules and automatic subscriptions.

use std::time::Duration;

use gateway::config::{Kind, Section};
use gateway::topic::check_filter;
use gateway::{Filter, Qos};
use regex::Regex;

/// What happens to a message of QoS 1 or 2 for a session whose queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// The oldest waiting message goes.
    DropOldest,
    /// The publisher is told (MQTT 5.0: 0x97 Quota exceeded).
    Refuse,
}

/// Which member of a shared subscription gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The same until it cannot.
    Sticky,
    /// By the publisher.
    HashClient,
    /// By the topic.
    HashTopic,
    /// Members of this node first; on one node as `RoundRobin`.
    LocalFirst,
}

/// Which topics a rewrite rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteAction {
    /// Names published to.
    Publish,
    /// Filters subscribed to.
    Subscribe,
    /// Both.
    All,
}

/// One rewrite rule: topics that match `source` and `pattern` become `target`, with `$1`, `$2` … from the pattern and
/// `%c`, `%u` from the client. The last rule that matches wins.
#[derive(Clone, Debug)]
pub struct Rewrite {
    pub(crate) action: RewriteAction,
    pub(crate) source: String,
    pub(crate) pattern: Regex,
    pub(crate) target: String,
}

/// A subscription made for every client when it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoSubscribe {
    pub(crate) filter: String,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: u8,
}

/// See the module. Each key is described in `etc/tidegate.toml`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sessions, connected or not.
    pub max_sessions: usize,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Messages waiting for one session, beside those in flight.
    pub max_queued: usize,
    /// Their bytes.
    pub max_queued_bytes: usize,
    /// Deliveries of QoS 1 and 2 in flight to one client, whatever more its receive maximum allows; their bytes have the
    /// bound of those that wait.
    pub max_inflight: u16,
    /// See [`OnFull`].
    pub on_full: OnFull,
    /// Whether QoS 0 waits for sessions that are not connected.
    pub queue_qos0: bool,
    /// Longest session expiry.
    pub max_session_expiry: Duration,
    /// Retained messages.
    pub max_retained: usize,
    /// Their bytes.
    pub max_retained_bytes: usize,
    /// Delayed messages.
    pub max_delayed: usize,
    /// Their bytes.
    pub max_delayed_bytes: usize,
    /// Longest delay.
    pub max_delay: Duration,
    /// See [`Strategy`].
    pub share_strategy: Strategy,
    /// Whether QoS 1 messages of a shared subscription go to another member already when theirs disconnects.
    pub redispatch_on_disconnect: bool,
    /// In the order of the file.
    pub rewrite: Vec<Rewrite>,
    /// In the order of the file.
    pub auto_subscribe: Vec<AutoSubscribe>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_sessions: 1_000_000,
            max_subscriptions: 10_000,
            max_queued: 10_000,
            max_queued_bytes: 16 << 20,
            max_inflight: 1024,
            on_full: OnFull::DropOldest,
            queue_qos0: false,
            max_session_expiry: Duration::MAX,
            max_retained: 1_000_000,
            max_retained_bytes: 1 << 30,
            max_delayed: 100_000,
            max_delayed_bytes: 64 << 20,
            max_delay: Duration::from_secs(4_294_967),
            share_strategy: Strategy::RoundRobin,
            redispatch_on_disconnect: false,
            rewrite: Vec::new(),
            auto_subscribe: Vec::new(),
        }
    }
}

impl Options {
    /// Reads the section `[router]`.
    pub fn read(s: &mut Section<'_>) -> Options {
        let d = Options::default();
        let strategies = [
            ("round_robin", Strategy::RoundRobin),
            ("random", Strategy::Random),
            ("sticky", Strategy::Sticky),
            ("hash_client", Strategy::HashClient),
            ("hash_topic", Strategy::HashTopic),
            ("local_first", Strategy::LocalFirst),
        ];
        let full = [("drop_oldest", OnFull::DropOldest), ("refuse", OnFull::Refuse)];
        let forever = Duration::MAX;
        let count =
            |s: &mut Section<'_>, key, default: usize| s.number(key, default as u32, 1..=u32::MAX) as usize;
        Options {
            max_sessions: count(s, "max_sessions", d.max_sessions),
            max_subscriptions: count(s, "max_subscriptions", d.max_subscriptions),
            max_queued: count(s, "max_queued", d.max_queued),
            max_queued_bytes: s.size("max_queued_bytes", d.max_queued_bytes, 1024..=usize::MAX),
            max_inflight: s.number("max_inflight", d.max_inflight, 1..=u16::MAX),
            on_full: s.choice("on_full", d.on_full, &full),
            queue_qos0: s.flag("queue_qos0", d.queue_qos0),
            max_session_expiry: s.duration(
                "max_session_expiry",
                d.max_session_expiry,
                Duration::ZERO..=forever,
            ),
            max_retained: count(s, "max_retained", d.max_retained),
            max_retained_bytes: s.size("max_retained_bytes", d.max_retained_bytes, 0..=usize::MAX),
            max_delayed: count(s, "max_delayed", d.max_delayed),
            max_delayed_bytes: s.size("max_delayed_bytes", d.max_delayed_bytes, 0..=usize::MAX),
            max_delay: s.duration("max_delay", d.max_delay, Duration::ZERO..=forever),
            share_strategy: s.choice("share_strategy", d.share_strategy, &strategies),
            redispatch_on_disconnect: s.flag("redispatch_on_disconnect", d.redispatch_on_disconnect),
            rewrite: s.list("rewrite", read_rewrite).into_iter().flatten().collect(),
            auto_subscribe: s.list("auto_subscribe", read_auto_subscribe).into_iter().flatten().collect(),
        }
    }
}

fn required(
    s: &mut Section<'_>,
    key: &'static str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Option<String> {
    if !s.has(key) {
        let place = s.place().clone();
        s.mistake(place, key, "is missing");
    }
    s.read(key, |k| match k {
        Kind::Text(t) => check(t).map(|()| t.clone()),
        _ => Err("must be text".to_owned()),
    })
}

fn read_rewrite(mut s: Section<'_>) -> Option<Rewrite> {
    let actions = [
        ("publish", RewriteAction::Publish),
        ("subscribe", RewriteAction::Subscribe),
        ("all", RewriteAction::All),
    ];
    let action = s.choice("action", RewriteAction::All, &actions);
    let source = required(&mut s, "source", |t| check_filter(t).map_err(|e| e.to_string()));
    let pattern = required(&mut s, "pattern", |t| Regex::new(t).map(drop).map_err(|e| e.to_string()));
    let target =
        required(&mut s, "target", |t| if t.is_empty() { Err("is empty".to_owned()) } else { Ok(()) });
    s.finish();
    Some(Rewrite { action, source: source?, pattern: Regex::new(&pattern?).ok()?, target: target? })
}

fn read_auto_subscribe(mut s: Section<'_>) -> Option<AutoSubscribe> {
    let filter = required(&mut s, "filter", |t| Filter::parse(t).map(drop).map_err(|e| e.to_string()));
    let qos = Qos::from_u8(s.number("qos", 0, 0..=2)).unwrap_or_default();
    let no_local = s.flag("no_local", false);
    let retain_as_published = s.flag("retain_as_published", false);
    let retain_handling = s.number("retain_handling", 0, 0..=2);
    s.finish();
    Some(AutoSubscribe { filter: filter?, qos, no_local, retain_as_published, retain_handling })
}
