//! A worker for one script, to see whether it can be used: for who waits for it, on a thread that may wait.

use std::io::{BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use gateway::ProgramId;
use scripts::Remote;
use scripts::pipe::{Limits, Request, Response, read};

use super::process::{BINARY, WORKER};

/// Longest time until it says that it is there.
const START: Duration = Duration::from_secs(10);
/// Time beyond a script's own for a worker that is new, and a machine that is busy.
const GRACE: Duration = Duration::from_secs(2);
/// Answers that wait to be taken.
const ANSWERS: usize = 64;

/// Loads a script in a worker of its own, which ends when nobody has the script any more. The error is for who wrote it.
pub fn load(name: &str, source: Bytes, limits: Limits) -> Result<Remote, String> {
    let mut worker = Worker::start()?;
    let program = ProgramId(0);
    worker.ask(&Request::Load { program, name: name.to_owned(), source, limits })?;
    let shape = match worker.next(limits.time + GRACE)? {
        Response::Loaded { shape, .. } => shape,
        Response::Refused { why, .. } => return Err(why),
        other => return Err(format!("a worker answered with {other:?}")),
    };
    let ask = move |request: Request| {
        worker.ask(&request)?;
        match worker.next(limits.time + GRACE)? {
            Response::Called { result, .. } => Ok(result),
            other => Err(format!("a worker answered with {other:?}")),
        }
    };
    Ok(Remote::new(program, shape, Box::new(ask)))
}

/// See the module. Dropped, it is killed.
struct Worker {
    child: Child,
    input: ChildStdin,
    said: Receiver<Response>,
    is_late: bool,
}

impl Worker {
    /// Starts one. The error is for the operator.
    fn start() -> Result<Worker, String> {
        let cannot = |e: std::io::Error| format!("a worker cannot be started: {e}");
        let mut child = Command::new(BINARY)
            .arg0("tidegate")
            .arg(WORKER)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a worker has no pipes".to_owned());
        };
        let (sender, said) = sync_channel(ANSWERS);
        std::thread::Builder::new()
            .name("script-check".to_owned())
            .spawn(move || {
                let mut output = BufReader::new(output);
                while let Ok(Some(message)) = read(&mut output) {
                    let Ok(response) = Response::decode(&message) else { return };
                    if sender.send(response).is_err() {
                        return;
                    }
                }
            })
            .map_err(cannot)?;
        let mut worker = Worker { child, input, said, is_late: false };
        match worker.next(START)? {
            Response::Hello(_) => Ok(worker),
            other => Err(format!("a worker began with {other:?}")),
        }
    }

    /// Asks it something; [`Worker::next`] has the answers.
    fn ask(&mut self, request: &Request) -> Result<(), String> {
        let mut message = Vec::new();
        request.encode(&mut message).map_err(|_| "it is too long for a worker".to_owned())?;
        // What it died of is told by the answer that does not come.
        let _ = self.input.write_all(&message);
        Ok(())
    }

    /// Its next answer. One that is later than this has ended it.
    fn next(&mut self, wait: Duration) -> Result<Response, String> {
        match self.said.recv_timeout(wait) {
            Ok(response) => Ok(response),
            Err(RecvTimeoutError::Timeout) => {
                self.is_late = true;
                self.end();
                Err(format!("it took longer than {} ms and was stopped", wait.as_millis()))
            }
            Err(RecvTimeoutError::Disconnected) if self.is_late => Err("it was stopped before".to_owned()),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
                Err(format!("its worker has died of it: {status}"))
            }
        }
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}
