//! What holds for every codec in the list, shown with its own samples.

use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// Codecs that take whatever arrives for a frame, so that it does make a difference where bytes are split.
const WITHOUT_FRAMES: &[&str] = &["raw"];
/// Codecs whose frames have a checksum, but for samples that are about this.
const CHECKED: &[(&str, &str)] =
    &[("gbt32960", "UDP"), ("gt06", "without a CRC"), ("jt808", "UDP"), ("teltonika", "UDP")];

const CONTEXT: Context<'_> = Context { wall_ms: 1_700_000_000_000, device: None, token: "token" };

#[derive(Debug, Default, PartialEq)]
struct Played {
    ups: Vec<Value>,
    answers: Vec<u8>,
    faults: Vec<Fault>,
    /// Bytes that are kept for a frame that is not whole.
    left: usize,
}

impl Played {
    fn is_at_end(&self) -> bool {
        self.faults.last().is_some_and(|fault| fault.costs == Costs::Stream)
    }
}

/// Hands the pieces to a new codec, as a gateway does.
fn play(def: &Def, pieces: &[&[u8]]) -> Played {
    let mut codec = (def.build)(&Options::default());
    let mut played = Played::default();
    let mut device: Option<Box<str>> = None;
    let mut buf = BytesMut::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            let (before, cx) = (buf.len(), Context { device: device.as_deref(), ..CONTEXT });
            match codec.decode(&cx, &mut buf) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    for up in &frame.up {
                        if let Up::Login(login) = up {
                            device = Some(login.device.clone());
                        }
                    }
                    played.ups.extend(frame.up.iter().map(|up| value(&up.to_json())));
                    played.answers.extend(frame.answer);
                }
                Err(fault) => {
                    played.faults.push(fault);
                    if played.is_at_end() {
                        played.left = buf.len();
                        return played;
                    }
                }
            }
            assert!(buf.len() < before, "{}: nothing was taken of {before} bytes: {played:?}", def.name);
        }
        assert!(buf.len() <= codec.max_frame(), "{} keeps {} bytes", def.name, buf.len());
    }
    played.left = buf.len();
    played
}

fn value(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{json}: {e}"))
}

fn bytes(def: &Def, hex: &str) -> Vec<u8> {
    crate::hex::decode(hex).unwrap_or_else(|e| panic!("{}: {hex}: {e}", def.name))
}

/// Every sample with its bytes and what they are to be played as.
fn samples() -> impl Iterator<Item = (&'static Def, &'static Sample, Vec<u8>, Played)> {
    let all = CODECS.iter().flat_map(|def| def.samples.iter().map(move |sample| (def, sample)));
    all.map(|(def, sample)| {
        let read = |up: &&str| {
            let read = Up::from_json(up.as_bytes());
            value(&read.unwrap_or_else(|e| panic!("{}: {up}: {e}", def.name)).to_json())
        };
        let ups = sample.up.iter().map(read).collect();
        let played = Played { ups, answers: bytes(def, sample.answer), ..Played::default() };
        (def, sample, bytes(def, sample.hex), played)
    })
}

/// A device that is known need not say again who it is.
fn without_logins(ups: &[Value]) -> Vec<&Value> {
    ups.iter().filter(|up| up.get("login").is_none()).collect()
}

fn framed() -> impl Iterator<Item = (&'static Def, &'static Sample, Vec<u8>, Played)> {
    samples().filter(|(def, ..)| !WITHOUT_FRAMES.contains(&def.name))
}

#[test]
fn the_list_is_in_alphabetical_order_and_every_codec_shows_what_it_does() {
    assert!(CODECS.is_sorted_by_key(|def| def.name));
    for def in CODECS {
        assert_eq!(find(def.name).map(|found| found.name), Some(def.name), "two have the name {}", def.name);
        assert!(!def.about.is_empty() && !def.samples.is_empty() && !def.downs.is_empty(), "{}", def.name);
        assert!(def.samples.iter().all(|sample| !sample.about.is_empty()), "{}", def.name);
    }
}

#[test]
fn every_sample_means_what_it_says() {
    for (def, sample, bytes, expected) in samples() {
        assert_eq!(play(def, &[&bytes]), expected, "{}: {}", def.name, sample.about);
    }
}

#[test]
fn a_sample_split_anywhere_means_the_same() {
    for (def, sample, bytes, expected) in framed() {
        for at in 0..=bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(play(def, &[a, b]), expected, "{}: {} split at {at}", def.name, sample.about);
        }
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(play(def, &each), expected, "{}: {} byte by byte", def.name, sample.about);
    }
}

#[test]
fn frames_in_one_segment_mean_what_they_mean_alone() {
    for (def, sample, bytes, expected) in framed() {
        let twice = play(def, &[&bytes.repeat(2)]);
        let what = format!("{}: {}", def.name, sample.about);
        assert_eq!(
            without_logins(&twice.ups),
            without_logins(&[&expected.ups[..], &expected.ups].concat()),
            "{what}"
        );
        assert_eq!((twice.faults, twice.left), (vec![], 0), "{what}");
        assert!(twice.answers.starts_with(&expected.answers), "{what}");
    }
}

#[test]
fn a_sample_that_is_cut_short_is_waited_for() {
    for (def, sample, bytes, expected) in framed() {
        for at in 0..bytes.len() {
            let played = play(def, &[&bytes[..at]]);
            let what = format!("{}: {} cut at {at}", def.name, sample.about);
            assert_eq!(played.faults, [], "{what}");
            assert!(expected.ups.starts_with(&played.ups), "{what}");
        }
    }
}

#[test]
fn a_bit_turned_over_is_borne_and_where_there_is_a_checksum_it_is_seen() {
    for (def, sample, bytes, expected) in samples() {
        for bit in 0..8 * bytes.len() {
            let mut turned = bytes.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            let played = play(def, &[&turned, &bytes]);
            if CHECKED.iter().any(|(name, but)| *name == def.name && !sample.about.contains(but)) {
                let is_new = |up: &&Value| up.get("kind").is_some() && !expected.ups.contains(up);
                let new = played.ups.iter().find(is_new);
                assert_eq!(new, None, "{}: {} with the bit {bit}", def.name, sample.about);
            }
        }
    }
}

#[test]
fn garbage_between_frames_costs_the_frame_after_it_at_most_if_not_the_stream() {
    for (def, sample, bytes, expected) in framed() {
        for garbage in [&[0xff; 9][..], b"\x00\x01\x02", b"GET / HTTP/1.1\r\n\r\n"] {
            let played = play(def, &[&bytes, garbage, &bytes, &bytes]);
            let what = format!("{}: {} around {garbage:02x?}: {played:?}", def.name, sample.about);
            assert!(
                played.is_at_end() || without_logins(&played.ups).ends_with(&without_logins(&expected.ups)),
                "{what}"
            );
        }
    }
}

#[test]
fn a_length_that_is_too_large_keeps_no_more_than_a_frame() {
    for (def, sample, bytes, _) in samples() {
        let most = (def.build)(&Options::default()).max_frame();
        let zeros = vec![0; 8192];
        for at in 0..bytes.len().min(24) {
            for size in 1..=4 {
                let mut large = bytes.clone();
                let end = bytes.len().min(at + size);
                large[at..end].fill(0xff);
                let mut pieces: Vec<&[u8]> = vec![&large];
                pieces.resize(2 + most / zeros.len(), &zeros);
                let played = play(def, &pieces);
                assert!(played.is_at_end() || played.left <= most, "{}: {}", def.name, sample.about);
            }
        }
    }
}

#[test]
fn every_command_is_written_as_it_is_shown() {
    for def in CODECS {
        let login = samples().filter(|(of, ..)| of.name == def.name).flat_map(|(_, _, _, played)| played.ups);
        let login =
            login.into_iter().find_map(|up| Some(up.get("login")?.get("device")?.as_str()?.to_owned()));
        let cx = Context { device: login.as_deref(), ..CONTEXT };
        for down in def.downs {
            let mut into = b"before".to_vec();
            let mut codec = (def.build)(&Options::default());
            let value = down.value.as_bytes();
            let encoded = codec.encode(&cx, &Down { kind: down.kind, value }, &mut into);
            assert!(encoded.is_ok(), "{}: {} {}: {encoded:?}", def.name, down.kind, down.value);
            let expected = [b"before", &bytes(def, down.hex)[..]].concat();
            assert_eq!(
                crate::hex::encode(&into),
                crate::hex::encode(&expected),
                "{}: {}",
                def.name,
                down.kind
            );
        }
    }
}

/// Pieces of samples, changed, and bytes between them.
fn any_stream(def: &'static Def) -> impl Strategy<Value = Vec<u8>> {
    let samples: Vec<Vec<u8>> = def.samples.iter().map(|sample| bytes(def, sample.hex)).collect();
    let piece = (prop::sample::select(samples), any::<[prop::sample::Index; 3]>(), any::<u8>()).prop_map(
        |(mut bytes, [from, to, at], byte)| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len() + 1));
            if from % 2 == 0 { bytes } else { bytes[from.min(to)..to].to_vec() }
        },
    );
    let random = prop::collection::vec(any::<u8>(), 0..64);
    prop::collection::vec(prop_oneof![piece, random], 1..4).prop_map(|pieces| pieces.concat())
}

#[test]
fn whatever_comes_is_borne_and_means_the_same_in_other_pieces() {
    let mut runner = prop::test_runner::TestRunner::new(ProptestConfig::with_cases(10_000));
    for def in CODECS {
        let ran = runner.run(&(any_stream(def), 1..40_usize), |(stream, size)| {
            let whole = play(def, &[&stream]);
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            let split = play(def, &pieces);
            prop_assert!(
                WITHOUT_FRAMES.contains(&def.name) || whole.ups == split.ups,
                "{whole:?}\n{split:?}"
            );
            Ok(())
        });
        assert_eq!(ran, Ok(()), "{}", def.name);
    }
}

#[test]
fn whatever_is_published_is_encoded_whole_or_not_at_all() {
    let kinds =
        || CODECS.iter().flat_map(|def| def.downs).map(|down| down.kind.to_owned()).collect::<Vec<_>>();
    let values = || CODECS.iter().flat_map(|def| def.downs).map(|down| down.value.as_bytes().to_vec());
    let value = prop_oneof![
        prop::sample::select(values().collect::<Vec<_>>()),
        "[{}\\[\\]\":,a-z0-9.-]{0,40}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..80),
        prop::sample::select(vec![vec![b'7'; 70_000], br#"{"id":-1,"text":null}"#.to_vec()]),
    ];
    let kind = prop_oneof![prop::sample::select(kinds()), "[a-z/]{0,12}"];
    let mut runner = prop::test_runner::TestRunner::new(ProptestConfig::with_cases(2_000));
    let device = prop::sample::select(vec![None, Some("013812345678"), Some("é"), Some("")]);
    for def in CODECS {
        let ran = runner.run(&(&kind, &value, &device), |(kind, value, device)| {
            let mut into = b"before".to_vec();
            let mut codec = (def.build)(&Options::default());
            let cx = Context { device, ..CONTEXT };
            let encoded = codec.encode(&cx, &Down { kind: &kind, value: &value }, &mut into);
            prop_assert!(into.starts_with(b"before"));
            prop_assert!(encoded.is_ok() || into.len() == 6);
            Ok(())
        });
        assert_eq!(ran, Ok(()), "{}", def.name);
    }
}
