//! Starts a server for a test on free ports of loopback, and ends it.

use crate::connection::Targets;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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

/// Tidegate as it was built: `TIDEGATE_BIN`, or beside the test that runs.
pub fn tidegate() -> Result<Broker, String> {
    let (tcp, ws) = (free_port()?, free_port()?);
    let folder = folder("tidegate")?;
    let mut command = Command::new(binary()?);
    command.arg("--config").arg(house().join("etc/tidegate.toml")).arg("--data").arg(&folder);
    for (key, value) in [
        ("MQTT__LISTENERS__TCP__BIND", format!("\"{tcp}\"")),
        ("MQTT__LISTENERS__WS__BIND", format!("\"{ws}\"")),
        ("COAP__LISTENERS__UDP__BIND", "\"127.0.0.1:0\"".to_owned()),
        ("HTTP__BIND", "\"127.0.0.1:0\"".to_owned()),
    ] {
        command.env(format!("TIDEGATE__{key}"), value);
    }
    start(command, folder, Targets { tcp, ws: Some(ws) })
}

/// Debian's mosquitto, open to all.
pub fn mosquitto() -> Result<Broker, String> {
    let (tcp, ws) = (free_port()?, free_port()?);
    let folder = folder("mosquitto")?;
    let config = folder.join("mosquitto.conf");
    let text = format!(
        "listener {} 127.0.0.1\nlistener {} 127.0.0.1\nprotocol websockets\nallow_anonymous true\n\
         max_packet_size 1048576\n",
        tcp.port(),
        ws.port()
    );
    std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
    let mut command = Command::new("/usr/sbin/mosquitto");
    command.arg("-c").arg(&config);
    start(command, folder, Targets { tcp, ws: Some(ws) })
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

#[expect(clippy::disallowed_methods, reason = "asks the system for a free port")]
fn free_port() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    listener.local_addr().map_err(|error| error.to_string())
}

#[expect(clippy::disallowed_methods, reason = "asks whether the server listens yet")]
fn reachable(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

#[expect(clippy::disallowed_methods, reason = "waits until the server listens")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}
