//! What holds for every codec in the list, shown with its own samples.

use super::*;
use codecs::{CODECS, Def, Sample};

/// Codecs that take whatever arrives for a frame.
const WITHOUT_FRAMES: &[&str] = &["raw"];

/// A device of this codec that the listener knows by its address.
fn known(def: &Def, transport: Transport) -> Bench {
    let config = Config { codec: def.name.into(), device: Naming::AddressAndPort, ..Config::default() };
    let mut b = bench_with(config);
    b.now = Now::from_micros(1_700_000_000_000_000);
    (b.transport, b.knows_all_tokens) = (transport, true);
    b.open(A);
    b
}

fn samples() -> impl Iterator<Item = (&'static Def, &'static Sample, Vec<u8>)> {
    let all = CODECS.iter().flat_map(|def| def.samples.iter().map(move |sample| (def, sample)));
    all.map(|(def, sample)| (def, sample, hex::decode(sample.hex).unwrap()))
}

/// What is published and sent when a device says these pieces.
fn play(def: &Def, pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>, Vec<Drop>, Vec<Close>) {
    let mut b = known(def, Transport::Tcp);
    for piece in pieces {
        b.hand(A, piece);
    }
    (b.published, b.wire, b.drops, b.closed)
}

#[test]
fn a_sample_is_published_whatever_the_split() {
    for (def, sample, bytes) in samples() {
        let whole = play(def, &[&bytes]);
        let what = format!("{}: {}", def.name, sample.about);
        let values = sample.up.iter().filter(|up| up.contains("\"kind\"")).count();
        let is_value = |line: &&String| !line.starts_with("192.0.2.1:4711/up/reply ");
        assert_eq!(whole.0.iter().filter(is_value).count(), values, "{what}: {:?}", whole.0);
        assert!(whole.3.is_empty(), "{what}: {:?}", whole.3);
        assert_eq!(whole.1.is_empty(), sample.answer.is_empty(), "{what} is answered");
        if WITHOUT_FRAMES.contains(&def.name) {
            continue;
        }
        for at in 0..bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(play(def, &[a, b]), whole, "{what} split at {at}");
        }
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(play(def, &each), whole, "{what} byte by byte");
    }
}

#[test]
fn garbage_ends_at_most_the_connection_and_is_counted() {
    for def in CODECS.iter().filter(|def| !WITHOUT_FRAMES.contains(&def.name)) {
        for byte in [0, 0x0a, 0x7e, 0x78, 0xff] {
            let mut b = known(def, Transport::Tcp);
            for _ in 0..40 {
                b.hand(A, &[byte; 100]);
            }
            b.wait(700_000);
            assert_eq!(b.closed.len(), 1, "{} after {byte:#x}: by itself, or by its silence", def.name);
        }
    }
}

#[test]
fn a_command_of_every_codec_is_said() {
    for def in CODECS {
        let logins = def.samples.iter().flat_map(|sample| sample.up);
        let device = logins.filter_map(|up| match Up::from_json(up.as_bytes()) {
            Ok(Up::Login(login)) => Some(login.device),
            _ => None,
        });
        let device: &'static str = Box::leak({ device }.next().unwrap_or("d1".into()));
        for down in def.downs {
            let config = Config { codec: def.name.into(), device: Naming::Psk, ..Config::default() };
            let mut b = bench_with(config);
            (b.now, b.client_id) = (Now::from_micros(1_700_000_000_000_000), Some(device));
            b.open(A);
            b.command(down.kind, down.value, 1);
            let said = hex::encode(&b.wire);
            let expected = hex::encode(&hex::decode(down.hex).unwrap());
            assert_eq!(said, expected, "{}: {} {}", def.name, down.kind, down.value);
        }
    }
}

#[test]
fn a_sample_in_a_datagram_is_read_or_counted() {
    for (def, sample, bytes) in samples() {
        let mut b = known(def, Transport::Udp);
        b.hand(A, &bytes);
        let is_empty = b.published.is_empty() && b.wire.is_empty() && b.drops.is_empty();
        let says_nothing = sample.answer.is_empty() && sample.up.iter().all(|up| !up.contains("\"kind\""));
        assert!(!is_empty || says_nothing, "{}: {}", def.name, sample.about);
        // Who says goodbye is forgotten.
        let says_goodbye = sample.up.iter().any(|up| up.contains("\"logout\""));
        assert_eq!(!b.closed.is_empty(), says_goodbye, "{}: {}", def.name, sample.about);
    }
}

#[test]
fn two_samples_in_one_segment_are_published_twice() {
    for (def, sample, bytes) in samples().filter(|(def, ..)| !WITHOUT_FRAMES.contains(&def.name)) {
        let (once, twice) = (play(def, &[&bytes]), play(def, &[&bytes.repeat(2)]));
        let what = format!("{}: {}", def.name, sample.about);
        // Between them the first one may have said goodbye, and the second one is known by its address again.
        assert_eq!(twice.0.len(), 2 * once.0.len(), "{what}: {:?}", twice.0);
        // What is escaped in an answer depends on its number.
        assert!(twice.1.starts_with(&once.1), "{what}");
        assert_eq!(twice.1.len() > once.1.len(), !once.1.is_empty(), "{what} is answered twice");
    }
}

#[test]
fn who_logs_in_twice_is_answered_twice_and_who_is_silent_then_is_closed() {
    for (def, sample, bytes) in samples() {
        let says_login = |up: &str| matches!(Up::from_json(up.as_bytes()), Ok(Up::Login(_)));
        if sample.up.len() != 1 || !sample.up.iter().all(|up| says_login(up)) {
            continue;
        }
        let what = format!("{}: {}", def.name, sample.about);
        let mut b = bench_with(Config { codec: def.name.into(), ..Config::default() });
        (b.knows_all_tokens, b.now) = (true, Now::from_micros(1_700_000_000_000_000));
        b.open(A);
        b.hand(A, &bytes);
        let once = b.wire.len();
        b.hand(A, &bytes);
        assert_eq!(b.wire.len() > once, once > 0, "{what}");
        assert!(b.closed.is_empty() && b.published.is_empty(), "{what}");
        b.wait(599_999);
        assert!(b.closed.is_empty(), "{what}");
        b.wait(1);
        assert_eq!(b.closed, [Close::KeepAlive], "{what}");
    }
}

#[test]
fn logins_of_samples_open_the_session_of_their_device() {
    for (def, sample, bytes) in samples() {
        let Some(Ok(Up::Login(login))) = sample.up.first().map(|up| Up::from_json(up.as_bytes())) else {
            continue;
        };
        let mut b = bench_with(Config { codec: def.name.into(), ..Config::default() });
        b.knows_all_tokens = true;
        b.now = Now::from_micros(1_700_000_000_000_000);
        b.open(A);
        b.hand(A, &bytes);
        let what = format!("{}: {}", def.name, sample.about);
        assert_eq!(b.subscribed.first(), Some(&format!("{}/dn/#", login.device)), "{what}");
        let mut b = bench_with(Config { codec: def.name.into(), ..Config::default() });
        b.refusal = Some(Refusal::NotAuthorised);
        b.open(A);
        b.hand(A, &bytes);
        assert_eq!((b.published.len(), &b.closed[..]), (0, &[Close::NotAuthorised][..]), "{what}");
    }
}
