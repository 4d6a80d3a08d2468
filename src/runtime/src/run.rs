//! Start, reload and stop of the whole: opens every port, starts the drivers, and waits for signals.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use auth::Auth;
use codecs::Library;
use gateway::{Factory, Listener};
use parking_lot::RwLock;
use router::Router;
use store::Store;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::{Carrier, CodecsSetup, Durability, ListenerSetup, Setup, StoreSetup};
use crate::house::{House, Port, Traces};
use crate::keeper::Keeper;
use crate::layer::psk_tls::PskConfig;
use crate::layer::tls::TlsConfig;
use crate::mailbox::{Mail, Mailbox};
use crate::metrics::Metrics;
use crate::requests::{self, RequestTopic};
use crate::scripts::{self, Scripts};
use crate::{admin, datagram, descriptors, http, listen, sys, wait};

/// One listener with what makes its machines.
pub struct Gate {
    /// Its configuration.
    pub setup: ListenerSetup,
    /// The gateway behind it.
    pub factory: Arc<dyn Factory>,
}

/// Everything that is needed to run.
pub struct Plan {
    /// The runtime's configuration.
    pub setup: Setup,
    /// Topics and sessions.
    pub router: Router,
    /// Credentials and grants.
    pub auth: Auth,
    /// Codecs, those that are built in and those that an operator brings.
    pub library: Arc<Library>,
    /// The listeners.
    pub gates: Vec<Gate>,
    /// Called on SIGHUP after certificates were read again: applies what can be applied live, and logs what it cannot.
    pub reload: Box<dyn Fn(&House) + Send + Sync>,
}

/// Why the gateway does not start, in the operator's words.
#[derive(Debug)]
pub struct StartError(String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

enum Socket {
    Stream(mio::net::TcpListener),
    Datagram(std::net::UdpSocket),
}

/// Runs until SIGTERM or SIGINT and a graceful stop.
pub fn run(plan: Plan) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(cores().max(2))
        .build()
        .map_err(|e| StartError(format!("cannot start the runtime: {e}")))?;
    runtime.block_on(run_inside(plan))?;
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(())
}

/// Threads that a driver may check passwords on. Hashing takes one core for some 20 ms and 19 MiB: more threads than
/// cores, all drivers together, would only slow traffic down, and a storm of logins would take all memory.
fn login_threads(drivers: usize) -> usize {
    cores().div_ceil(drivers.max(1))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

async fn run_inside(plan: Plan) -> Result<(), StartError> {
    let Plan { setup, router, auth, library, gates, reload } = plan;
    let drivers = if setup.drivers == 0 { cores() } else { setup.drivers };
    let mut opened = Vec::new();
    for gate in gates {
        opened.push(open(gate)?);
    }
    let datagrams = opened.iter().filter(|(_, s)| matches!(s, Socket::Datagram(_))).count();
    let http = match setup.http {
        Some(address) => Some((address, bind_http(address).await?)),
        None => None,
    };
    // Messages and devices' keys lie in it.
    if let Err(e) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&setup.node.data) {
        return Err(StartError(format!("cannot make the data folder {}: {e}", setup.node.data.display())));
    }
    let most_connections = descriptors::most_connections();
    if most_connections < setup.limits.max_connections {
        tracing::info!(
            most_connections,
            "fewer than limits.max_connections: the system's limit of open files (ulimit -n)"
        );
    }
    let clock = Clock::start();
    let (router, store) = open_store(&setup, &clock, router)?;
    let scripts = Arc::new(Scripts::default());
    let keeper = Keeper::open(setup.codecs.clone(), &setup.node.data, library, scripts.clone(), clock);
    let house = Arc::new(House {
        node: setup.node.name.as_str().into(),
        clock,
        router,
        store,
        is_sync: setup.store.durability == Durability::Sync,
        was_failing: AtomicBool::new(false),
        auth,
        metrics: Metrics::default(),
        limits: RwLock::new(setup.limits),
        // The last are for requests to devices and for subscribers on the admin socket.
        boxes: (0..drivers + datagrams + 2).map(|_| Mailbox::default()).collect(),
        scripts,
        keeper: Arc::new(keeper),
        traces: Traces::default(),
        connections: AtomicUsize::new(0),
        most_connections,
        logins: AtomicUsize::new(0),
        is_ready: AtomicBool::new(false),
        request_topics: RequestTopic::of(opened.iter().map(|(port, _)| &**port)),
        data: setup.node.data.clone(),
        ports: opened.iter().map(|(port, _)| port.clone()).collect(),
    });
    let writer = match &house.store {
        Some(store) => Some(spawn_writer(house.clone(), store.clone())?),
        None => None,
    };
    spawn_scripts(house.clone(), &setup.codecs)?;
    let mut running = Vec::new();
    let mut accepting = Vec::new();
    let mut next = drivers;
    for (port, socket) in opened {
        let (name, protocol, bind) = (&port.facts.name, port.facts.protocol, port.setup.bind);
        tracing::info!(listener = %name, protocol, %bind, transport = port.transport(is_datagram(&socket)).label(), "listening");
        match socket {
            Socket::Stream(listener) => {
                accepting.push(tokio::spawn(listen::accept(house.clone(), port, listener, drivers)));
            }
            Socket::Datagram(socket) => {
                running.push(tokio::spawn(datagram::drive(house.clone(), next as u16, port, socket)));
                next += 1;
            }
        }
    }
    for id in 1..drivers {
        running.push(spawn_driver(house.clone(), id as u16)?);
    }
    running.push(tokio::spawn(wait::drive(house.clone(), 0)));
    if let Some((address, listener)) = http {
        tracing::info!(%address, "metrics and health");
        accepting.push(tokio::spawn(http::serve(listener, house.clone())));
    }
    if let Some(path) = &setup.admin {
        let listener = bind_admin(path)?;
        accepting.push(tokio::spawn(admin::serve(listener, house.clone())));
    }
    if !setup.codecs.watch.is_zero() {
        accepting.push(tokio::spawn(watch(house.clone(), setup.codecs.watch)));
    }
    if !house.request_topics.is_empty() {
        accepting.push(tokio::spawn(requests::serve(house.clone())));
    }
    if !setup.node.sys_interval.is_zero() {
        accepting.push(tokio::spawn(sys::publish_every(house.clone(), setup.node.sys_interval)));
    }
    house.is_ready.store(true, Ordering::Release);
    tracing::info!(node = %house.node, version = env!("CARGO_PKG_VERSION"), drivers, "ready");
    until_stopped(&house, &reload, &mut running).await?;
    house.is_ready.store(false, Ordering::Release);
    stop(&house, running, &accepting, setup.limits.stop_timeout).await;
    if let (Some(store), Some(writer)) = (&house.store, writer) {
        store.stop();
        // It is an error only if the thread has died, which it has logged.
        let _ = writer.await;
    }
    if let Some(path) = &setup.admin {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Opens the store and brings back what it has; nothing where nothing is to outlive the process.
fn open_store(
    setup: &Setup,
    clock: &Clock,
    router: Router,
) -> Result<(Router, Option<Arc<Store>>), StartError> {
    let StoreSetup { durability, batch_interval, max_messages, max_bytes } = setup.store;
    if durability == Durability::Memory {
        tracing::warn!(
            "store.durability is \"memory\": sessions and retained messages end with this process"
        );
        return Ok((router, None));
    }
    let interval = if durability == Durability::Batched { batch_interval } else { Duration::ZERO };
    let limits = store::Limits { max_messages, max_bytes: max_bytes as u64, interval };
    let folder = setup.node.data.join("store");
    let began = clock.now();
    let store = Store::open(&folder, limits).map_err(|e| StartError(e.to_string()))?;
    let store = Arc::new(store);
    let router = router.with_store(store.clone(), durability == Durability::Sync);
    let restored = router.restore(clock.now());
    let restored =
        restored.map_err(|e| StartError(format!("cannot read the store in {}: {e}", folder.display())))?;
    let ms = clock.now().instant.since(began.instant).as_millis() as u64;
    let router::Restored { sessions, subscriptions, retained, delayed, damaged } = restored;
    tracing::info!(sessions, subscriptions, retained, delayed, ms, "store opened");
    if damaged > 0 {
        tracing::error!(damaged, "records of the store could not be read and were left out");
    }
    Ok((router, Some(store)))
}

/// The store's writer, and beside it one who finds out what is still waited for; the handle ends with the writer.
fn spawn_writer(house: Arc<House>, store: Arc<Store>) -> Result<JoinHandle<()>, StartError> {
    let cannot = |e: io::Error| StartError(format!("cannot start the store's writer: {e}"));
    let (done, ended) = tokio::sync::oneshot::channel();
    let learner = store.clone();
    std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || {
            let micros = || house.clock.now().instant.as_micros();
            store.run(&micros, &|| house.store_has_tried());
            // The receiver is gone only if the process is ending.
            let _ = done.send(());
        })
        .map_err(cannot)?;
    std::thread::Builder::new()
        .name("store-look".to_owned())
        .spawn(move || learner.learn())
        .map_err(cannot)?;
    Ok(tokio::spawn(async move {
        if ended.await.is_err() {
            tracing::error!("the store's writer has died");
        }
    }))
}

/// What starts workers of scripts and talks to them; it ends with the process, and they with it.
fn spawn_scripts(house: Arc<House>, setup: &CodecsSetup) -> Result<(), StartError> {
    let (workers, limits) = (setup.workers, setup.limits());
    let cannot = |e: io::Error| StartError(format!("cannot start what runs scripts: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    std::thread::Builder::new()
        .name("scripts".to_owned())
        .spawn(move || runtime.block_on(scripts::serve(house, workers, limits)))
        .map_err(cannot)?;
    Ok(())
}

/// Looks at the folder of codecs again and again.
async fn watch(house: Arc<House>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let keeper = house.keeper.clone();
        // One that has failed is no reason not to look again.
        let _ = tokio::task::spawn_blocking(move || keeper.look()).await;
    }
}

fn is_datagram(socket: &Socket) -> bool {
    matches!(socket, Socket::Datagram(_))
}

fn open(gate: Gate) -> Result<(Arc<Port>, Socket), StartError> {
    let Gate { setup, factory } = gate;
    let cannot = |what: &str, e: &dyn std::fmt::Display| {
        StartError(format!("{}.listeners.{}: {what}: {e}", setup.protocol, setup.name))
    };
    let bind = setup.bind;
    let socket = match setup.carrier {
        Carrier::Stream => listen::bind_tcp(bind).map(Socket::Stream),
        Carrier::Datagram => listen::bind_udp(bind, &setup.groups).map(Socket::Datagram),
    }
    .map_err(|e| cannot(&format!("cannot listen on {bind}"), &e))?;
    let tls = match &setup.tls {
        Some(tls) => Some(Arc::new(TlsConfig::load(tls, setup.protocol).map_err(|e| cannot("TLS", &e))?)),
        None => None,
    };
    if let Some(dtls) = &setup.dtls {
        datagram::check(dtls).map_err(|e| cannot("DTLS", &e))?;
    }
    let psk_tls = setup.psk_tls.map(|tls| PskConfig::new(tls, setup.protocol).map_err(|e| cannot("TLS", &e)));
    let psk_tls = psk_tls.transpose()?;
    let facts = Arc::new(Listener {
        name: setup.name.as_str().into(),
        protocol: setup.protocol,
        namespace: setup.namespace.as_str().into(),
        mountpoint: setup.mountpoint.as_str().into(),
    });
    Ok((
        Arc::new(Port {
            facts,
            setup,
            factory,
            tls,
            psk_tls,
            open: AtomicUsize::new(0),
            associations: Default::default(),
        }),
        socket,
    ))
}

async fn bind_http(address: SocketAddr) -> Result<tokio::net::TcpListener, StartError> {
    tokio::net::TcpListener::bind(address)
        .await
        .map_err(|e| StartError(format!("http.bind: cannot listen on {address}: {e}")))
}

/// A Unix socket that only the owner may use (permission 0600). One that a killed process left behind is replaced.
fn bind_admin(path: &Path) -> Result<tokio::net::UnixListener, StartError> {
    use std::os::unix::fs::PermissionsExt;
    let cannot = |e: io::Error| StartError(format!("admin.socket: cannot listen on {}: {e}", path.display()));
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let text = format!("admin.socket: another tidegate is running and listens on {}", path.display());
        return Err(StartError(text));
    }
    if path.exists() {
        std::fs::remove_file(path).map_err(cannot)?;
    }
    // Bound under another name first: at no time can anybody else connect.
    let hidden: PathBuf = path.with_extension("starting");
    let _ = std::fs::remove_file(&hidden);
    let listener = tokio::net::UnixListener::bind(&hidden).map_err(cannot)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600)).map_err(cannot)?;
    std::fs::rename(&hidden, path).map_err(cannot)?;
    Ok(listener)
}

/// A driver on a thread and a runtime of its own; the handle ends with it.
fn spawn_driver(house: Arc<House>, id: u16) -> Result<JoinHandle<io::Result<()>>, StartError> {
    let (done, ended) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(login_threads(house.boxes.len()))
        .build()
        .map_err(|e| StartError(format!("cannot start driver {id}: {e}")))?;
    std::thread::Builder::new()
        .name(format!("driver-{id}"))
        .spawn(move || {
            let result = runtime.block_on(wait::drive(house, id));
            // The receiver is gone only if the process is ending.
            let _ = done.send(result);
        })
        .map_err(|e| StartError(format!("cannot start driver {id}: {e}")))?;
    Ok(tokio::spawn(async move {
        ended.await.unwrap_or_else(|_| Err(io::Error::other("the driver's thread has died")))
    }))
}

/// Returns when a stop was asked for; an error if a driver died.
async fn until_stopped(
    house: &Arc<House>,
    reload: &(dyn Fn(&House) + Send + Sync),
    running: &mut [JoinHandle<io::Result<()>>],
) -> Result<(), StartError> {
    let listen = |kind| signal(kind).map_err(|e| StartError(format!("cannot watch signals: {e}")));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hup = listen(SignalKind::hangup())?;
    let mut died = futures_first(running);
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
            _ = hup.recv() => {
                for port in &house.ports {
                    let Some(tls) = &port.tls else { continue };
                    match tls.reload() {
                        Ok(()) => tracing::info!(listener = %port.facts.name, "certificates read again"),
                        Err(e) => tracing::error!(listener = %port.facts.name, error = %e, "certificates kept as they were"),
                    }
                }
                let keeper = house.keeper.clone();
                // What cannot be read has been logged.
                tokio::task::spawn_blocking(move || keeper.reload(None));
                reload(house);
            }
            text = &mut died => return Err(StartError(text)),
        }
    }
}

/// Resolves when the first driver ends, which none does before a stop.
fn futures_first(
    running: &mut [JoinHandle<io::Result<()>>],
) -> std::pin::Pin<Box<dyn Future<Output = String> + '_>> {
    Box::pin(std::future::poll_fn(move |cx| {
        for handle in running.iter_mut() {
            if let std::task::Poll::Ready(result) = std::pin::Pin::new(handle).poll(cx) {
                let why = match result {
                    Ok(Ok(())) => "nobody has asked it to".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                return std::task::Poll::Ready(format!("a driver has ended: {why}"));
            }
        }
        std::task::Poll::Pending
    }))
}

async fn stop(
    house: &Arc<House>,
    running: Vec<JoinHandle<io::Result<()>>>,
    accepting: &[JoinHandle<()>],
    longest: Duration,
) {
    tracing::info!("stopping");
    accepting.iter().for_each(JoinHandle::abort);
    for mailbox in &house.boxes {
        mailbox.push(Mail::ShutDown);
    }
    let all = async {
        for handle in running {
            if let Ok(Err(error)) = handle.await {
                tracing::warn!(%error, "a driver ended with an error");
            }
        }
    };
    match tokio::time::timeout(longest, all).await {
        Ok(()) => tracing::info!("stopped"),
        Err(_) => tracing::warn!("stopped; some peers did not take their last bytes in time"),
    }
}
