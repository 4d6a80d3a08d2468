use super::*;
use crate::engine::{Call, Program};
use crate::pipe::Limits;
use gateway::ProgramId;

/// A script in this process, asked as one in a worker is.
fn script(source: &str) -> Remote {
    let source = source.to_owned();
    let shape = Program::load("t.js", source.as_bytes(), Limits::default()).unwrap().shape();
    let ask = move |request| {
        let mut program = Program::load("t.js", source.as_bytes(), Limits::default())?;
        Ok(match request {
            Request::Example { function, input, .. } => program.example(function, &input).0,
            Request::Calls { calls, .. } => {
                let call = Call { device: &calls.device, port: calls.port, wall_ms: calls.wall_ms };
                program.call(calls.function, &call, &calls.inputs[0]).0
            }
            other => return Err(format!("{other:?}")),
        })
    };
    Remote::new(ProgramId(1), shape, Box::new(ask))
}

const PAYLOAD: &str = "
    function decodeUplink(input) {
        if (input.fPort !== 1) return { errors: ['unknown FPort'] };
        return { data: { t: input.bytes[0] / 2, list: [1, { a: 1 }] }, warnings: input.bytes[0] ? [] : ['zero'] } }
    function normalizeUplink(input) { return { data: { air: { temperature: input.data.t } } } }
    function encodeDownlink(input) { return { bytes: [input.data.t * 2], fPort: 5 } }
    function decodeDownlink(input) { return { data: { t: input.bytes[0] / 2 } } }";

#[test]
fn examples_that_agree_pass_whatever_numbers_and_empty_lists_look_like() {
    let yaml = r#"
        uplinkDecoder:
          fileName: t.js
          examples:
            - description: half a degree
              input: {fPort: 1, bytes: [0x29]}
              output: {data: {t: 20.50, list: [1.0, {a: 1}]}, errors: []}
              normalizedOutput: {data: [{air: {temperature: 20.5}}]}
            - input: {fPort: 1, bytes: "00"}
              output: {data: {t: 0, list: [1, {a: 1}]}, warnings: [zero]}
              normalizedOutput: {data: [{air: {temperature: 0}}]}
            - input: {fPort: 2, bytes: []}
              output: {errors: [unknown FPort]}
        downlinkEncoder: {fileName: t.js, examples: [{input: {data: {t: 8}}, output: {bytes: [16]}}]}
        downlinkDecoder: {examples: [{input: {fPort: 5, bytes: [16]}, output: {data: {t: 8}}}]}
        unknown: {section: 1}
    "#;
    let examples = Examples::from_yaml(yaml).unwrap();
    assert_eq!(examples.files(), ["t.js"]);
    assert_eq!(examples.check("t.js", &script(PAYLOAD)), Report { count: 5, failures: Vec::new() });
    // Only the section that names no file is of another one.
    assert_eq!(examples.check("u.js", &script(PAYLOAD)).count, 1);
}

#[test]
fn what_a_script_does_otherwise_is_told_with_what_was_expected() {
    for (example, why) in [
        (
            "uplinkDecoder: {examples: [{description: d, input: {fPort: 1, bytes: [2]}, output: {data: {t: 2}}}]}",
            "example uplinkDecoder \"d\": \n  expected {\"data\":{\"t\":2}}\n  found    {\"data\":{\"t\":1,\"list\":[1,{\"a\":1}]}}",
        ),
        (
            "uplinkDecoder: {examples: [{input: {fPort: 9, bytes: []}, output: {errors: [another]}}]}",
            "example uplinkDecoder 1: \n  expected {\"errors\":[\"another\"]}",
        ),
        (
            "downlinkEncoder: {examples: [{input: {data: {t: 1}}, output: {bytes: [2], fPort: 6}}]}",
            "expected {\"bytes\":[2],\"fPort\":6}\n  found    {\"bytes\":[2],\"fPort\":5}",
        ),
        (
            "downlinkEncoder: {examples: [{input: {}, output: {bytes: [2]}}]}",
            "example downlinkEncoder 1: TypeError: cannot read property 't' of undefined (t.js:6:55)",
        ),
    ] {
        let report = Examples::from_yaml(example).unwrap().check("t.js", &script(PAYLOAD));
        let [failure] = &report.failures[..] else { panic!("{report:?}") };
        assert!(failure.contains(why), "{failure}");
    }
}

#[test]
fn a_file_that_is_wrong_is_refused() {
    for yaml in
        ["uplinkDecoder: 7", "a: b: c", "uplinkDecoder: {examples: [7]}", "stream: {examples: [{hexx: a}]}"]
    {
        assert!(Examples::from_yaml(yaml).is_err(), "{yaml}");
    }
    // References that would grow to more than there is memory for.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let inner = format!("*a{}, ", i - 1).repeat(10);
        bomb += &format!("a{i}: &a{i} [{inner}]\n");
    }
    assert!(Examples::from_yaml(&bomb).is_err());
}

const STREAM: &str = "
    function decode(b, context) {
        if (b[0] === 33) throw { message: 'a mark', skip: 1 };
        if (b[0] === 63) throw new Error('lost');
        if (b[0] === 64) return { consumed: 1, up: { login: { device: 'd' } } };
        if (b[0] > 57) return;
        return { consumed: 1, up: { kind: 'digit', data: b[0] - 48 }, answer: b.slice(0, 1) } }
    function encode(down) {
        if (down.kind !== 'say') throw new Error('no such command');
        return { bytes: Buffer.from(String(down.value)), key: 7 } }";

#[test]
fn examples_of_a_stream_are_played_as_those_of_any_codec() {
    let yaml = r#"
        stream:
          examples:
            - description: two digits, and a mark between them
              hex: "40 31 21 32"
              up: [{login: {device: d}}, {kind: digit, data: 1}, {kind: digit, data: 2}]
              answer: "3132"
              error: a mark
            - {hex: "31 3f 32", up: [{kind: digit, data: 1}], error: lost}
        commands:
          examples:
            - {kind: say, value: 12, hex: "3132", key: 7}
            - {kind: shout, value: 1, error: no such command}
    "#;
    let examples = Examples::from_yaml(yaml).unwrap();
    assert_eq!(examples.check("t.js", &script(STREAM)), Report { count: 4, failures: Vec::new() });
    let wrong =
        Examples::from_yaml("stream: {examples: [{hex: '31', up: [{kind: digit, data: 2}]}]}").unwrap();
    assert_eq!(wrong.check("t.js", &script(STREAM)).failures.len(), 1);
    let nonsense = script("function decode(b) { return { consumed: 1, up: { what: 1 } } }");
    let report = Examples::from_yaml("stream: {examples: [{hex: '31'}]}").unwrap().check("t.js", &nonsense);
    assert!(report.failures[0].contains("`up` is not what a device can say"), "{report:?}");
}
