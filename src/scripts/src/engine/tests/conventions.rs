//! What goes in and what comes out, function by function.

use super::*;

#[test]
fn an_uplink_has_bytes_port_time_and_variables() {
    let source = "function decodeUplink(input) {
        return { data: { list: Array.isArray(input.bytes), bytes: input.bytes, port: input.fPort,
            time: input.recvTime.toISOString(), variables: input.variables } };
    }";
    let data = "{\"data\":{\"list\":true,\"bytes\":[0,255],\"port\":7,\"time\":\"2023-11-14T22:13:20.000Z\",\"variables\":{}}}";
    assert_eq!(uplink(source, &[0, 255]).as_deref(), Ok(data));
}

#[test]
fn keys_stay_in_order_and_what_json_cannot_say_is_null_or_left_out() {
    let source = "function decodeUplink() { return { data: { z: 1, a: NaN, m: undefined, i: -Infinity, d: new Date(0) } } }";
    let data = r#"{"data":{"z":1,"a":null,"i":null,"d":"1970-01-01T00:00:00.000Z"}}"#;
    assert_eq!(uplink(source, &[]).as_deref(), Ok(data));
}

#[test]
fn errors_are_a_failure_and_warnings_go_along() {
    let errors = "function decodeUplink() { return { errors: ['unknown port', 'short'] } }";
    assert_eq!(uplink(errors, &[]), program_error("unknown port; short"));
    let warnings =
        "function decodeUplink() { return { data: {}, errors: [], warnings: ['low \"battery\"'] } }";
    assert_eq!(uplink(warnings, &[]).as_deref(), Ok(r#"{"data":{},"warnings":["low \"battery\""]}"#));
    let text = "function decodeUplink() { return { data: {}, errors: 'one text' } }";
    assert_eq!(uplink(text, &[]), program_error("one text"));
}

#[test]
fn an_answer_without_data_is_a_failure() {
    for source in ["function decodeUplink() {}", "function decodeUplink() { return 7 }"] {
        let gave = if source.contains('7') { "int" } else { "undefined" };
        assert_eq!(uplink(source, &[]), program_error(&format!("decodeUplink gave {gave}")));
    }
    let nothing = "function decodeUplink() { return {} }";
    assert_eq!(uplink(nothing, &[]), program_error("it gave neither data nor errors"));
    assert_eq!(uplink("function Decoder() {}", &[]), program_error("it gave neither data nor errors"));
}

#[test]
fn what_a_script_throws_is_told_with_its_place_in_the_file() {
    let source = "\n\nfunction decodeUplink(input) {\n  return input.nothing.here;\n}";
    let why = "TypeError: cannot read property 'here' of undefined (test.js:4:10)";
    assert_eq!(uplink(source, &[]), program_error(why));
    assert_eq!(uplink("function decodeUplink() { throw 'text' }", &[]), program_error("text"));
    assert_eq!(uplink("function decodeUplink() { throw {a: 1} }", &[]), program_error(r#"{"a":1}"#));
    assert!(uplink("function decodeUplink() { throw null }", &[]).is_err());
    assert_eq!(
        uplink("function decodeUplink() { throw new Error('no such frame') }", &[]),
        program_error("no such frame (test.js:1:37)")
    );
}

#[test]
fn what_is_no_javascript_is_told_where_its_author_has_written_it() {
    for (source, why) in [
        ("function decodeUplink() {\n  return 1 2;\n}", "test.js:2:12"),
        ("function decodeUplink( { return 1 2; }", "test.js:1:35"),
        // A bracket too few: where the file ends.
        ("function decodeUplink() {\n  if (true) {\n  return {}\n}\n", "test.js:5:1"),
        ("function decodeUplink() {\n  return {\n}", "test.js:3:2"),
        // One too many, before a function that is right.
        ("function f() {}\n}\nfunction decodeUplink() {}\n", "test.js:2:1"),
        ("}\nfunction decodeUplink() {}\n", "test.js:1:1"),
        ("return;\nfunction decodeUplink() {}\n  )", "test.js:3:3"),
    ] {
        let found = Program::load("test.js", source.as_bytes(), Limits::default()).err().unwrap();
        assert!(
            found.starts_with("SyntaxError: ") && found.ends_with(&format!(" ({why})")),
            "{source}: {found}"
        );
    }
}

#[test]
fn a_script_that_cannot_be_compiled_or_has_no_function_is_refused() {
    let refused =
        |source: &str| Program::load("test.js", source.as_bytes(), Limits::default()).err().unwrap();
    let why = refused("function decodeUplink() {\n  return {\n}");
    assert!(why.starts_with("SyntaxError: ") && why.contains("(test.js:3:"), "{why}");
    assert!(refused("var x = 1").starts_with("it has no function of any convention"));
    assert!(refused("throw new Error('at the start')").starts_with("at the start (test.js:1:"));
    assert_eq!(refused("for (;;);"), "it took longer than 100 ms");
    assert!(
        Program::load("test.js", b"\xff", Limits::default()).err().unwrap().starts_with("it is no UTF-8")
    );
}

#[test]
fn older_conventions_are_called_as_they_were_meant() {
    let v2 = "function Decoder(bytes, port) { return { sum: bytes[0] + bytes[1], port: port } }";
    assert_eq!(uplink(v2, &[1, 2]).as_deref(), Ok(r#"{"data":{"sum":3,"port":7}}"#));
    let v3 = "function Decode(fPort, bytes, variables) { return { port: fPort, n: bytes.length, v: typeof variables } }";
    assert_eq!(uplink(v3, &[1, 2]).as_deref(), Ok(r#"{"data":{"port":7,"n":2,"v":"object"}}"#));
    let both = "function decodeUplink(input) { return { data: Decoder(input.bytes) } }
        function Decoder(bytes) { return bytes.length }";
    assert_eq!(uplink(both, &[1, 2]).as_deref(), Ok(r#"{"data":2}"#));
}

#[test]
fn functions_may_be_exported_and_be_values() {
    let exported = "exports.decodeUplink = (input) => ({ data: input.fPort });";
    assert_eq!(uplink(exported, &[]).as_deref(), Ok("{\"data\":7}"));
    let replaced = "module.exports = { decodeUplink(input) { return { data: 1 } } };";
    assert_eq!(uplink(replaced, &[]).as_deref(), Ok("{\"data\":1}"));
    let value = "const decodeUplink = _ => ({ data: 2 }); // the last line is a comment";
    assert_eq!(uplink(value, &[]).as_deref(), Ok("{\"data\":2}"));
}

#[test]
fn normalize_uplink_is_given_what_was_decoded() {
    let source = "function decodeUplink(input) { return { data: { t: input.bytes[0] }, warnings: ['w'] } }
        function normalizeUplink(input) { return { data: [{ air: { temperature: input.data.t / 2 } }] } }";
    let data = r#"{"data":{"t":41},"normalized":[{"air":{"temperature":20.5}}],"warnings":["w"]}"#;
    assert_eq!(uplink(source, &[41]).as_deref(), Ok(data));
    let fails = "function decodeUplink(input) { return { data: 1 } }
        function normalizeUplink() { return { errors: ['no unit'] } }";
    assert_eq!(uplink(fails, &[]).as_deref(), Ok(r#"{"data":1,"warnings":["normalizeUplink: no unit"]}"#));
}

#[test]
fn a_downlink_becomes_bytes_and_a_port() {
    let command = br#"{"kind":"interval","value":{"minutes":300}}"#;
    let encode = |source: &str| call(&mut load(source), Called::EncodeDownlink, command);
    let ts013 = "function encodeDownlink(input) {
        return { bytes: [input.data.minutes >> 8, input.data.minutes & 255], fPort: 9, errors: [] } }";
    assert_eq!(encode(ts013).as_deref(), Ok(r#"{"hex":"012c","port":9}"#));
    let same_port = "function encodeDownlink(i) { return { bytes: new Uint8Array([i.kind.length]) } }";
    assert_eq!(encode(same_port).as_deref(), Ok(r#"{"hex":"08","port":7}"#));
    let v2 = "function Encoder(object, port) { return [object.minutes % 256, port] }";
    assert_eq!(encode(v2).as_deref(), Ok(r#"{"hex":"2c07","port":7}"#));
    let v3 = "function Encode(fPort, obj, variables) { return Buffer.from([fPort]) }";
    assert_eq!(encode(v3).as_deref(), Ok(r#"{"hex":"07","port":7}"#));
    let errors = "function encodeDownlink() { return { errors: ['too long an interval'] } }";
    assert_eq!(encode(errors), program_error("too long an interval"));
    for (bytes, why) in [
        ("[1, 256]", "`bytes` must be bytes: byte 1 is 256"),
        ("[0.5]", "`bytes` must be bytes: byte 0 is 0.5"),
        ("undefined", "`bytes` must be bytes: this is undefined"),
        ("{length: 1e9}", "`bytes` must be bytes: it has no length up to 65536"),
    ] {
        let source = format!("function encodeDownlink() {{ return {{ bytes: {bytes} }} }}");
        assert_eq!(encode(&source), program_error(why));
    }
    let port = "function encodeDownlink() { return { bytes: [], fPort: 256 } }";
    assert_eq!(encode(port), program_error("fPort is 256"));
}

/// Frames of a length byte and that many bytes; 0xff is no length, and 0xfe is what cannot be read.
const STREAM: &str = "function decode(buffer, context) {
        if (buffer[0] === 0xff) throw { message: 'no length', skip: 1 };
        if (buffer[0] === 0xfe) throw new Error('lost');
        if (buffer.length < 1 + buffer[0]) return;
        const body = buffer.slice(1, 1 + buffer[0]);
        return { consumed: 1 + buffer[0], answer: [buffer[0]], refuse: Buffer.from('no'),
            up: { kind: 'data', data: { hex: body.toString('hex'), device: context.device, port: context.fPort } } };
    }
    function encode(down) {
        if (down.kind === 'ask') return { bytes: [down.value.n], key: down.value.n };
        return Buffer.from(down.device + down.value);
    }";

#[test]
fn a_stream_gives_as_many_frames_as_it_holds() {
    let mut program = load(STREAM);
    assert_eq!(program.shape(), Shape::Stream);
    let frame = |hex: &str, n: u8| {
        format!(
            r#"{{"consumed":{},"up":[{{"kind":"data","data":{{"hex":"{hex}","device":"d1","port":7}}}}],"answer":"0{n}","refusal":"6e6f"}}"#,
            n + 1
        )
    };
    let (one, two) = (frame("aa", 1), frame("bbcc", 2));
    let decoded = call(&mut program, Called::Decode, &[1, 0xaa, 2, 0xbb, 0xcc, 9, 9]);
    assert_eq!(decoded, Ok(format!(r#"{{"consumed":5,"frames":[{one},{two}]}}"#)));
    let nothing = call(&mut program, Called::Decode, &[3, 1]);
    assert_eq!(nothing.as_deref(), Ok(r#"{"consumed":0,"frames":[]}"#));
}

#[test]
fn an_error_in_a_stream_costs_no_frame_before_it() {
    let mut program = load(STREAM);
    let skips = call(&mut program, Called::Decode, &[0, 0xff, 0]).unwrap();
    assert!(skips.starts_with(r#"{"consumed":1,"frames":[{"consumed":1,"up":"#), "{skips}");
    assert!(skips.ends_with(r#"],"error":{"at":1,"why":"no length","skip":1}}"#), "{skips}");
    let lost = call(&mut program, Called::Decode, &[0xfe, 0]).unwrap();
    assert_eq!(lost, r#"{"consumed":0,"frames":[],"error":{"at":0,"why":"lost (test.js:3:43)"}}"#);
    let too_much = call(&mut load("function decode() { return {consumed: 3} }"), Called::Decode, &[1, 2]);
    assert!(too_much.unwrap().contains("it took 3 of 2 bytes"));
}

#[test]
fn up_may_be_a_list_or_nothing() {
    let list = "function decode(b) { return {consumed: b.length, up: [{heartbeat: {}}, {logout: {}}]} }";
    let decoded = call(&mut load(list), Called::Decode, &[1]);
    assert_eq!(
        decoded.as_deref(),
        Ok(r#"{"consumed":1,"frames":[{"consumed":1,"up":[{"heartbeat":{}},{"logout":{}}]}]}"#)
    );
    let nothing = "function decode(b) { return {consumed: 1, up: null} }";
    let decoded = call(&mut load(nothing), Called::Decode, &[1]);
    assert_eq!(decoded.as_deref(), Ok(r#"{"consumed":1,"frames":[{"consumed":1,"up":[]}]}"#));
}

#[test]
fn a_command_becomes_bytes_and_the_key_of_its_answer() {
    let mut program = load(STREAM);
    let keyed = call(&mut program, Called::Encode, br#"{"kind":"ask","value":{"n":5}}"#);
    assert_eq!(keyed.as_deref(), Ok(r#"{"hex":"05","key":5}"#));
    let plain = call(&mut program, Called::Encode, br#"{"kind":"say","value":"!"}"#);
    assert_eq!(plain.as_deref(), Ok(r#"{"hex":"643121"}"#));
    let only_payload = "function Decoder() {}";
    let encode = call(&mut load(only_payload), Called::Encode, b"{}");
    assert_eq!(encode, program_error("it has no function encode"));
}

#[test]
fn what_is_declared_outside_functions_is_new_in_each_call() {
    let source = "var seen = []; let count = 0; decoded = {};
        function decodeUplink(input) {
            seen.push(input.bytes[0]); count++; decoded['k' + input.bytes[0]] = 1;
            return { data: { seen, count, decoded } } }";
    let mut program = load(source);
    let first = call(&mut program, Called::DecodeUplink, &[1]);
    assert_eq!(first.as_deref(), Ok(r#"{"data":{"seen":[1],"count":1,"decoded":{"k1":1}}}"#));
    let second = call(&mut program, Called::DecodeUplink, &[2]);
    assert_eq!(second.as_deref(), Ok(r#"{"data":{"seen":[2],"count":1,"decoded":{"k2":1}}}"#));
    let on_function = "function Decoder() { Decoder.count = (Decoder.count || 0) + 1; return Decoder.count }";
    let mut program = load(on_function);
    for _ in 0..2 {
        assert_eq!(call(&mut program, Called::DecodeUplink, &[]).as_deref(), Ok("{\"data\":1}"));
    }
}

#[test]
fn constants_and_functions_are_kept_and_no_call_can_change_them() {
    let program = |body: &str| {
        load(&format!(
            "const TABLE = {{ list: [1, {{ n: 2 }}], 'a b': -1.5 }}, NAME = 'x';
            var helper = function (x) {{ return x * 2; }};
            function decodeUplink(input) {{ var b = input.bytes[0], s = 't', f = helper; {body} }}"
        ))
    };
    let mut reads = program("return { data: { b, t: TABLE, n: NAME, h: helper(TABLE.list[1].n) } };");
    assert!(reads.survey.kept.is_some());
    for b in [1, 2] {
        let data = call(&mut reads, Called::DecodeUplink, &[b]);
        let expected = format!(
            "{{\"data\":{{\"b\":{b},\"t\":{{\"list\":[1,{{\"n\":2}}],\"a b\":-1.5}},\"n\":\"x\",\"h\":4}}}}"
        );
        assert_eq!(data, Ok(expected));
    }
    // What the survey cannot see.
    for change in [
        "TABLE.toString.constructor(s, s + '.x = ' + b)(TABLE); var x = TABLE.x;",
        "TABLE.toString.constructor(s, s + '.x = ' + b)(TABLE.list[1]); var x = TABLE.list[1].x;",
        "TABLE.toString.constructor(s, s + '.x = ' + b)(f); var x = f.x;",
        "TABLE.toString.constructor(s, s + '.x = ' + b)(f.prototype); var x = f.prototype.x;",
        "TABLE.toString.constructor(s, s + '.x = ' + b)(decodeUplink.prototype); var x = decodeUplink.prototype.x;",
    ] {
        let mut changes = program(&format!("{change} return {{ data: {{ x: x || 0 }} }};"));
        for b in [1, 2] {
            let data = call(&mut changes, Called::DecodeUplink, &[b]);
            let is_before = change.contains("decodeUplink");
            let expected = if is_before { b } else { 0 };
            assert_eq!(data, Ok(format!("{{\"data\":{{\"x\":{expected}}}}}")), "{change}");
        }
    }
    let mut changed = program("TABLE.list.push(b); return { data: TABLE.list };");
    for b in [1, 2] {
        let data = call(&mut changed, Called::DecodeUplink, &[b]);
        assert_eq!(data, Ok(format!("{{\"data\":[1,{{\"n\":2}},{b}]}}")));
    }
}

#[test]
fn a_variable_that_a_script_forgot_to_declare_is_gone_after_the_call() {
    for source in [
        "function Decoder(b) { if (b[0] > 0) { t = b[0]; } return { t: typeof t === 'undefined' ? null : t }; }",
        "function Decoder(b) { for (i of b) { this.t = i; } return { t: globalThis.t || null }; }",
        "function Decoder(b) { function f(t) { return t } if (b[0]) t = b[0]; return { t: typeof t == 'undefined' ? null : t } }",
        "function Decoder(b) { if (b[0]) Object.defineProperty(globalThis, 't', { value: b[0], configurable: true });
            return { t: globalThis.t || null } }",
        "function t() { return null } function Decoder(b) { if (b[0]) t=b[0]; return { t: t > 0 ? t : null } }",
        "var all = []; function Decoder(b) { all.push(b[0] || 0); t = globalThis.t || all[0]; return { t: t || null }; }",
    ] {
        let mut program = load(source);
        assert_eq!(call(&mut program, Called::DecodeUplink, &[7]).as_deref(), Ok(r#"{"data":{"t":7}}"#));
        let second = call(&mut program, Called::DecodeUplink, &[]);
        assert_eq!(second.as_deref(), Ok(r#"{"data":{"t":null}}"#), "{source}");
    }
}

#[test]
fn the_log_comes_with_the_call_and_is_bounded() {
    let source = "function decodeUplink(input) {
        console.log('port', input.fPort, { a: 1 }); console.error('x'.repeat(5000));
        for (let i = 0; i < 100; i++) console.warn(i);
        return { data: 1 } }";
    let mut program = load(source);
    for _ in 0..2 {
        let (result, log) = program.call(Called::DecodeUplink, &UPLINK, &[]);
        assert!(result.is_ok());
        assert_eq!(log[0], "port 7 {\"a\":1}");
        assert_eq!((log.len(), log[1].len()), (32, 1024));
    }
}

#[test]
fn an_example_is_called_with_its_own_value_and_gives_all() {
    let source = "function decodeUplink(i) { return { data: { b: i.bytes, t: i.recvTime?.getTime() }, warnings: ['w'] } }
        function encodeDownlink(i) { return { bytes: [i.data.x], fPort: 2 } }
        function decodeDownlink(i) { return { errors: ['no ' + i.fPort] } }";
    let mut program = load(source);
    let mut example = |function, input: &str| text(program.example(function, input.as_bytes()).0);
    assert_eq!(
        example(Convention::DecodeUplink, r#"{"bytes":"01ff","fPort":1,"recvTime":"1970-01-01T00:00:01Z"}"#)
            .as_deref(),
        Ok(r#"{"data":{"b":[1,255],"t":1000},"warnings":["w"]}"#)
    );
    let encoded = example(Convention::EncodeDownlink, r#"{"data":{"x":3}}"#);
    assert_eq!(encoded.as_deref(), Ok(r#"{"bytes":[3],"fPort":2}"#));
    let decoded = example(Convention::DecodeDownlink, r#"{"bytes":[1],"fPort":4}"#);
    assert_eq!(decoded.as_deref(), Ok(r#"{"errors":["no 4"]}"#));
    let none = example(Convention::NormalizeUplink, "{}");
    assert_eq!(none, program_error("it has no function normalizeUplink"));
    let legacy = text(
        load("function Decoder(b, p) { return {n: b[0] + p} }")
            .example(Convention::DecodeUplink, br#"{"bytes":[1],"fPort":4}"#)
            .0,
    );
    assert_eq!(legacy.as_deref(), Ok(r#"{"data":{"n":5}}"#));
}

#[test]
fn bytes_are_an_array_however_many_they_are() {
    for length in [0, 1, 1024, 1025, 5000] {
        let payload: Vec<u8> = (0..length).map(|at| (at % 256) as u8).collect();
        let sum: usize = payload.iter().map(|byte| usize::from(*byte)).sum();
        let seen = value("[Array.isArray(bytes), bytes.length, bytes.reduce((a, b) => a + b, 0)]", &payload);
        assert_eq!(seen, format!("{{\"data\":[true,{length},{sum}]}}"));
    }
}
