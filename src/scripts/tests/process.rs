//! The worker as a process of its own: what it has given up, and when its answers come.
#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use bytes::Bytes;
use gateway::{Calls, Function, ProgramId};
use scripts::pipe::{Limits, Request, Response, read};

struct Worker {
    child: Child,
    output: ChildStdout,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Worker {
    fn start() -> Worker {
        let test = std::env::current_exe().unwrap();
        let built: PathBuf = test.ancestors().nth(2).unwrap().join("examples/worker");
        let mut child =
            Command::new(built).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        Worker { child, output }
    }

    fn ask(&mut self, request: &Request) {
        let mut message = Vec::new();
        request.encode(&mut message).unwrap();
        self.child.stdin.as_mut().unwrap().write_all(&message).unwrap();
    }

    fn next(&mut self) -> Option<Response> {
        read(&mut self.output).unwrap().map(|message| Response::decode(&message).unwrap())
    }

    fn load(&mut self, source: &str) {
        let source = Bytes::copy_from_slice(source.as_bytes());
        let limits = Limits::default();
        self.ask(&Request::Load { program: ProgramId(1), name: "t.js".to_owned(), source, limits });
        assert!(matches!(self.next(), Some(Response::Loaded { .. })));
    }

    fn call(&mut self, seq: u64, inputs: &[&'static [u8]]) {
        let inputs = inputs.iter().copied().map(Bytes::from_static).collect();
        let (program, function) = (ProgramId(1), Function::DecodeUplink);
        let calls = Calls { program, function, device: "d".into(), port: 1, wall_ms: 0, inputs };
        self.ask(&Request::Calls { seq, calls });
    }

    /// A line of its status.
    fn status(&self, key: &str) -> String {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
        line.unwrap_or_default().trim().to_owned()
    }
}

#[test]
fn a_worker_has_given_up_all_that_it_can() {
    let mut worker = Worker::start();
    let Some(Response::Hello(kept)) = worker.next() else { panic!("no hello") };
    assert_eq!(kept, Vec::<String>::new());
    assert_eq!(worker.status("NoNewPrivs"), "1");
    assert_eq!(worker.status("Seccomp"), "2");
    assert_eq!(worker.status("CapEff"), "0000000000000000");
    assert!(!worker.status("Uid").split_whitespace().any(|id| id == "0"));
    assert!(!worker.status("Gid").split_whitespace().any(|id| id == "0"));
    assert_eq!(worker.status("Threads"), "2");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.child.id())).unwrap();
    for (name, limit) in [("Max processes", "0"), ("Max open files", "3"), ("Max file size", "0")] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        assert_eq!(line[name.len()..].split_whitespace().next(), Some(limit), "{line}");
    }
    // And it works as before: a date with no time zone's file, memory, randomness.
    worker.load(
        "function Decoder(bytes) { return [new Date(0).getHours(), Math.random() < 1, 'x'.repeat(1e6).length] }",
    );
    worker.call(1, &[b""]);
    let Some(Response::Called { result, .. }) = worker.next() else { panic!("no answer") };
    assert_eq!(result.unwrap(), "{\"data\":[0,true,1000000]}");
}

#[test]
fn answers_do_not_wait_for_a_script_that_never_ends() {
    let mut worker = Worker::start();
    worker.next();
    // The engine does not ask whether it may go on while it does this.
    worker.load("function Decoder(bytes) { if (bytes[0] === 9) new Array(1e8) + ''; return bytes[0] }");
    worker.call(1, &[b"\x01", b"\x02", b"\x09", b"\x04"]);
    for index in [0, 1] {
        let response = worker.next();
        assert!(matches!(response, Some(Response::Called { seq: 1, index: i, .. }) if i == index));
    }
    worker.child.kill().unwrap();
    assert_eq!(worker.next(), None);
}

#[test]
fn scripts_that_take_all_they_can_leave_the_worker_as_it_was() {
    let mut worker = Worker::start();
    worker.next();
    worker.load(
        "function Decoder(bytes) {
            if (bytes[0] === 1) for (;;);
            if (bytes[0] === 2) for (const a = [];;) a.push(new Array(1000).fill(7));
            return bytes[0] }",
    );
    for round in 0..20 {
        worker.call(round, &[b"\x01", b"\x02", b"\x03"]);
        let results: Vec<bool> = (0..3)
            .map(|_| match worker.next() {
                Some(Response::Called { result, .. }) => result.is_ok(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(results, [false, false, true]);
    }
    let kib: u64 = worker.status("VmRSS").trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 64 * 1024, "{kib} KiB are resident");
}

#[test]
fn signals_to_the_whole_terminal_or_service_are_the_gateways_alone() {
    let mut worker = Worker::start();
    worker.next();
    for signal in ["-HUP", "-INT", "-TERM"] {
        let sent = Command::new("kill").arg(signal).arg(worker.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }
    worker.load("function Decoder(bytes) { return bytes.length }");
    worker.call(1, &[b"ab"]);
    let Some(Response::Called { result, .. }) = worker.next() else { panic!("no answer") };
    assert_eq!(result.unwrap(), "{\"data\":2}");
}

#[test]
fn a_worker_ends_with_its_input() {
    let mut worker = Worker::start();
    worker.next();
    drop(worker.child.stdin.take());
    assert_eq!(worker.next(), None);
    assert!(worker.child.wait().unwrap().success());
}
