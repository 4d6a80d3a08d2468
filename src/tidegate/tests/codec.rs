//! `tidegate codec` on the command line: what it prints, and how it ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]
#![allow(clippy::disallowed_methods, reason = "a test is the device")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

fn codec(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("codec").args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> (bool, String, String) {
    let output = codec(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn ok(args: &[&str]) -> String {
    let (ok, out, err) = run(args);
    assert!(ok, "{args:?}: {out}{err}");
    out
}

fn fails(args: &[&str]) -> (String, String) {
    let (ok, out, err) = run(args);
    assert!(!ok, "{args:?} should have failed: {out}");
    (out, err)
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tidegate-codec-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn frames_are_shown_with_their_offsets_their_meaning_and_their_answer() {
    let out = ok(&["try", "emqx-tcp", "--hex", "0x11 00:05:00:00:02 6431, 40", "--down", "data=on"]);
    let expected = "frame 1  bytes 0..8\n\
                    \x20 00000000  11 00 05 00 00 02 64 31                          ......d1\n\
                    \x20 up       {\"login\":{\"device\":\"d1\"}}\n\
                    \x20 answer   200014436f6e6e656374205375636365737366756c6c79\n\
                    \x20 refusal  21001641757468656e7469636174696f6e204661696c757265\n\
                    frame 2  bytes 8..9\n\
                    \x20 00000008  40                                               @\n\
                    \x20 up       {\"heartbeat\":{}}\n\
                    \x20 answer   50\n\
                    command data  5 bytes\n\
                    \x20 00000000  30 00 02 6f 6e                                   0..on\n";
    assert_eq!(out, expected);
}

#[test]
fn a_bad_frame_is_pointed_at_and_the_next_one_is_read() {
    let framing = "kind=fixed,size=4,checksum=xor";
    let (out, err) = fails(&["try", "raw", "--framing", framing, "--hex", "01020300 0102 0400 010203"]);
    assert!(out.starts_with("frame 1  bytes 0..4\n"), "{out}");
    let marked = "bad frame  bytes 4..8, wrong at byte 7\n\
                  \x20 00000004  01 02 04 00                                      ....\n\
                  \x20                    ^^ the checksum is 00, and 07 would be right\n\
                  3 bytes wait for the rest of their frame\n\
                  \x20 00000008  01 02 03                                         ...\n";
    assert!(out.ends_with(marked), "{out}");
    assert_eq!(err, "1 bad frame, 1 good\n");
}

#[test]
fn with_json_each_frame_is_a_line() {
    let (out, _) = fails(&["--json", "try", "json-lines", "--hex", "7b7d0a 7b0a"]);
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let good = serde_json::json!({"offset": 0, "bytes": "7b7d0a", "up": [{"kind": "data", "data": {}}], "answer": "",
                                  "refusal": ""});
    assert_eq!(lines[0], good);
    assert_eq!((&lines[1]["offset"], &lines[1]["costs"]), (&3.into(), &"frame".into()), "{out}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn what_cannot_be_tried_says_why() {
    let (_, err) = fails(&["try", "nosuch", "--hex", "00"]);
    assert!(err.starts_with("there is no codec nosuch; built in are emqx-tcp,"), "{err}");
    assert!(err.ends_with("`try` takes yours by its file, such as etc/codecs/nosuch.js\n"), "{err}");
    let (_, err) = fails(&["try", "raw", "--hex", "0g"]);
    assert_eq!(err, "--hex: 'g' at 1 is no hexadecimal digit\n");
    let (_, err) = fails(&["try", "raw", "--hex", "00", "--framing", "kind=fixed,speed=3"]);
    assert!(err.starts_with("--framing: kind: must be one of fixed"), "{err}");
    let (_, err) = fails(&["try", "lines", "--hex", "61"]);
    assert_eq!(err, "no whole frame\n");
    let (_, err) = fails(&["try", "lines", "--pcap", file("none", b"no capture at all").to_str().unwrap()]);
    assert!(err.ends_with("none: no capture (pcap or pcapng) that can be read\n"), "{err}");
}

#[test]
fn every_codec_is_listed_and_shows_its_samples() {
    let list = ok(&["list"]);
    for line in list.lines() {
        let name = line.split_whitespace().next().unwrap();
        let out = ok(&["show", name]);
        assert!(out.contains("\n  up       {") && !out.contains("bad "), "{out}");
    }
    assert!(list.lines().count() >= 4);
}

/// A frame of Ethernet with IPv4 from or to a device on port 40000 and a server on port 5000.
fn packet(is_up: bool, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let (device, server) = ([10, 0, 0, 2], [10, 0, 0, 1]);
    let (from, to) = if is_up { (device, server) } else { (server, device) };
    let ip = (20 + transport.len()) as u16;
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend(ip.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend(from);
    frame.extend(to);
    frame.extend(transport);
    frame
}

fn tcp(is_up: bool, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = if is_up { (40_000_u16, 5_000_u16) } else { (5_000, 40_000) };
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend(seq.to_be_bytes());
    segment.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    packet(is_up, 6, &segment)
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut datagram = [40_000_u16.to_be_bytes(), 6_000_u16.to_be_bytes()].concat();
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    packet(true, 17, &datagram)
}

/// The classic format of captures: a header, and one before each packet.
fn capture(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes =
        vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0];
    for packet in packets {
        bytes.extend([0; 8]);
        bytes.extend((packet.len() as u32).to_le_bytes());
        bytes.extend((packet.len() as u32).to_le_bytes());
        bytes.extend(packet);
    }
    bytes
}

#[test]
fn a_stream_is_read_out_of_a_capture_in_its_order() {
    let (syn, ack) = (2, 0x10);
    let packets = [
        tcp(true, 99, syn, b""),
        tcp(false, 499, syn | ack, b""),
        tcp(true, 104, ack, b"world\n"),
        tcp(true, 100, ack, b"hel\n"),
        tcp(true, 100, ack, b"hel\n"),
        tcp(false, 500, ack, b"ok"),
    ];
    let path = file("stream.pcap", &capture(&packets));
    let out = ok(&["--json", "try", "lines", "--pcap", path.to_str().unwrap()]);
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = lines.iter().map(|line| (&line["offset"], &line["bytes"], &line["sent"])).collect();
    let null = &serde_json::Value::Null;
    let expected = [
        (&0.into(), &"68656c0a".into(), null),
        (&4.into(), &"776f726c640a".into(), null),
        (null, null, &"6f6b".into()),
    ];
    assert_eq!(seen, expected);
    assert!(lines.iter().all(|line| line["from"] == "10.0.0.2:40000"), "{out}");
    // Cut within the last packet, as when tcpdump is killed.
    let bytes = std::fs::read(&path).unwrap();
    let path = file("cut.pcap", &bytes[..bytes.len() - 3]);
    let cut = ok(&["--json", "try", "lines", "--pcap", path.to_str().unwrap()]);
    assert_eq!(cut.lines().collect::<Vec<_>>(), out.lines().take(2).collect::<Vec<_>>());
}

#[test]
fn a_capture_of_several_ports_is_asked_for_one() {
    let path = file("mixed.pcap", &capture(&[tcp(true, 7, 0x10, b"a\n"), udp(b"b"), udp(b"c\nd")]));
    let path = path.to_str().unwrap();
    let (_, err) = fails(&["try", "lines", "--pcap", path]);
    assert!(err.contains("say which with --port: 5000, 6000"), "{err}");
    let out = ok(&["try", "lines", "--pcap", path, "--port", "6000"]);
    for bytes in ["0..1", "1..3", "3..4"] {
        assert!(out.contains(&format!("  bytes {bytes}\n")), "{bytes}: {out}");
    }
}

/// `try --listen` of one device; gives where it listens.
fn listen(more: &[&str]) -> (Child, String) {
    let mut command = codec(&["try", "emqx-tcp", "--listen", "127.0.0.1:0", "--once"]);
    let mut child = command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().rsplit(' ').next().unwrap().to_owned())
}

#[test]
fn a_device_that_connects_is_answered_and_shown() {
    let (child, address) = listen(&[]);
    let mut device = TcpStream::connect(&address).unwrap();
    for piece in [&b"\x11\x00\x05\x00"[..], b"\x00\x02d1\x40"] {
        device.write_all(piece).unwrap();
    }
    let mut answer = [0; 24];
    device.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\x20\x00\x14Connect Successfully\x50");
    drop(device);
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains(r#"up       {"login":{"device":"d1"}}"#), "{out}");
}

#[test]
fn a_datagram_is_answered_too() {
    let (child, address) = listen(&["--udp"]);
    let device = UdpSocket::bind("127.0.0.1:0").unwrap();
    device.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    device.send_to(b"\x40\x30\x00\x05", &address).unwrap();
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && out.contains("the datagram ends within a frame"), "{out}");
    let mut answer = [0; 8];
    assert_eq!(device.recv(&mut answer).map(|n| answer[..n].to_vec()).unwrap(), b"\x50");
}

#[test]
fn who_reads_no_further_is_no_reason_to_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["codec", "show", "jt808"])
        .stdout(writer)
        .output()
        .unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
}
