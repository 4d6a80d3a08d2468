//! The whole in one process: what it says when it cannot start, and how it ends.
#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test, its helpers too")]
#![expect(
    clippy::disallowed_methods,
    reason = "this is the crate that opens sockets and spawns, and so do its tests"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use gateway::{
    Answer, Close, Deliver, Factory, Facts, Flow, Gateway, Instant, Now, Outbox, Peer, Stop, Ticket,
};
use runtime::config::{
    Carrier, CodecsSetup, Durability, Limits, ListenerSetup, Log, LogFormat, Node, Setup, StoreSetup,
};
use runtime::{Gate, Plan};

/// Sends back what it gets, and says goodbye.
struct Echo;

impl Gateway for Echo {
    fn opened(&mut self, _: Now, _: Peer, _: &Facts, _: &mut Outbox) {}

    fn input(&mut self, _: Now, peer: Peer, bytes: &mut BytesMut, out: &mut Outbox) -> Result<Flow, Close> {
        out.send(peer).extend_from_slice(bytes);
        bytes.advance(bytes.len());
        Ok(Flow::Continue)
    }

    fn deliver(&mut self, _: Now, _: Peer, _: &Deliver<'_>, _: &mut Outbox) {}

    fn reply(&mut self, _: Now, _: Peer, _: Ticket, _: Answer, _: &mut Outbox) {}

    fn stop(&mut self, _: Now, peer: Peer, _: Stop, out: &mut Outbox) {
        out.send(peer).extend_from_slice(b"goodbye");
    }

    fn closed(&mut self, _: Now, _: Peer, _: &mut Outbox) {}

    fn timeout(&mut self, _: Now, _: &mut Outbox) {}

    fn next_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn describe(&self, _: Peer, _: &mut Vec<(&'static str, String)>) {}
}

impl Factory for Echo {
    fn build(&self) -> Box<dyn Gateway> {
        Box::new(Echo)
    }
}

/// Signals are for all that run in a process.
static ALONE: Mutex<()> = Mutex::new(());

/// A folder that goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tidegate-node-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing is left to tell.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn gate(carrier: Carrier, bind: SocketAddr) -> Gate {
    let setup = ListenerSetup { max_connections: 100, ..ListenerSetup::new("here", "echo", bind, carrier) };
    Gate { setup, factory: Arc::new(Echo) }
}

fn plan(folder: &Path, gates: Vec<Gate>, http: Option<SocketAddr>) -> Plan {
    let node = Node { name: "n".to_owned(), data: folder.join("data"), sys_interval: Duration::ZERO };
    let codecs =
        CodecsSetup { folder: folder.join("codecs"), watch: Duration::ZERO, ..CodecsSetup::default() };
    let store = StoreSetup { durability: Durability::Memory, ..StoreSetup::default() };
    let setup = Setup {
        node,
        log: Log { level: "info".to_owned(), format: LogFormat::Human },
        http,
        admin: Some(folder.join("admin.sock")),
        drivers: 1,
        limits: Limits::default(),
        store,
        codecs,
    };
    let options = auth::Options { passwords: None, psk: None, acl: None, ..auth::Options::default() };
    let (auth, mistakes) = auth::Auth::open(&options, Arc::new(|_| false));
    assert!(mistakes.is_empty());
    let router = router::Router::new(router::Options::default());
    Plan { setup, router, auth, library: Arc::default(), gates, reload: Box::new(|_| {}) }
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[test]
fn who_finds_a_port_taken_says_which_key_and_which_address() {
    let folder = Folder::new("taken");
    let (stream, datagram) = (TcpListener::bind(any()).unwrap(), UdpSocket::bind(any()).unwrap());
    let (tcp, udp) = (stream.local_addr().unwrap(), datagram.local_addr().unwrap());
    let cases = [
        (vec![gate(Carrier::Stream, tcp)], None, format!("echo.listeners.here: cannot listen on {tcp}: ")),
        (vec![gate(Carrier::Datagram, udp)], None, format!("echo.listeners.here: cannot listen on {udp}: ")),
        (vec![gate(Carrier::Stream, any())], Some(tcp), format!("http.bind: cannot listen on {tcp}: ")),
    ];
    for (gates, http, text) in cases {
        let said = runtime::run(plan(&folder.0, gates, http)).unwrap_err().to_string();
        assert!(said.starts_with(&text) && said.contains("in use"), "{said}");
        assert!(!folder.0.join("data").exists(), "nothing was touched");
    }
}

/// Runs until it is asked to stop, at a port that is free; the address, and how it ends.
fn start(folder: &Path) -> (SocketAddr, std::thread::JoinHandle<Result<(), runtime::StartError>>) {
    for _ in 0..20 {
        // Somebody else may take it meanwhile: then another is tried.
        let free = TcpListener::bind(any()).unwrap().local_addr().unwrap();
        let plan = plan(folder, vec![gate(Carrier::Stream, free)], None);
        let running = std::thread::spawn(move || runtime::run(plan));
        while !running.is_finished() {
            // It answers there once it hears signals.
            if std::os::unix::net::UnixStream::connect(folder.join("admin.sock")).is_ok_and(|s| answers(&s)) {
                return (free, running);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    panic!("no port is free")
}

fn answers(mut admin: &std::os::unix::net::UnixStream) -> bool {
    let mut said = String::new();
    admin.write_all(b"{\"do\": \"clients.list\"}\n").is_ok()
        && admin.read_to_string(&mut said).is_ok()
        && !said.is_empty()
}

#[test]
fn a_listener_that_cannot_read_its_key_ends_the_start_and_says_why() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Folder::new("key");
    std::fs::create_dir_all(folder.0.join("data")).unwrap();
    std::fs::write(folder.0.join("data/dtls.key"), b"short").unwrap();
    let mut gate = gate(Carrier::Datagram, any());
    gate.setup.dtls = Some(runtime::config::Dtls {
        psk: true,
        certificate: None,
        client_ca: None,
        require_client_certificate: false,
        park_after: Duration::from_secs(60),
        mtu: 1280,
        max_half_open: 10,
        max_associations: 10,
        max_per_identity: 1,
    });
    let said = runtime::run(plan(&folder.0, vec![gate], None)).unwrap_err().to_string();
    let text = "cannot make or read dtls.key in the data folder: it has not 32 bytes";
    assert_eq!(said, format!("a driver has ended: {text}"));
}

#[test]
fn a_stop_says_goodbye_to_everybody_ends_well_and_leaves_no_socket() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Folder::new("stop");
    let (address, running) = start(&folder.0);
    let mut clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
    for client in &mut clients {
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(b"hello").unwrap();
        let mut echo = [0; 5];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"hello");
    }
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
    for client in &mut clients {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"goodbye");
    }
    drop(clients);
    running.join().unwrap().unwrap();
    assert!(!folder.0.join("admin.sock").exists());
}
