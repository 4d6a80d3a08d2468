//! One worker's process, and a task for each of its pipes.

use std::process::Stdio;

use bytes::BytesMut;
use scripts::pipe::{Response, cut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// This binary, even if another one lies in its place by now: the two sides of a pipe are of one build.
pub(super) const BINARY: &str = "/proc/self/exe";
/// The subcommand, in the binary.
pub(super) const WORKER: &str = "script-worker";
/// Read at a time.
const CHUNK: usize = 64 << 10;

/// What is heard of a process: place of the worker, generation, and what.
pub(super) enum Event {
    /// It has answered.
    Said(usize, u32, Vec<Response>),
    /// It is no more, and why.
    Gone(usize, u32, String),
}

/// See the module. Dropped, it is killed.
pub(super) struct Process {
    input: mpsc::UnboundedSender<Vec<u8>>,
    tasks: [JoinHandle<()>; 2],
}

impl Process {
    /// Starts it; what is heard of it goes to `events`, also that it could not be started.
    pub(super) fn start(at: usize, generation: u32, events: mpsc::UnboundedSender<Event>) -> Process {
        // How much may wait is the pool's to say: a window of calls.
        let (input, output) = mpsc::unbounded_channel();
        let spawned = Command::new(BINARY)
            .arg0("tidegate")
            .arg(WORKER)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let (stdin, hear) = match spawned {
            Ok(mut child) => (child.stdin.take(), Ok(child)),
            Err(error) => (None, Err(format!("it cannot be started: {error}"))),
        };
        let tasks = [tokio::spawn(feed(stdin, output)), tokio::spawn(hear_all(at, generation, hear, events))];
        Process { input, tasks }
    }

    /// Bytes for the worker.
    pub(super) fn write(&self, bytes: Vec<u8>) {
        // One that does not read any more has died, which is heard.
        let _ = self.input.send(bytes);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn feed(stdin: Option<ChildStdin>, mut output: mpsc::UnboundedReceiver<Vec<u8>>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(bytes) = output.recv().await {
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn hear_all(
    at: usize,
    generation: u32,
    child: Result<Child, String>,
    events: mpsc::UnboundedSender<Event>,
) {
    let why = match child {
        Err(why) => why,
        Ok(mut child) => {
            let said = match child.stdout.take() {
                Some(stdout) => {
                    listen(stdout, |said| events.send(Event::Said(at, generation, said)).is_ok()).await
                }
                None => Err("it has no output".to_owned()),
            };
            match said {
                Err(why) => why,
                Ok(()) => child.wait().await.map_or_else(|e| e.to_string(), |status| status.to_string()),
            }
        }
    };
    // Nobody hears it when the gateway ends.
    let _ = events.send(Event::Gone(at, generation, why));
}

/// Hands over what it says until its output ends, or nobody wants to know any more.
async fn listen(mut stdout: ChildStdout, mut hear: impl FnMut(Vec<Response>) -> bool) -> Result<(), String> {
    let mut buf = BytesMut::new();
    loop {
        buf.reserve(CHUNK);
        if stdout.read_buf(&mut buf).await.map_err(|e| e.to_string())? == 0 {
            return Ok(());
        }
        let mut said = Vec::new();
        while let Some(message) = cut(&mut buf).map_err(|e| e.to_string())? {
            said.push(Response::decode(&message).map_err(|e| e.to_string())?);
        }
        if !said.is_empty() && !hear(said) {
            return Ok(());
        }
    }
}
