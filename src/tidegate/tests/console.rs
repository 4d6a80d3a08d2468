//! The built program on the command line: files, the running gateway, and the operator's commands to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]
#![allow(clippy::disallowed_methods, reason = "a test waits for another process")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A folder of its own for each test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-console-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.current_dir(&self.0).arg("--config").arg("t.toml").args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> (bool, String, String) {
        said(&self.command(args).output().unwrap())
    }

    /// What it prints when all goes well.
    fn ok(&self, args: &[&str]) -> String {
        let (ok, out, err) = self.run(args);
        assert!(ok, "{args:?}: {err}");
        out
    }

    /// What it complains about.
    fn fails(&self, args: &[&str]) -> String {
        let (ok, _, err) = self.run(args);
        assert!(!ok, "{args:?} should have failed");
        err
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// A running gateway; ended when dropped.
struct Running {
    folder: Folder,
    child: Child,
}

impl Running {
    fn start(more: &str) -> Running {
        let folder = Folder::new();
        folder.file("acl.conf", "");
        folder.file("t.toml", &format!("[http]\nbind = \"off\"\n[drivers]\ncount = 1\n{more}"));
        let log = std::fs::File::create(folder.0.join("log")).unwrap();
        let child = folder.command(&["run"]).stderr(log).spawn().unwrap();
        let mut running = Running { folder, child };
        running.until("it listens", |r| r.folder.run(&["bans", "list"]).0);
        running
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Running) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what}: not in time\n{}", self.log());
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{what}: ended with {status}\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("log")).unwrap()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn check_reports_all_mistakes_with_file_line_and_key() {
    let folder = Folder::new();
    folder.file("t.toml", "[limits]\nmax_logins = 0\n[auth]\nacl = \"acl.conf\"\n[loog]\n");
    folder.file("acl.conf", "allow everyone publish a\nallow nobody publish a\n");
    let mut command = folder.command(&["check"]);
    let (ok, out, err) = said(&command.env("TIDEGATE__NODE__NAEM", "x").output().unwrap());
    assert!(!ok && out.is_empty());
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 4, "{err}");
    assert_eq!(lines[0], "TIDEGATE__NODE__NAEM: node.naem: unknown key; did you mean `name`?");
    assert!(lines[1].starts_with("t.toml:2: limits.max_logins: must be a whole number from 1"));
    assert_eq!(lines[2], "t.toml:5: loog: unknown key; did you mean `log`?");
    assert!(lines[3].starts_with("acl.conf:2: acl: `nobody` is none of"));
    assert_eq!(folder.fails(&["run"]).lines().count(), 3);
}

#[test]
fn check_says_what_is_fine() {
    let folder = Folder::new();
    folder.file("t.toml", "[mqtt.listeners.tcp]\nbind = \"127.0.0.1:1883\"\n");
    assert_eq!(folder.ok(&["check"]), "ok: mqtt.listeners.tcp on 127.0.0.1:1883\nok: t.toml\n");
    assert!(folder.ok(&["version"]).starts_with("tidegate "));
    assert!(folder.ok(&["version", "--json"]).starts_with("{\"version\":\""));
}

#[test]
fn passwd_adds_and_removes_users() {
    let folder = Folder::new();
    let add = |name: &str, password: &str| {
        let mut child = folder
            .command(&["passwd", "passwd", name, "--stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        said(&child.wait_with_output().unwrap())
    };
    assert!(add("alice", "secret\n").0 && add("bob", "hush").0);
    let text = std::fs::read_to_string(folder.0.join("passwd")).unwrap();
    assert_eq!(text.lines().filter(|l| l.contains(":$argon2id$")).count(), 2);
    assert!(!text.contains("secret"));
    assert!(folder.ok(&["passwd", "passwd", "alice", "--delete"]).contains("removed"));
    assert!(folder.fails(&["passwd", "passwd", "alice", "--delete"]).contains("no user"));
    assert!(add("a:b", "x").2.contains("cannot be a user name"));
    assert!(add("carol", "\n").2.contains("password is empty"));
    assert!(folder.fails(&["passwd", "passwd", "carol"]).contains("--stdin"));
}

#[test]
fn psk_adds_lists_rotates_and_removes_devices() {
    let folder = Folder::new();
    folder.file("t.toml", "[auth]\npsk = \"keys\"\n");
    let keys = || std::fs::read_to_string(folder.0.join("keys")).unwrap();
    let key = "000102030405060708090a0b0c0d0e0f";
    let said = folder.ok(&["psk", "add", "urn:imei:1", "--client", "meter-1", "--user", "ann", "--key", key]);
    assert!(said.contains("added as client `meter-1`") && !said.contains(key), "{said}");
    let said = folder.ok(&["psk", "add", "valve 1", "--client", "valve-1", "--json"]);
    let made = serde_json::from_str::<serde_json::Value>(&said).unwrap()["key"].as_str().unwrap().to_owned();
    assert!(made.len() == 32 && keys().contains(&format!("valve\\x201 valve-1 - {made}\n")));
    let said = folder.ok(&["psk", "rotate", "urn:imei:1", "--keep", "2 h"]);
    assert!(said.contains("its key is ") && said.contains("valid until 2") && !said.contains(key), "{said}");
    let list = folder.ok(&["psk", "list"]);
    assert!(list.contains("urn:imei:1  meter-1    ann   2, the old one until 2"), "{list}");
    assert!(list.contains("valve 1     valve-1          1\n"), "{list}");
    assert!(!list.contains(key) && !list.contains(&made));
    assert_eq!(folder.ok(&["psk", "list", "--json"]).lines().count(), 2);
    assert!(folder.ok(&["psk", "rotate", "urn:imei:1", "--key", key, "--keep", "0 s"]).contains("no more"));
    assert!(keys().contains(&format!("urn:imei:1 meter-1 ann {key}\n")));
    assert!(folder.ok(&["psk", "remove", "valve 1"]).contains("removed"));
    assert!(!keys().contains("valve"));
}

#[test]
fn psk_says_in_words_what_is_wrong() {
    let folder = Folder::new();
    folder.file("t.toml", "[auth]\npsk = \"keys\"\n");
    folder.ok(&["psk", "add", "a", "--client", "c", "--generate"]);
    let add = |rest: &[&str]| folder.fails(&[&["psk", "add"], rest].concat());
    assert!(add(&["a", "--client", "d"]).contains("identity `a` exists already"));
    assert!(add(&["b", "--client", "c"]).contains("client id `c` is that of identity `a`"));
    assert!(add(&["b", "--client", "d", "--user", "x:y"]).contains("cannot be a user name"));
    assert!(add(&["b", "--client", "d", "--key", "0g"]).contains("hexadecimal"));
    assert!(add(&["b", "--client", "d", "--key", ""]).contains("1 to 64 bytes"));
    let short = "a key of 2 bytes can be guessed; without `--key` one of 16 is made, which cannot\n";
    assert_eq!(folder.run(&["psk", "add", "short", "--client", "s", "--key", "0102"]).2, short);
    assert_eq!(folder.run(&["psk", "rotate", "short"]).2, "");
    assert!(add(&["b"]).contains("--client"));
    assert!(folder.fails(&["psk", "rotate", "b"]).contains("no identity `b`"));
    assert!(folder.fails(&["psk", "rotate", "a", "--keep", "long"]).contains("not a time"));
    assert!(folder.fails(&["psk", "remove", "b"]).contains("no identity `b`"));
    folder.file("keys", "# mine\na c - 00\nb\n");
    assert!(
        folder
            .fails(&["psk", "remove", "a"])
            .contains("keys:3: psk: the client id is missing; nothing was changed")
    );
    assert!(folder.fails(&["check"]).contains("keys:3"));
    assert_eq!(std::fs::read_to_string(folder.0.join("keys")).unwrap(), "# mine\na c - 00\nb\n");
    folder.file("t.toml", "[auth]\npsk = \"\"\n");
    assert!(folder.fails(&["psk", "list"]).contains("auth.psk names no file"));
    folder.ok(&["psk", "add", "a", "--client", "c", "--file", "other"]);
    assert!(folder.ok(&["psk", "list", "--file", "other"]).contains("a "));
}

#[test]
fn devices_that_are_added_at_the_same_time_are_all_there() {
    let folder = Folder::new();
    folder.file("t.toml", "[auth]\npsk = \"keys\"\n");
    let add = |i: usize| {
        let (identity, client) = (format!("i{i}"), format!("c{i}"));
        folder.command(&["psk", "add", &identity, "--client", &client]).stdout(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> = (0..20).map(add).collect();
    assert!(children.into_iter().all(|mut c| c.wait().unwrap().success()));
    assert_eq!(folder.ok(&["psk", "list"]).lines().count(), 21);
}

#[test]
fn without_a_running_gateway_the_commands_say_so() {
    let folder = Folder::new();
    folder.file("t.toml", "");
    assert!(folder.fails(&["clients", "list"]).contains("no running tidegate at ./data/admin.sock"));
    folder.file("t.toml", "[admin]\nsocket = \"off\"\n");
    assert!(folder.fails(&["clients", "list"]).contains("admin.socket is off"));
}

#[test]
fn what_is_published_is_retained_listed_and_heard() {
    let running = Running::start("");
    let folder = &running.folder;
    assert_eq!(folder.ok(&["pub", "a/b", "hello", "-r", "-q", "1"]), "published to 0 subscription(s)\n");
    assert_eq!(folder.ok(&["topics"]), "topic\tqos\tbytes\na/b\t1\t5\n");
    assert_eq!(folder.ok(&["topics", "b/#"]), "");
    assert_eq!(folder.ok(&["sub", "a/#", "-n", "1"]), "a/b hello\n");
    let mut child = folder.command(&["sub", "x/+", "-q", "2"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let begin = Instant::now();
    while folder.ok(&["pub", "x/1", "first"]) != "published to 1 subscription(s)\n" {
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(lines.next().unwrap().unwrap(), "x/1 first");
    for i in 0..500 {
        folder_publish(folder, "x/2", &format!("{i}"), i % 3);
    }
    for i in 0..500 {
        assert_eq!(lines.next().unwrap().unwrap(), format!("x/2 {i}"));
    }
    assert!(folder.ok(&["subscriptions"]).contains("\tx/+\n"));
    child.kill().unwrap();
    child.wait().unwrap();
    let begin = Instant::now();
    while !folder.ok(&["clients", "list"]).is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(10), "the subscriber's session stays");
    }
}

/// Over one connection a message as a program would.
fn folder_publish(folder: &Folder, topic: &str, payload: &str, qos: u32) {
    let mut stream = std::os::unix::net::UnixStream::connect(folder.0.join("data/admin.sock")).unwrap();
    let request = format!(r#"{{"do":"pub","topic":"{topic}","payload":"{payload}","qos":{qos}}}"#);
    writeln!(stream, "{request}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("{\"done\":true,\"more\":false}\n"), "{answer}");
}

#[test]
fn bad_requests_are_answered_and_end_nothing() {
    let running = Running::start("");
    let folder = &running.folder;
    let ask = |request: &[u8]| {
        let mut stream = std::os::unix::net::UnixStream::connect(folder.0.join("data/admin.sock")).unwrap();
        // The gateway may have answered, and closed, before it was told everything.
        let _ = stream.write_all(request);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for request in ["\n", "nonsense\n", "[]\n", "{}\n", r#"{"do":"clients.show"}"#, "\u{0}\n"] {
        let answer = ask(format!("{request}\n").as_bytes());
        assert!(answer.starts_with("{\"error\":"), "{request}: {answer}");
    }
    assert!(!ask(&vec![b'x'; 4 << 20]).contains("done"));
    assert!(folder.fails(&["pub", "a/#", "x"]).contains("wildcard"));
    assert!(folder.fails(&["pub", "$SYS/x", "x"]).contains("$SYS"));
    assert!(folder.fails(&["sub", "a/#/b"]).contains("wildcard"));
    assert!(folder.fails(&["clients", "kick", "nobody"]).contains("no client"));
    assert!(folder.fails(&["clients", "show", "nobody"]).contains("no client"));
    assert_eq!(folder.ok(&["bans", "list"]), "");
}

#[test]
fn bans_are_added_listed_and_removed() {
    let running = Running::start("");
    let folder = &running.folder;
    folder.ok(&["bans", "add", "address", "10.0.0.0/8", "--for", "10 min"]);
    folder.ok(&["bans", "add", "client_id", "dev-1"]);
    let list = folder.ok(&["--json", "bans", "list"]);
    assert!(
        list.contains(r#""kind":"client_id","value":"dev-1","seconds_left":null,"reason":"operator""#),
        "{list}"
    );
    assert!(list.contains(r#""value":"10.0.0.0/8","seconds_left":5"#), "{list}");
    folder.ok(&["bans", "remove", "client_id", "dev-1"]);
    assert!(folder.fails(&["bans", "remove", "client_id", "dev-1"]).contains("was not kept out"));
    assert!(folder.fails(&["bans", "add", "address", "ten"]).contains("not an address"));
    assert!(folder.fails(&["bans", "add", "address", "10.0.0.1", "--for", "ages"]).contains("not a time"));
}

#[test]
fn the_socket_and_the_data_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mut running = Running::start("");
    let socket = running.folder.0.join("data/admin.sock");
    running.folder.ok(&["store", "backup", "copy"]);
    for (path, mode) in
        [("data", 0o700), ("data/admin.sock", 0o600), ("data/store", 0o700), ("copy/store", 0o700)]
    {
        let found = std::fs::metadata(running.folder.0.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path} has {found:o}");
    }
    assert!(running.folder.fails(&["run"]).contains("another tidegate is running"));
    running.signal("TERM");
    assert!(running.child.wait().unwrap().success(), "{}", running.log());
    assert!(!Path::new(&socket).exists());
}

#[test]
fn a_hangup_applies_what_it_can_and_names_the_rest() {
    let mut running = Running::start("");
    let text = "[http]\nbind = \"off\"\n[drivers]\ncount = 2\n[log]\nlevel = \"debug\"\n";
    running.folder.file("t.toml", text);
    running.signal("HUP");
    running.until("the change is named", |r| r.log().contains("drivers.count"));
    running.until("the rest is applied", |r| r.log().contains("configuration read again"));
    running.folder.file("t.toml", "[drivers]\ncount = \"two\"\n");
    running.signal("HUP");
    running.until("the mistake is named", |r| r.log().contains("t.toml:2: drivers.count"));
    assert!(running.folder.run(&["bans", "list", "--data", "data"]).0);
}

#[test]
fn a_gateway_that_listens_nowhere_says_so() {
    assert!(Running::start("").log().contains("no listener is configured"));
}

#[test]
fn the_first_start_says_how_to_make_a_user() {
    let running = Running::start("[mqtt.listeners.tcp]\nbind = \"127.0.0.1:0\"\n");
    assert!(running.log().contains("tidegate passwd etc/passwd alice"), "{}", running.log());
}

/// An MQTT 5.0 client of few words.
struct Device(std::net::TcpStream);

impl Device {
    fn connect(port: u16) -> Device {
        let mut device = Device::begin(port);
        assert_eq!(device.packet()[0], 0x20);
        device
    }

    fn begin(port: u16) -> Device {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // CONNECT: protocol MQTT, version 5, clean start, keep-alive 60 s, no properties, client id "c".
        stream.write_all(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c").unwrap();
        Device(stream)
    }

    fn packet(&mut self) -> Vec<u8> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut body = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut body).unwrap();
        [head.to_vec(), body].concat()
    }

    /// Publishes to `a` with QoS 1 and returns the reason code of PUBACK.
    fn publish(&mut self) -> u8 {
        self.0.write_all(b"\x32\x07\x00\x01a\x00\x07\x00x").unwrap();
        let answer = self.packet();
        assert_eq!((answer[0], &answer[2..4]), (0x40, &[0, 7][..]));
        answer.get(4).copied().unwrap_or(0)
    }
}

#[test]
fn a_refused_login_is_in_the_log_once_a_minute() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listener = format!("bind = \"127.0.0.1:{port}\"\nanonymous = \"never\"");
    let mut running = Running::start(&format!("[mqtt.listeners.plant]\n{listener}\n"));
    for _ in 0..2 {
        assert_eq!(Device::begin(port).packet()[3], 0x87, "not authorised");
    }
    running.until("it is told", |r| r.log().contains("login refused"));
    let log = running.log();
    let told: Vec<&str> = log.lines().filter(|l| l.contains("login refused")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("INFO"), "{log}");
    assert!(told[0].ends_with(r#"listener=plant client_id="c" why="not_authorised""#), "{log}");
}

#[test]
fn a_changed_access_list_holds_for_connected_clients_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut running = Running::start(&format!(
        "[mqtt.listeners.tcp]\nbind = \"127.0.0.1:{port}\"\n[auth]\nacl = \"acl.conf\"\n"
    ));
    let mut device = Device::connect(port);
    assert_eq!(device.publish(), 0x10, "no matching subscribers");
    running.folder.file("acl.conf", "deny client c publish a\n");
    running.signal("HUP");
    running.until("it is read", |r| r.log().contains("configuration read again"));
    assert_eq!(device.publish(), 0x87, "not authorized");
    assert!(running.folder.ok(&["clients", "show", "c"]).contains("MQTT 5.0"));
    assert!(running.folder.ok(&["clients", "kick", "c"]).contains("ended"));
    assert_eq!(device.packet()[..3], [0xe0, 1, 0x98], "administrative action");
    assert_eq!(device.0.read(&mut [0]).unwrap(), 0);
}
