use super::*;
use codecs::{Framing, FramingOptions};

fn with(codec: &str, keys: &[(&str, &str)]) -> Config {
    let mut options = FramingOptions::default();
    for (key, value) in keys {
        options.set(key, value).unwrap();
    }
    let framing = Some(Framing::new(&options).unwrap());
    let options = Options { framing, ..Options::default() };
    Config { codec: codec.into(), device: Naming::AddressAndPort, options, ..Config::default() }
}

const LENGTH: &[(&str, &str)] = &[("kind", "length"), ("length_size", "1")];

#[test]
fn a_pause_ends_a_frame() {
    let mut b = bench_with(with("raw", &[("kind", "idle"), ("pause", "50ms")]));
    b.open(A);
    b.say("ab");
    b.wait(49);
    b.say("c");
    b.wait(49);
    assert_eq!(b.taken(), [""; 0]);
    b.wait(1);
    assert_eq!(b.taken(), ["192.0.2.1:4711/up/data abc"]);
    b.say("d");
    b.wait(50);
    assert_eq!(b.taken(), ["192.0.2.1:4711/up/data d"]);
}

#[test]
fn payloads_of_a_script_are_cut_off_a_stream_and_its_commands_are_framed() {
    let mut b = bench_with(with("payloads", LENGTH));
    b.open(A);
    b.hand(A, b"\x02ab\x01c\x05de");
    assert_eq!(b.calls[0].2.inputs, [&b"ab"[..], b"c"]);
    assert_eq!(b.rest[&A].0.len(), 3, "what is no frame yet stays where it is");
    b.called(&[Ok(r#"{"data":1}"#), Ok(r#"{"data":2}"#)]);
    b.command("led", "true", 1);
    assert_eq!(&b.calls[0].2.inputs[0][..], br#"{"kind":"led","value":true}"#);
    b.called(&[Ok(r#"{"hex":"0102","port":1}"#)]);
    assert_eq!(b.wire, [2, 1, 2]);
    b.hand(A, b"fgh");
    assert_eq!(b.calls[0].2.inputs, [&b"defgh"[..]]);
}

#[test]
fn without_framing_a_payload_in_a_stream_ends_with_a_pause() {
    let options = Options::default();
    let mut b = bench_with(Config { options, ..with("payloads", LENGTH) });
    b.open(A);
    b.hand(A, b"ab");
    b.hand(A, b"c");
    assert_eq!(b.calls.len(), 0);
    b.wait(100);
    assert_eq!(b.calls[0].2.inputs, [&b"abc"[..]]);
}

#[test]
fn a_datagram_may_hold_several_payloads() {
    let mut b = bench_with(with("payloads", LENGTH));
    b.transport = Transport::Udp;
    b.open(A);
    b.hand(A, b"\x02ab\x01c\x05de");
    assert_eq!(b.calls[0].2.inputs, [&b"ab"[..], b"c"]);
    assert_eq!(b.drops, [Drop::CodecFrame], "what ends within a frame");
}

#[test]
fn many_payloads_are_several_calls_and_bytes_wait_in_the_socket() {
    let mut b = bench_with(with("payloads", LENGTH));
    b.open(A);
    b.hand(A, &b"\x01x".repeat(200));
    assert_eq!(b.calls[0].2.inputs.len(), 64);
    assert_eq!(b.rest[&A].0.len(), 2 * 136);
    b.called(&[const { Ok(r#"{"data":1}"#) }; 64]);
    assert_eq!(b.calls[0].2.inputs.len(), 64);
    assert_eq!(b.taken().len(), 64);
}

#[test]
fn many_pieces_of_one_read_wait_in_the_socket_and_are_not_dropped() {
    let keys = [("kind", "idle"), ("pause", "50ms"), ("max_frame", "16")];
    let mut b = bench_with(with("raw", &keys));
    b.open(A);
    b.hand(A, &b"0123456789abcdef".repeat(300));
    assert_eq!((b.taken().len(), &b.drops[..]), (300, &[][..]));
    let mut b = bench_with(with("payloads", &keys));
    b.open(A);
    b.hand(A, &b"0123456789abcdef".repeat(300));
    let mut calls = 0;
    while let Some((_, _, call)) = b.calls.front() {
        calls += call.inputs.len();
        b.called(&vec![Ok(r#"{"data":1}"#); call.inputs.len()]);
    }
    assert_eq!((calls, b.taken().len(), &b.drops[..]), (300, 300, &[][..]));
}
