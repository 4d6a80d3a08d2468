//! Lines for the local syslog socket, one datagram each: `<priority>tag[pid]: line` (RFC 3164, 4.1; the receiver adds time
//! and host).

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Facility 3, system daemons (RFC 3164, 4.1.1).
const DAEMON: u8 = 3 << 3;
/// Longest line sent; receivers cut at about this length.
const LINE: usize = 8 << 10;

/// See the module.
#[derive(Clone)]
pub(super) struct Syslog {
    path: PathBuf,
    tag: String,
    state: Arc<Mutex<State>>,
}

struct State {
    socket: UnixDatagram,
    /// Lines that could not be sent: the receiver is gone or does not keep up, and nobody waits for it.
    lost: u64,
}

impl Syslog {
    /// Connects to the socket.
    pub(super) fn open(path: impl AsRef<Path>, name: &str) -> io::Result<Syslog> {
        let path = path.as_ref().to_owned();
        let state = State { socket: connect(&path)?, lost: 0 };
        let tag = format!("{name}[{}]", std::process::id());
        Ok(Syslog { path, tag, state: Arc::new(Mutex::new(state)) })
    }

    fn send(&self, severity: u8, line: &str) {
        let mut state = self.state.lock();
        if state.lost > 0 {
            let text = self.frame(4, &format!("{} log lines were lost", state.lost));
            if self.try_send(&mut state, &text).is_err() {
                state.lost += 1;
                return;
            }
            state.lost = 0;
        }
        if self.try_send(&mut state, &self.frame(severity, line)).is_err() {
            state.lost += 1;
        }
    }

    fn frame(&self, severity: u8, line: &str) -> String {
        let line = line.trim_end_matches('\n');
        format!("<{}>{}: {}", DAEMON | severity, self.tag, &line[..line.floor_char_boundary(LINE)])
    }

    /// Sends; once more after connecting anew if the receiver was started again.
    fn try_send(&self, state: &mut State, text: &str) -> io::Result<()> {
        match state.socket.send(text.as_bytes()) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => {
                state.socket = connect(&self.path)?;
                state.socket.send(text.as_bytes())?;
            }
            other => {
                other?;
            }
        }
        Ok(())
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// One line on its way.
pub(super) struct Line<'a> {
    syslog: &'a Syslog,
    severity: u8,
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { syslog: self, severity: 6 }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        // RFC 3164, 4.1.1: error, warning, informational, debug.
        let severity = match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        Line { syslog: self, severity }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.syslog.send(self.severity, &String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tidegate-syslog-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 16 << 10];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }

    #[test]
    fn a_line_carries_priority_tag_and_text() {
        let folder = folder("line");
        let receiver = UnixDatagram::bind(folder.join("log")).unwrap();
        let syslog = Syslog::open(folder.join("log"), "tidegate").unwrap();
        let format = tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_level(false);
        let subscriber = tracing_subscriber::registry().with(format.with_writer(syslog));
        tracing::subscriber::with_default(subscriber, || tracing::warn!(listener = "tcp", "cannot accept"));
        let line = receive(&receiver);
        assert!(line.starts_with(&format!("<28>tidegate[{}]: ", std::process::id())), "{line}");
        assert!(line.ends_with("cannot accept listener=\"tcp\""), "{line}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn lines_lost_while_the_receiver_was_away_are_counted_and_told() {
        let folder = folder("lost");
        let receiver = UnixDatagram::bind(folder.join("log")).unwrap();
        let syslog = Syslog::open(folder.join("log"), "tidegate").unwrap();
        drop(receiver);
        std::fs::remove_file(folder.join("log")).unwrap();
        syslog.send(6, "one\n");
        syslog.send(6, "two\n");
        let receiver = UnixDatagram::bind(folder.join("log")).unwrap();
        syslog.send(3, "three\n");
        assert!(receive(&receiver).ends_with("2 log lines were lost"));
        assert!(receive(&receiver).ends_with("three"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_between_characters() {
        let folder = folder("long");
        let receiver = UnixDatagram::bind(folder.join("log")).unwrap();
        let syslog = Syslog::open(folder.join("log"), "t").unwrap();
        syslog.send(6, &"ü".repeat(LINE));
        assert_eq!(receive(&receiver).chars().filter(|c| *c == 'ü').count(), LINE / 2);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
