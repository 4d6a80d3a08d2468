//! Starts a server for a test on free ports of loopback, and ends it.

use crate::connection::Targets;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A running server; it is killed when this is dropped.
pub struct Broker {
    child: Child,
    folder: PathBuf,
    /// Where it listens.
    pub targets: Targets,
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Who may log in.
const USER: &str = "alice";
const PASSWORD: &str = "secret of alice";

/// Tidegate as it was built: `TIDEGATE_BIN`, or beside the test that runs.
pub fn tidegate() -> Result<Broker, String> {
    let (tcp, ws, login) = (free_port()?, free_port()?, free_port()?);
    let folder = folder("tidegate")?;
    let binary = binary()?;
    let passwords = folder.join("passwd");
    passwd(Command::new(&binary).arg("passwd").arg(&passwords).args([USER, "--stdin"]))?;
    // The shipped configuration names its files from here.
    let mut command = Command::new(&binary);
    command.current_dir(house());
    command.arg("--config").arg(house().join("etc/tidegate.toml")).arg("--data").arg(&folder);
    for (key, value) in [
        ("MQTT__LISTENERS__TCP__BIND", format!("\"{tcp}\"")),
        ("MQTT__LISTENERS__WS__BIND", format!("\"{ws}\"")),
        ("MQTT__LISTENERS__LOGIN__BIND", format!("\"{login}\"")),
        ("MQTT__LISTENERS__LOGIN__ANONYMOUS", "\"never\"".to_owned()),
        ("MQTT__LISTENERS__TCP__ANONYMOUS", "\"always\"".to_owned()),
        ("MQTT__LISTENERS__WS__ANONYMOUS", "\"always\"".to_owned()),
        ("AUTH__PASSWORDS", format!("{passwords:?}")),
        ("AUTH__BANS__LOGIN_FAILURES", "0".to_owned()),
        ("HTTP__BIND", "\"127.0.0.1:0\"".to_owned()),
    ] {
        command.env(format!("TIDEGATE__{key}"), value);
    }
    // Gateways that no case speaks to must not be in the way of another server on this machine.
    let config = std::fs::read_to_string(house().join("etc/tidegate.toml")).unwrap_or_default();
    if config.contains("[coap.listeners.udp]") {
        command.env("TIDEGATE__COAP__LISTENERS__UDP__BIND", "\"127.0.0.1:0\"");
    }
    start(command, folder, Targets { tcp, ws: Some(ws), login: Some(login) })
}

/// Debian's mosquitto, open to all but for the listener that wants a login.
pub fn mosquitto() -> Result<Broker, String> {
    let (tcp, ws, login) = (free_port()?, free_port()?, free_port()?);
    let folder = folder("mosquitto")?;
    let config = folder.join("mosquitto.conf");
    let passwords = folder.join("passwd");
    passwd(Command::new("mosquitto_passwd").arg("-c").arg("-b").arg(&passwords).args([USER, PASSWORD]))?;
    let text = format!(
        "per_listener_settings true\nuser root\nmax_packet_size 1048576\n\
         listener {} 127.0.0.1\nallow_anonymous true\n\
         listener {} 127.0.0.1\nprotocol websockets\nallow_anonymous true\n\
         listener {} 127.0.0.1\nallow_anonymous false\npassword_file {}\n",
        tcp.port(),
        ws.port(),
        login.port(),
        passwords.display()
    );
    std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
    let mut command = Command::new("/usr/sbin/mosquitto");
    command.arg("-c").arg(&config);
    start(command, folder, Targets { tcp, ws: Some(ws), login: Some(login) })
}

/// The folder that holds the workspace.
pub fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

fn binary() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("TIDEGATE_BIN") {
        return Ok(path.into());
    }
    // A test lies in target/PROFILE/deps.
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let beside = test.ancestors().nth(2).map(|folder| folder.join("tidegate")).unwrap_or_default();
    if beside.exists() {
        return Ok(beside);
    }
    Err(format!(
        "{} is not there: cargo build -p tidegate, or TIDEGATE_BIN says where it is",
        beside.display()
    ))
}

/// Runs a command that makes a password file; it may read the password from its input.
fn passwd(command: &mut Command) -> Result<(), String> {
    let wrong = |error: std::io::Error| error.to_string();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(wrong)?;
    if let Some(mut input) = child.stdin.take() {
        // A command that has its password already does not read it.
        let _ = writeln!(input, "{PASSWORD}");
    }
    let status = child.wait().map_err(wrong)?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}")) }
}

fn start(mut command: Command, folder: PathBuf, targets: Targets) -> Result<Broker, String> {
    let log = folder.join("log");
    let file = std::fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let errors = file.try_clone().map_err(|error| error.to_string())?;
    command.stdin(Stdio::null()).stdout(file).stderr(errors);
    let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let mut broker = Broker { child, folder, targets };
    for _ in 0..200 {
        if let Ok(Some(status)) = broker.child.try_wait() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("{command:?} ended at once with {status}: {said}"));
        }
        if reachable(broker.targets.tcp) {
            return Ok(broker);
        }
        pause();
    }
    Err(format!("{command:?} does not listen at {}", broker.targets.tcp))
}

fn folder(name: &str) -> Result<PathBuf, String> {
    let folder = std::env::temp_dir().join(format!("dialogue-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

/// A port below those that the system gives to outgoing connections: nobody takes it before the server does, but for
/// another test, which begins elsewhere.
#[expect(clippy::disallowed_methods, reason = "asks the system for a free port")]
fn free_port() -> Result<SocketAddr, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 15_000 + (std::process::id().wrapping_mul(41).wrapping_add(step) % 17_000) as u16;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no port is free".into())
}

#[expect(clippy::disallowed_methods, reason = "asks whether the server listens yet")]
fn reachable(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

#[expect(clippy::disallowed_methods, reason = "waits until the server listens")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}
