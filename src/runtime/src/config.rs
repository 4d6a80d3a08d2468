//! The runtime's own part of the configuration: node, log, HTTP, admin socket, drivers, limits and listeners.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use auth::ListenerRules;
use gateway::config::{Kind, Section};

mod codecs;

pub use codecs::CodecsSetup;

/// Everything the runtime reads, beside listeners.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// `[node]`: who this is and where its data lies.
    pub node: Node,
    /// `[log]`.
    pub log: Log,
    /// `[http] bind`: metrics and health; none is off.
    pub http: Option<SocketAddr>,
    /// `[admin] socket`: none is off.
    pub admin: Option<PathBuf>,
    /// `[drivers] count`: stream drivers; zero means one for each core.
    pub drivers: usize,
    /// `[limits]`.
    pub limits: Limits,
    /// `[store]`.
    pub store: StoreSetup,
    /// `[codecs]`.
    pub codecs: CodecsSetup,
}

/// When clients are told that what they sent is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is on the disk.
    Sync,
    /// At once; it is on the disk soon after.
    Batched,
    /// At once; nothing outlives the process.
    Memory,
}

/// What outlives the process, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSetup {
    /// See [`Durability`].
    pub durability: Durability,
    /// With [`Durability::Batched`]: the longest time until it is on the disk, beside what the disk takes itself.
    pub batch_interval: Duration,
    /// Most messages waiting in all durable sessions together.
    pub max_messages: u64,
    /// Most bytes of them on the disk.
    pub max_bytes: usize,
}

impl Default for StoreSetup {
    fn default() -> StoreSetup {
        StoreSetup {
            durability: Durability::Sync,
            batch_interval: Duration::from_millis(10),
            max_messages: 10_000_000,
            max_bytes: 8 << 30,
        }
    }
}

impl StoreSetup {
    fn read(mut s: Section<'_>) -> StoreSetup {
        let d = StoreSetup::default();
        let words =
            [("sync", Durability::Sync), ("batched", Durability::Batched), ("memory", Durability::Memory)];
        let longest = Duration::from_secs(60);
        let setup = StoreSetup {
            durability: s.choice("durability", d.durability, &words),
            batch_interval: s.duration(
                "batch_interval",
                d.batch_interval,
                Duration::from_millis(1)..=longest,
            ),
            max_messages: s.number("max_messages", d.max_messages, 1..=1_000_000_000_000),
            max_bytes: s.size("max_bytes", d.max_bytes, 1 << 20..=usize::MAX),
        };
        s.finish();
        setup
    }
}

/// See [`Setup::node`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name in `$SYS/brokers/{node}/…`.
    pub name: String,
    /// Folder for the store and the admin socket.
    pub data: PathBuf,
    /// Time between two rounds of `$SYS` messages; zero is off.
    pub sys_interval: Duration,
}

/// How log lines look and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people on standard error.
    Human,
    /// A JSON object a line on standard error.
    Json,
    /// The local syslog socket.
    Syslog,
}

/// See [`Setup::log`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,runtime=debug`.
    pub level: String,
    /// Form and target.
    pub format: LogFormat,
}

/// Bounds that hold for the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connections of all stream listeners together.
    pub max_connections: usize,
    /// Bytes waiting in one connection's output at which its session's queue is no longer drained.
    pub outbox: usize,
    /// A peer that takes no byte for this long while some wait for it is closed.
    pub write_timeout: Duration,
    /// Most password checks waiting or running at a time.
    pub max_logins: usize,
    /// Longest graceful stop.
    pub stop_timeout: Duration,
}

/// Of a listener, if nothing else is said.
const MAX_CONNECTIONS: u32 = 1_000_000;

/// One port.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSetup {
    /// Its name, unique within its protocol.
    pub name: String,
    /// Protocol of the gateway behind it.
    pub protocol: &'static str,
    /// Where it listens. `[::]` serves IPv4 too.
    pub bind: SocketAddr,
    /// Stream or datagram.
    pub carrier: Carrier,
    /// TLS, if any.
    pub tls: Option<Tls>,
    /// TLS with pre-shared keys, if any.
    pub psk_tls: Option<PskTls>,
    /// WebSocket, if any.
    pub websocket: Option<WebSocket>,
    /// DTLS, if any.
    pub dtls: Option<Dtls>,
    /// Multicast groups that a datagram listener joins.
    pub groups: Vec<IpAddr>,
    /// PROXY protocol header v1 or v2 demanded before anything else.
    pub proxy_protocol: bool,
    /// Client ids are unique within it.
    pub namespace: String,
    /// Prefix of all topics; `%c` and `%u` are filled in.
    pub mountpoint: String,
    /// Most connections (peers, for datagrams) at a time.
    pub max_connections: usize,
    /// Most new connections a second; zero is unlimited.
    pub connect_rate: u32,
    /// Most messages a second published by one client; zero is unlimited.
    pub message_rate: u32,
    /// Most bytes a second sent by one client; zero is unlimited.
    pub byte_rate: u32,
    /// Who may come in.
    pub rules: ListenerRules,
}

/// A listener's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file: the certificate, then its chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// PEM file with the authorities whose client certificates are accepted.
    pub client_ca: Option<PathBuf>,
    /// With `client_ca`: whether a client must have one.
    pub require_client_certificate: bool,
    /// Whether TLS 1.2 is refused.
    pub only_1_3: bool,
}

/// A listener's TLS with pre-shared keys in place of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PskTls {
    /// Whether TLS 1.2 is refused.
    pub only_1_3: bool,
}

/// A listener's DTLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dtls {
    /// Whether pre-shared keys are accepted.
    pub psk: bool,
    /// PEM files: the certificate with its chain, and its private key; none is PSK alone.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// PEM file with the authorities whose client certificates are accepted.
    pub client_ca: Option<PathBuf>,
    /// With `client_ca`: whether a client that shows no pre-shared key must have one.
    pub require_client_certificate: bool,
    /// An association that is idle for so long is parked: a few hundred bytes.
    pub park_after: Duration,
    /// Largest datagram in bytes.
    pub mtu: usize,
    /// Most handshakes at a time; the oldest of the host that has most goes.
    pub max_half_open: usize,
    /// Most associations, parked or not; the one that is silent longest goes.
    pub max_associations: usize,
    /// Most associations of one credential: a device that has lost its connection id leaves the earlier one behind.
    pub max_per_identity: usize,
}

/// A listener's WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocket {
    /// Path of the request, such as `/mqtt`.
    pub path: String,
    /// `Origin`s of browsers that may come in; empty allows all.
    pub allowed_origins: Vec<String>,
}

/// Kinds of listeners a gateway can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// TCP and what is layered over it.
    Stream,
    /// UDP.
    Datagram,
}

impl Setup {
    /// Reads `[node]`, `[log]`, `[http]`, `[admin]`, `[drivers]`, `[limits]`, `[store]` and `[codecs]` from the root section.
    pub fn read(root: &mut Section<'_>) -> Setup {
        let node = {
            let mut s = root.section("node");
            let name = s
                .read("name", |k| match k {
                    Kind::Text(t) if !t.is_empty() && !t.contains(['/', '+', '#', '\0']) => Ok(t.clone()),
                    _ => Err("must be a name without `/`, `+` and `#`".to_owned()),
                })
                .unwrap_or_else(|| "tidegate".to_owned());
            let data = s.text("data").map_or_else(|| PathBuf::from("./data"), PathBuf::from);
            let day = Duration::from_secs(86_400);
            let sys_interval = s.duration("sys_interval", Duration::from_secs(60), Duration::ZERO..=day);
            s.finish();
            Node { name, data, sys_interval }
        };
        let log = {
            let mut s = root.section("log");
            let level = s.text("level").unwrap_or_else(|| "info".to_owned());
            let words =
                [("human", LogFormat::Human), ("json", LogFormat::Json), ("syslog", LogFormat::Syslog)];
            let format = s.choice("format", LogFormat::Human, &words);
            s.finish();
            Log { level, format }
        };
        let http = {
            let mut s = root.section("http");
            let default = Some(SocketAddr::from(([127, 0, 0, 1], 9464)));
            let bind = s
                .read("bind", |k| match k {
                    Kind::Text(t) if t == "off" => Ok(None),
                    Kind::Text(t) => t.parse().map(Some).map_err(|_| bad_address(t)),
                    _ => Err(bad_address("?")),
                })
                .unwrap_or(default);
            s.finish();
            bind
        };
        let admin = {
            let mut s = root.section("admin");
            let socket = match s.text("socket").as_deref() {
                Some("off") => None,
                Some(path) => Some(PathBuf::from(path)),
                None => Some(node.data.join("admin.sock")),
            };
            s.finish();
            socket
        };
        let drivers = {
            let mut s = root.section("drivers");
            let count = s.number("count", 0, 0..=1024);
            s.finish();
            count
        };
        let limits = Limits::read(root.section("limits"));
        let store = StoreSetup::read(root.section("store"));
        let codecs = CodecsSetup::read(root.section("codecs"));
        Setup { node, log, http, admin, drivers, limits, store, codecs }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 1_000_000,
            outbox: 256 << 10,
            write_timeout: Duration::from_secs(60),
            max_logins: 1024,
            stop_timeout: Duration::from_secs(10),
        }
    }
}

impl Limits {
    fn read(mut s: Section<'_>) -> Limits {
        let d = Limits::default();
        let hour = Duration::from_secs(3600);
        let limits = Limits {
            max_connections: s.number("max_connections", d.max_connections as u32, 1..=u32::MAX) as usize,
            outbox: s.size("outbox", d.outbox, 4096..=1 << 30),
            write_timeout: s.duration("write_timeout", d.write_timeout, Duration::from_secs(1)..=hour),
            max_logins: s.number("max_logins", d.max_logins as u32, 1..=1_000_000) as usize,
            stop_timeout: s.duration("stop_timeout", d.stop_timeout, Duration::ZERO..=hour),
        };
        s.finish();
        limits
    }
}

fn bad_address(text: &str) -> String {
    format!("\"{text}\" is not an address such as \"127.0.0.1:9464\" or \"off\"")
}

impl ListenerSetup {
    /// One of which nothing else is said.
    pub fn new(name: &str, protocol: &'static str, bind: SocketAddr, carrier: Carrier) -> ListenerSetup {
        ListenerSetup {
            name: name.to_owned(),
            protocol,
            bind,
            carrier,
            tls: None,
            psk_tls: None,
            websocket: None,
            dtls: None,
            groups: Vec::new(),
            proxy_protocol: false,
            namespace: String::new(),
            mountpoint: String::new(),
            max_connections: MAX_CONNECTIONS as usize,
            connect_rate: 0,
            message_rate: 0,
            byte_rate: 0,
            rules: ListenerRules::default(),
        }
    }

    /// Reads one entry of `[PROTOCOL.listeners]`; None if it is switched off or cannot be used.
    /// `carriers` are those that the gateway can serve, the one first that it is without a word; `mountpoint` likewise. What the gateway itself has
    /// to say of it, `own` reads.
    pub fn read<T>(
        protocol: &'static str,
        carriers: &[Carrier],
        mountpoint: &str,
        name: &str,
        mut s: Section<'_>,
        own: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<(ListenerSetup, T)> {
        let enabled = s.flag("enabled", true);
        let has_bind = s.has("bind");
        let bind = s.parsed::<SocketAddr>("bind", "an address such as \"[::]:1883\" or \"127.0.0.1:1883\"");
        if !has_bind && enabled {
            let place = s.place().clone();
            s.mistake(place, "bind", "is missing: where to listen, such as \"[::]:1883\"");
        }
        let carrier = read_carrier(carriers, &mut s);
        let ((tls, psk_tls), websocket, proxy_protocol) = match carrier {
            Carrier::Stream => {
                (read_tls(&mut s), read_websocket(protocol, &mut s), s.flag("proxy_protocol", false))
            }
            Carrier::Datagram => ((None, None), None, false),
        };
        let dtls = match carrier {
            Carrier::Stream => None,
            Carrier::Datagram => read_dtls(&mut s),
        };
        let groups = match carrier {
            Carrier::Stream => Vec::new(),
            Carrier::Datagram => {
                if dtls.is_some() && s.has("groups") {
                    let place = s.place().clone();
                    s.mistake(place, "groups", "DTLS has none (RFC 7252, 9.1)");
                }
                s.read("groups", read_groups).unwrap_or_default()
            }
        };
        let namespace = s.text("namespace").unwrap_or_default();
        let mountpoint = s.read("mountpoint", read_mountpoint).unwrap_or_else(|| mountpoint.to_owned());
        let max_connections = s.number("max_connections", MAX_CONNECTIONS, 1..=u32::MAX) as usize;
        let connect_rate = s.number("connect_rate", 0, 0..=u32::MAX);
        let message_rate = s.number("message_rate", 0, 0..=u32::MAX);
        let byte_rate = s.number("byte_rate", 0, 0..=u32::MAX);
        let rules = ListenerRules::read(&mut s);
        let own = own(&mut s);
        s.finish();
        if !enabled {
            return None;
        }
        let setup = ListenerSetup {
            name: name.to_owned(),
            protocol,
            bind: bind?,
            carrier,
            tls,
            psk_tls,
            websocket,
            dtls,
            groups,
            proxy_protocol,
            namespace,
            mountpoint,
            max_connections,
            connect_rate,
            message_rate,
            byte_rate,
            rules,
        };
        Some((setup, own))
    }
}

fn read_groups(kind: &Kind) -> Result<Vec<IpAddr>, String> {
    let text = || "must be a list of multicast addresses such as [\"224.0.1.187\", \"ff02::fd\"]".to_owned();
    let Kind::List(list) = kind else { return Err(text()) };
    let address = |value: &gateway::config::Value| match &value.kind {
        Kind::Text(t) => t.parse().ok().filter(IpAddr::is_multicast),
        _ => None,
    };
    list.iter().map(|value| address(value).ok_or_else(text)).collect()
}

/// `transport`, of gateways that serve several; a section says it too.
fn read_carrier(carriers: &[Carrier], s: &mut Section<'_>) -> Carrier {
    let Some(default) = carriers.first().copied() else { return Carrier::Stream };
    if carriers.len() == 1 {
        return default;
    }
    let stream = ["tls", "websocket"].into_iter().find(|key| s.has(key));
    let implied = match stream {
        Some(_) => Carrier::Stream,
        None if s.has("dtls") => Carrier::Datagram,
        None => default,
    };
    let words = [("udp", Carrier::Datagram), ("tcp", Carrier::Stream)];
    let carrier = s.choice("transport", implied, &words);
    let place = s.place().clone();
    match (carrier, stream) {
        (Carrier::Datagram, Some(key)) => {
            s.mistake(place, key, "needs transport = \"tcp\"");
            // Its keys are looked at all the same.
            Carrier::Stream
        }
        (Carrier::Stream, _) if s.has("dtls") => {
            s.mistake(place, "dtls", "needs transport = \"udp\", without sections tls and websocket");
            s.take("dtls");
            Carrier::Stream
        }
        _ => carrier,
    }
}

fn read_mountpoint(kind: &Kind) -> Result<String, String> {
    match kind {
        Kind::Text(t) if t.is_empty() => Ok(String::new()),
        Kind::Text(t) if t.len() <= 1024 && gateway::topic::check_name(t).is_ok() => Ok(t.clone()),
        _ => Err("must be a topic prefix such as \"tenant1/\", without wildcards, of at most 1024 bytes"
            .to_owned()),
    }
}

/// Certificates or pre-shared keys: what serves the one cannot serve the other.
fn read_tls(s: &mut Section<'_>) -> (Option<Tls>, Option<PskTls>) {
    if !s.has("tls") {
        s.take("tls");
        return (None, None);
    }
    let mut s = s.section("tls");
    let psk = s.flag("psk", false);
    let mut path = |key: &'static str| match (s.text(key), psk) {
        (Some(t), false) => Some(PathBuf::from(t)),
        (None, true) => None,
        (given, _) => {
            let place = s.place().clone();
            let both = "with psk = true there are no certificates: these need a listener of their own";
            s.mistake(place, key, if given.is_some() { both } else { "is missing: a PEM file" });
            None
        }
    };
    let (certificate, key) = (path("certificate"), path("key"));
    let client_ca = s.text("client_ca").map(PathBuf::from);
    let require_client_certificate = s.flag("require_client_certificate", false);
    let place = s.place().clone();
    if psk && client_ca.is_some() {
        s.mistake(place, "client_ca", "with psk = true there are no certificates");
    } else if require_client_certificate && client_ca.is_none() {
        s.mistake(place, "require_client_certificate", "needs client_ca: the authorities to accept");
    }
    let only_1_3 = s.choice("min_version", false, &[("1.2", false), ("1.3", true)]);
    s.finish();
    if psk {
        return (None, Some(PskTls { only_1_3 }));
    }
    let (Some(certificate), Some(key)) = (certificate, key) else { return (None, None) };
    (Some(Tls { certificate, key, client_ca, require_client_certificate, only_1_3 }), None)
}

fn read_dtls(s: &mut Section<'_>) -> Option<Dtls> {
    if !s.has("dtls") {
        s.take("dtls");
        return None;
    }
    let mut s = s.section("dtls");
    let mut path = |key: &'static str| s.text(key).map(PathBuf::from);
    let (certificate, key, client_ca) = (path("certificate"), path("key"), path("client_ca"));
    let psk = s.flag("psk", true);
    let require_client_certificate = s.flag("require_client_certificate", client_ca.is_some());
    let mistake = |s: &mut Section<'_>, key: &'static str, text: &str| {
        let place = s.place().clone();
        s.mistake(place, key, text);
    };
    if certificate.is_some() != key.is_some() {
        let missing = if key.is_some() { "certificate" } else { "key" };
        mistake(&mut s, missing, "is missing: a PEM file");
    }
    if certificate.is_none() && !psk {
        mistake(&mut s, "psk", "is off and there is no certificate: nobody could come in");
    }
    if require_client_certificate && client_ca.is_none() {
        mistake(&mut s, "require_client_certificate", "needs client_ca: the authorities to accept");
    }
    let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
    let dtls = Dtls {
        psk,
        certificate: certificate.zip(key),
        client_ca,
        require_client_certificate,
        park_after: s.duration("park_after", 60 * second, second..=day),
        mtu: s.number("mtu", 1280, 304..=4144) as usize,
        max_half_open: s.number("max_half_open", 1000, 1..=1_000_000) as usize,
        max_associations: s.number("max_associations", 1_000_000, 1..=u32::MAX) as usize,
        max_per_identity: s.number("max_per_identity", 4, 1..=1000) as usize,
    };
    s.finish();
    Some(dtls)
}

fn read_websocket(protocol: &'static str, s: &mut Section<'_>) -> Option<WebSocket> {
    if !s.has("websocket") {
        s.take("websocket");
        return None;
    }
    let mut s = s.section("websocket");
    let path = s
        .read("path", |k| match k {
            Kind::Text(t) if t.starts_with('/') => Ok(t.clone()),
            _ => Err("must be a path such as \"/mqtt\"".to_owned()),
        })
        .unwrap_or_else(|| default_path(protocol));
    let allowed_origins = s.texts("allowed_origins").unwrap_or_default();
    s.finish();
    Some(WebSocket { path, allowed_origins })
}

/// CoAP's is a well-known one (RFC 8323, 4.1).
fn default_path(protocol: &str) -> String {
    if protocol == "coap" { "/.well-known/coap".to_owned() } else { format!("/{protocol}") }
}
