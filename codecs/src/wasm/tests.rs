//! Modules, good and hostile, written in WebAssembly's text format.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::{Context, Costs, Data, Down, Expect, Fault, Frame, Framing, FramingOptions, Up};

/// What every module has; `decode` and what else there is are added.
const HEAD: &str = r#"
    (import "tidegate" "log" (func $log (param i32 i32)))
    (import "tidegate" "wall_ms" (func $wall_ms (result i64)))
    (import "tidegate" "device" (func $device (param i32 i32) (result i32)))
    (import "tidegate" "token" (func $token (param i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func (export "tidegate_abi") (result i32) (i32.const 1))"#;
const ALLOC: &str = r#"(func (export "alloc") (param i32) (result i32) (i32.const 65536))"#;

/// A module whose `decode` is `body`.
fn module(body: &str) -> String {
    format!(
        r#"(module {HEAD} {ALLOC} (global $count (mut i32) (i32.const 0))
            (func $decode (export "decode") (param $at i32) (param $len i32) (result i64) {body}))"#
    )
}

/// A module whose `decode` returns `json` of whatever it gets, as `encode` does.
fn returns(json: &[u8]) -> String {
    let text: String = json.iter().map(|b| format!("\\{b:02x}")).collect();
    let result = format!("(i64.const {})", json.len());
    format!(
        r#"(module {HEAD} {ALLOC} (data (i32.const 0) "{text}")
            (func (export "decode") (param i32 i32) (result i64) {result})
            (func (export "encode") (param i32 i32) (result i64) {result}))"#
    )
}

const SMALL: Limits = Limits { fuel: 100_000, memory: 1 << 20, max_frame: 20_000 };

fn load(text: &str) -> Result<Module, String> {
    Module::load(&wat::parse_str(text).unwrap(), SMALL)
}

fn codec(text: &str) -> Box<dyn Codec> {
    load(text).unwrap().build(&Options::default())
}

fn at(wall_ms: u64) -> Context<'static> {
    Context { wall_ms, device: Some("meter-7"), token: "t0ken" }
}

/// What the codec makes of these bytes, and how many are left.
fn decode(codec: &mut dyn Codec, bytes: &[u8]) -> (Result<Option<Frame>, Fault>, usize) {
    let mut buf = BytesMut::from(bytes);
    let result = codec.decode(&at(1_000), &mut buf);
    (result, buf.len())
}

fn encode(codec: &mut dyn Codec) -> (Result<Expect, Fault>, Vec<u8>) {
    let mut into = vec![0xee];
    let down = Down { kind: "interval", value: b"60" };
    (codec.encode(&at(1_000), &down, &mut into), into)
}

#[test]
fn a_frame_is_what_decode_says() {
    let json =
        br#"{"consumed":2,"up":[{"kind":"t","data":21.5},{"heartbeat":{}}],"answer":"06","refusal":"15"}"#;
    let (frame, left) = decode(&mut *codec(&returns(json)), &[1, 2, 3]);
    let data = Data { kind: "t".into(), value: "21.5".into(), is_json: true };
    let up = vec![Up::Data(data), Up::Heartbeat];
    let frame_of = Frame { up, answer: vec![6].into(), refusal: vec![0x15].into() };
    assert_eq!((frame, left), (Ok(Some(frame_of)), 1));
}

#[test]
fn zero_means_that_more_is_needed_and_too_much_ends_the_stream() {
    let mut waits = codec(&module("(i64.const 0)"));
    assert_eq!(decode(&mut *waits, &[7; 19_999]), (Ok(None), 19_999));
    let (fault, _) = decode(&mut *waits, &[7; 20_000]);
    assert_eq!(fault, Err(Fault::stream(0, "no frame in 20000 bytes")));
    assert_eq!(decode(&mut *waits, &[]), (Ok(None), 0));
}

#[test]
fn a_frame_longer_than_the_first_window_is_seen_whole() {
    // Takes nothing of fewer than 15,000 bytes.
    let takes = module(
        r#"(if (i32.lt_u (local.get $len) (i32.const 15000)) (then (return (i64.const 0))))
        (memory.copy (i32.const 0) (i32.const 100) (i32.const 18)) (i64.const 18)"#,
    );
    let takes = takes.replacen("(global", r#"(data (i32.const 100) "{\"consumed\":15000}") (global"#, 1);
    assert_eq!(decode(&mut *codec(&takes), &[7; 15_001]), (Ok(Some(Frame::default())), 1));
}

#[test]
fn a_bad_frame_costs_what_the_module_says() {
    let bad = |json: &[u8]| decode(&mut *codec(&returns(json)), &[0; 9]);
    let (fault, left) = bad(br#"{"consumed":4,"error":{"at":3,"why":"checksum"}}"#);
    assert_eq!((fault, left), (Err(Fault::frame(3, "checksum")), 5));
    let (fault, left) = bad(br#"{"error":{"at":99,"why":"checksum"}}"#);
    assert_eq!((fault, left), (Err(Fault::frame(9, "checksum")), 0));
}

#[test]
fn what_is_no_result_is_the_modules_mistake_and_costs_a_frame() {
    for (json, why) in [
        (&b"{"[..], "EOF"),
        (b"\xff\xfe", "`decode` returned"),
        (b"7", "`decode` returned"),
        (br#"{"consumed":10}"#, "has consumed 10 bytes of 9"),
        (br#"{"consumed":-1}"#, "`decode` returned"),
        (br#"{"consumed":0,"answer":"06"}"#, "something of nothing"),
        (br#"{"consumed":1,"up":[{"kind":"a"}]}"#, "`up` of `decode`: `kind` needs"),
        (br#"{"consumed":1,"answer":"0"}"#, "`answer` of `decode`"),
        (br#"{"consumed":1,"refusal":"xx"}"#, "`refusal` of `decode`"),
        (br#"{"consumed":1,"anwser":"06"}"#, "unknown field `anwser`"),
    ] {
        let (fault, left) = decode(&mut *codec(&returns(json)), &[0; 9]);
        let fault = fault.unwrap_err();
        assert!(fault.why.contains(why), "{}: {}", json.escape_ascii(), fault.why);
        assert_eq!((fault.costs, left), (Costs::Frame, 0));
    }
}

#[test]
fn a_command_is_what_encode_says() {
    assert_eq!(encode(&mut *codec(&returns(br#"{"hex":"01 02"}"#))), (Ok(Expect::Nothing), vec![0xee, 1, 2]));
    assert_eq!(encode(&mut *codec(&returns(br#"{"hex":"","key":7}"#))), (Ok(Expect::Reply(7)), vec![0xee]));
    for (json, why) in [
        (&br#"{"error":{"why":"no such interval"}}"#[..], "no such interval"),
        (b"{}", "neither `hex` nor `error`"),
        (br#"{"hex":"f"}"#, "`hex` of `encode`"),
        (b"[]", "`encode` returned"),
        (b"", "`encode`"),
    ] {
        let (fault, into) = encode(&mut *codec(&returns(json)));
        let fault = fault.unwrap_err();
        assert!(fault.why.contains(why) || fault.why.contains("no such command"), "{}", fault.why);
        assert_eq!(into, [0xee]);
    }
    let (fault, _) = encode(&mut *codec(&module("(i64.const 0)")));
    assert!(fault.unwrap_err().why.contains("exports no `encode`"));
}

#[test]
fn encode_is_handed_the_command_in_json() {
    let json = |value| String::from_utf8(result::command(&at(0), &Down { kind: "a/b", value })).unwrap();
    assert_eq!(json(br#"{"on": 1}"#), r#"{"kind":"a/b","device":"meter-7","value":{"on": 1}}"#);
    assert_eq!(json(b"\xff"), r#"{"kind":"a/b","device":"meter-7","hex":"ff"}"#);
    assert_eq!(json(b""), r#"{"kind":"a/b","device":"meter-7","hex":""}"#);
}

#[test]
fn what_a_module_does_wrong_costs_a_frame_and_says_why() {
    let steps = "took more steps";
    for (body, why) in [
        ("(loop $again (br $again)) (i64.const 0)", steps),
        ("(loop $again (call $log (i32.const 0) (i32.const 9)) (br $again)) (i64.const 0)", steps),
        ("(loop $again (drop (call $device (i32.const 0) (i32.const 9))) (br $again)) (i64.const 0)", steps),
        ("(loop $again (drop (memory.grow (i32.const 1))) (br $again)) (i64.const 0)", steps),
        (
            "(loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 100000)) (br $again)) (i64.const 0)",
            steps,
        ),
        ("(call $decode (local.get 0) (local.get 1))", "call stack"),
        ("unreachable", "stopped itself"),
        ("(i64.load (i32.const -8))", "out of bounds"),
        ("(i64.div_u (i64.const 1) (i64.const 0))", "divide by zero"),
        ("(call $log (i32.const -1) (i32.const 9)) (i64.const 0)", "beyond any memory"),
        ("(call $log (i32.const 131070) (i32.const 9)) (i64.const 0)", "outside of its memory"),
        ("(drop (call $token (i32.const 131070) (i32.const 9))) (i64.const 0)", "outside of its memory"),
        ("(i64.const -1)", "outside of its memory"),
        ("(i64.const 0x1ffff00000002)", "outside of its memory"),
        ("(i64.const 0x2000000000000)", "`decode` returned EOF"),
        ("(i64.const 0x1fffe00000002)", "`decode` returned"),
        ("(drop (memory.grow (i32.const 14))) (i64.const 0x100000)", "`decode` returned"),
    ] {
        let mut codec = codec(&module(body));
        let (fault, left) = decode(&mut *codec, b"some bytes");
        let fault = fault.expect_err(body);
        assert!(fault.why.contains(why), "{body}: {}", fault.why);
        assert_eq!((fault.costs, left), (Costs::Frame, 0), "{body}");
    }
}

#[test]
fn what_is_one_instruction_and_much_work_is_more_than_one_step() {
    let locals = format!("(func $wide (local {}))", "i64 ".repeat(4_000));
    for (work, steps) in [
        ("(call $wide)", 64),
        ("(table.fill $table (i32.const 0) (ref.null func) (i32.const 9000))", 400),
        ("(memory.copy (i32.const 0) (i32.const 1) (i32.const 100000))", 1_000),
    ] {
        let hundred = format!(
            "(loop $again {work} (global.set $count (i32.add (global.get $count) (i32.const 1)))
                (br_if $again (i32.lt_u (global.get $count) (i32.const 100)))) (i64.const 0)"
        );
        let text =
            module(&hundred).replacen("(global", &format!("{locals} (table $table 9000 funcref) (global"), 1);
        let bytes = wat::parse_str(text).unwrap();
        let with = |fuel| {
            let module = Module::load(&bytes, Limits { fuel, ..SMALL }).unwrap();
            decode(&mut *module.build(&Options::default()), b"x").0
        };
        assert!(with(100 * steps).is_err(), "{work}");
        assert_eq!(with(1000 * steps), Ok(None), "{work}");
    }
}

#[test]
fn memory_beyond_the_limit_is_not_had_and_the_module_goes_on() {
    // Returns 0 only if it has not got 17 MiB.
    let asks =
        module("(if (i32.ne (memory.grow (i32.const 272)) (i32.const -1)) (then unreachable)) (i64.const 0)");
    assert_eq!(decode(&mut *codec(&asks), b"x").0, Ok(None));
}

#[test]
fn a_module_that_is_no_codec_is_refused_in_words() {
    let with = |parts: &str| format!("(module {parts})");
    let abi = r#"(func (export "tidegate_abi") (result i32) (i32.const 1))"#;
    let decode = r#"(func (export "decode") (param i32 i32) (result i64) (i64.const 0))"#;
    let memory = r#"(memory (export "memory") 1)"#;
    for (text, why) in [
        (with(""), "no memory of the name `memory`"),
        (with(memory), "exports no function `tidegate_abi`"),
        (with(&format!("{memory}{abi}")), "exports no function `alloc`"),
        (with(&format!("{memory}{abi}{ALLOC}")), "exports no function `decode`"),
        (
            with(&format!("{memory}{abi}{ALLOC}{}", decode.replace("i64", "i32"))),
            "`decode` is (i32, i32) -> i32",
        ),
        (
            with(&format!("{memory}{ALLOC}{decode}{}", abi.replace("const 1", "const 2"))),
            "version 2 of the ABI",
        ),
        (
            with(&format!(
                "{memory}{ALLOC}{decode}{}",
                abi.replace("(i32.const 1)", "(loop (br 0)) unreachable")
            )),
            "took more steps",
        ),
        (
            with(r#"(import "wasi_snapshot_preview1" "fd_write" (func))"#),
            "imports `wasi_snapshot_preview1.fd_write`",
        ),
        (with(r#"(import "tidegate" "log" (func))"#), "`log` is () -> nothing, not (i32, i32) -> nothing"),
        (with(r#"(import "tidegate" "log" (memory 1))"#), "`log` is no function"),
        (
            with(&format!("{memory}{abi}{ALLOC}{decode} (func $start (loop (br 0))) (start $start)")),
            "took more steps",
        ),
        (with(&format!("{}{abi}{ALLOC}{decode}", memory.replace(" 1)", " 900)"))), "memory"),
        (with(&format!("{memory}{abi}{ALLOC}{decode} (table 10000000 funcref)")), "table"),
    ] {
        let error = load(&text).err().unwrap_or_else(|| panic!("{text} was loaded"));
        assert!(error.contains(why), "{text}: {error}");
    }
    assert!(Module::load(b"\0asm", SMALL).is_err());
    assert!(Module::load(&[0; MAX_MODULE + 1], SMALL).is_err_and(|e| e.contains("are allowed")));
}

#[test]
fn a_bad_place_for_the_input_is_the_modules_mistake() {
    for place in ["-1", "131070", "0x7fffffff"] {
        let text = module("(i64.const 0)").replace("(i32.const 65536)", &format!("(i32.const {place})"));
        let (fault, _) = decode(&mut *codec(&text), b"some bytes");
        assert!(fault.unwrap_err().why.contains("`alloc` returned"));
    }
}

#[test]
fn an_instance_remembers_until_it_fails_and_is_made_anew_then() {
    // Fails at 0xff; otherwise it consumes as many bytes as calls have been.
    let counts = module(
        r#"(global.set $count (i32.add (global.get $count) (i32.const 1)))
        (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 255)) (then unreachable))
        (i32.store8 (i32.const 12) (i32.add (i32.const 48) (global.get $count)))
        (i64.const 14)"#,
    );
    let counts = counts.replacen("(global", r#"(data (i32.const 0) "{\"consumed\":0}") (global"#, 1);
    let mut codec = codec(&counts);
    assert_eq!(decode(&mut *codec, &[0; 9]).1, 8);
    assert_eq!(decode(&mut *codec, &[0; 9]).1, 7);
    assert!(decode(&mut *codec, &[0xff; 9]).0.is_err());
    assert_eq!(decode(&mut *codec, &[0; 9]).1, 8);
}

#[test]
fn what_a_module_asks_of_its_host_it_is_given() {
    // Logs device, the first two characters of the token and the clock's lowest byte, and stops.
    let asks = module(
        r#"(call $log (i32.const 0) (call $device (i32.const 0) (i32.const 99)))
        (if (i32.ne (call $token (i32.const 200) (i32.const 2)) (i32.const 5)) (then (return (i64.const 0))))
        (call $log (i32.const 200) (i32.const 4))
        (i64.store8 (i32.const 300) (call $wall_ms))
        (call $log (i32.const 300) (i32.const 1))
        unreachable"#,
    );
    let mut buf = BytesMut::from(&b"x"[..]);
    let fault = codec(&asks).decode(&at(u64::from(b'W')), &mut buf).unwrap_err();
    assert!(fault.why.ends_with("it logged: meter-7 | t0 | W"), "{}", fault.why);
}

#[test]
fn a_module_that_is_stopped_again_and_again_is_left_alone_for_a_while() {
    let mut codec = codec(&module("(loop $again (br $again)) (i64.const 0)"));
    let mut why = |wall_ms| {
        let mut buf = BytesMut::from(&b"x"[..]);
        codec.decode(&at(wall_ms), &mut buf).unwrap_err().why.into_owned()
    };
    let was_run = |why: String| why.contains("took more steps");
    for wall_ms in 0..3 {
        assert!(was_run(why(wall_ms)), "{wall_ms}");
    }
    assert_eq!(why(3), "was not run: it was stopped 3 times in a row");
    assert!(!was_run(why(101)));
    assert!(was_run(why(102)));
    assert!(!was_run(why(301)));
    assert!(was_run(why(302)));
    // The clock is set back by an hour.
    let mut later = 3_600_302;
    for _ in 0..20 {
        why(later);
        later += 20_000;
    }
    assert!(was_run(why(later - 3_600_000)));
}

#[test]
fn framing_from_configuration_gives_the_module_its_payloads() {
    let mut keys = FramingOptions::default();
    for (key, value) in [("kind", "length"), ("length_size", "1")] {
        keys.set(key, value).unwrap();
    }
    let options = Options { framing: Some(Framing::new(&keys).unwrap()), ..Options::default() };
    let mut takes = load(&returns(br#"{"consumed":2}"#)).unwrap().build(&options);
    assert_eq!(decode(&mut *takes, &[2, 7, 7, 1]), (Ok(Some(Frame::default())), 1));
    assert_eq!(decode(&mut *takes, &[3, 7, 7]), (Ok(None), 3));
    let mut tells = load(&returns(br#"{"hex":"0102"}"#)).unwrap().build(&options);
    assert_eq!(encode(&mut *tells), (Ok(Expect::Nothing), vec![0xee, 2, 1, 2]));
    let mut waits = load(&module("(i64.const 0)")).unwrap().build(&options);
    let fault = Fault::frame(2, "the bytes end within a frame");
    assert_eq!(decode(&mut *waits, &[2, 7, 7, 1]), (Err(fault), 1));
}

#[test]
fn a_datagram_ends_where_a_frame_ends() {
    let options = Options { is_whole: true, ..Options::default() };
    let mut takes = load(&returns(br#"{"consumed":2}"#)).unwrap().build(&options);
    assert_eq!(decode(&mut *takes, &[1, 2, 3]), (Ok(Some(Frame::default())), 1));
    let mut waits = load(&module("(i64.const 0)")).unwrap().build(&options);
    assert_eq!(decode(&mut *waits, &[1; 3]), (Err(Fault::frame(3, "the bytes end within a frame")), 0));
}

proptest! {
    #[test]
    fn no_result_whatever_makes_the_host_fail(
        result: u64,
        alloc: u32,
        input in prop::collection::vec(any::<u8>(), 1..99),
    ) {
        let text = module(&format!("(i64.const {})", result as i64));
        let text = text.replace("(i32.const 65536)", &format!("(i32.const {})", alloc as i32));
        let mut codec = codec(&text);
        let (result, left) = decode(&mut *codec, &input);
        prop_assert!(left < input.len() || matches!(result, Ok(None)));
    }

    #[test]
    fn no_answer_whatever_makes_the_host_fail(
        json in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'{'), Just(b'"'), Just(b'}')], 1..60),
    ) {
        let mut codec = codec(&returns(&json));
        let (result, left) = decode(&mut *codec, &[0; 9]);
        prop_assert!(left < 9 || matches!(result, Ok(None)));
        prop_assert!(encode(&mut *codec).0.is_err());
    }

    #[test]
    fn no_module_whatever_makes_the_host_fail(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8), 1..4),
    ) {
        let mut bytes = wat::parse_str(returns(br#"{"consumed":2,"up":[{"kind":"t","data":21.5}]}"#)).unwrap();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
        }
        if let Ok(module) = Module::load(&bytes, SMALL) {
            let mut codec = module.build(&Options::default());
            let (result, left) = decode(&mut *codec, &[0; 9]);
            prop_assert!(left < 9 || matches!(result, Ok(None)));
        }
    }
}
