//! What scripts do that mean harm, or were written in a hurry: each costs its call, and the next call works.
//!
//! What the engine does without asking whether it may go on, such as `new Array(1e8) + ''` or sorting a list of four thousand
//! million holes, is not here: there the supervisor ends the process.

use super::*;

/// What a function with this body brings, and that a payload is decoded after it by the same program.
fn costs(body: &str) -> CallFailure {
    let source = format!(
        "function decodeUplink(input) {{ if (input.bytes[0] === 0) return {{ data: 'well' }}; {body} }}"
    );
    let mut program = load(&source);
    let failure = call(&mut program, Called::DecodeUplink, &[1]).expect_err(body);
    for _ in 0..2 {
        let next = call(&mut program, Called::DecodeUplink, &[0]);
        assert_eq!(next.as_deref(), Ok("{\"data\":\"well\"}"), "after {body}");
    }
    failure
}

fn is_limit(failure: &CallFailure) -> bool {
    matches!(failure, CallFailure::Limit(_))
}

#[test]
fn what_takes_too_long_is_stopped() {
    for body in [
        "for (;;);",
        "for (;;) try { for (;;); } catch (e) {} finally { for (;;); }",
        "/(a+)+$/.test('a'.repeat(40) + 'b');",
        "Array.prototype.indexOf.call({ length: 2 ** 32 - 1 }, 1);",
        "return { data: { get x() { for (;;); } } };",
        "return { data: { toJSON() { for (;;); } } };",
        "return new Proxy({}, { get() { for (;;); } });",
        "throw { get message() { for (;;); } };",
        "function* g() { for (;;) yield 1; } return { data: [...g()].length };",
        "Promise.resolve().then(() => { for (;;); }); return { data: 1 };",
        "(async () => { for (;;) await null; })(); return { data: 1 };",
    ] {
        let failure = costs(body);
        assert!(is_limit(&failure), "{body}: {failure:?}");
    }
}

#[test]
fn what_takes_too_much_memory_is_stopped() {
    for body in [
        "const a = []; for (;;) a.push(new Array(1000).fill(7));",
        "new Uint8Array(1e9);",
        "'x'.repeat(2 ** 29);",
        "const m = new Map(); for (let i = 0;; i++) m.set(i, { i });",
        "let o = {}; for (;;) o = { o }; ",
        "return { data: new Array(3e6).fill(1) };",
    ] {
        let failure = costs(body);
        assert!(is_limit(&failure), "{body}: {failure:?}");
    }
}

#[test]
fn memory_that_leaks_from_call_to_call_ends_and_begins_anew() {
    let source = "globalThis.kept = []; Object.prototype.x = undefined;
        function decodeUplink(input) { (Array.kept ??= []).push(new Array(20000).fill(1)); return { data: Array.kept.length } }";
    let mut program = load(source);
    let results: Vec<_> = (0..200).map(|_| call(&mut program, Called::DecodeUplink, &[1])).collect();
    assert!(results.iter().any(Result::is_err));
    assert!(results.iter().filter(|r| r.as_deref() == Ok("{\"data\":1}")).count() > 1);
    assert!(results.iter().filter(|r| r.is_ok()).count() > 150);
}

#[test]
fn what_is_no_answer_is_the_programs_error() {
    for body in [
        "function f() { return f() + 1 } f();",
        "const a = {}; a.a = a; return { data: a };",
        "let deep = []; for (let i = 0; i < 1e4; i++) deep = [deep]; return { data: deep };",
        "let s = 'x'; for (;;) s += s;",
        "return { data: 1n };",
        "return { data: 'x'.repeat(2000000) };",
        "return { get data() { throw new Error('no') } };",
        "return { data: { toJSON() { throw new Error('no') } } };",
        "return new Proxy({}, { get() { throw new Error('no') } });",
        "return { errors: { length: 1e9, toString() { throw 1 } } };",
        "throw { get message() { throw 1 }, get skip() { throw 2 }, get stack() { throw 3 }, toJSON() { throw 4 } };",
        "throw new Proxy({}, { get() { throw 1 }, has() { throw 2 }, getPrototypeOf() { throw 3 } });",
        "throw Symbol('s');",
        "throw { toString() { throw 1 } };",
        "return import('std');",
        "exit();",
        "process.exit(1);",
        "std.exit(0);",
        "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);",
        "return Symbol('s');",
        "return function () {};",
        "return { data: function () {} };",
        "return async function () {}();",
    ] {
        let failure = costs(body);
        assert!(matches!(failure, CallFailure::Program(_)), "{body}: {failure:?}");
    }
}

#[test]
fn prototypes_that_a_script_has_spoilt_are_its_own() {
    let spoil = "JSON.stringify = () => 'gone'; JSON.parse = null; Array.prototype.push = null; Array.isArray = () => false;
        Object.prototype.toJSON = undefined; Object.prototype.errors = undefined; Buffer.from = null; Reflect.apply = null;
        Array.prototype[Symbol.iterator] = null; globalThis.Date = null; Object.defineProperty = null;
        Uint8Array.prototype.subarray = null; Number.prototype.toString = () => 'no';
        console.log('still');
        function decodeUplink(input) { return { data: { a: [1, 2], t: typeof input.recvTime } } }";
    let mut spoilt = load(spoil);
    for _ in 0..3 {
        let result = call(&mut spoilt, Called::DecodeUplink, &[]);
        assert_eq!(result.as_deref(), Ok(r#"{"data":{"a":[1,2],"t":"object"}}"#));
    }
    let mut other =
        load("function decodeUplink() { return { data: [JSON.stringify([1]), typeof Buffer.from] } }");
    assert_eq!(call(&mut other, Called::DecodeUplink, &[]).as_deref(), Ok(r#"{"data":["[1]","function"]}"#));

    let polluted = "Object.prototype.errors = ['polluted']; function decodeUplink() { return { data: 1 } }";
    assert_eq!(uplink(polluted, &[]), program_error("polluted"));
    let proto = "function decodeUplink() { return { data: JSON.parse('{\"__proto__\": {\"a\": 1}}') } }";
    assert_eq!(uplink(proto, &[]).as_deref(), Ok(r#"{"data":{"__proto__":{"a":1}}}"#));
}

#[test]
fn a_stream_that_takes_too_long_at_any_frame_is_stopped() {
    let source =
        "function decode(b) { if (b.length < 3) for (;;); return { consumed: 1, up: { heartbeat: {} } } }";
    let mut program = load(source);
    let failure = call(&mut program, Called::Decode, &[1, 2, 3, 4]).unwrap_err();
    assert!(is_limit(&failure), "{failure:?}");
    let bomb = "function decode(b) { const a = []; for (;;) a.push(new Array(1000).fill(7)) }";
    let failure = call(&mut load(bomb), Called::Decode, &[1, 2, 3, 4]).unwrap_err();
    assert!(is_limit(&failure), "{failure:?}");
    let many = "function decode(b) { return { consumed: 1, up: { kind: 'data', data: 'x'.repeat(1000) } } }";
    let result = call(&mut load(many), Called::Decode, &[0; 60000]);
    assert!(result.is_err() || result.is_ok_and(|json| json.len() < 3 * MAX_RESULT));
}

#[test]
fn a_script_that_breaks_out_of_its_function_is_still_alone() {
    let source = "}}); globalThis.out = 1; (function ($want) { switch (1) { case 1: function decodeUplink() { return {data: 1} }";
    let loaded = Program::load("test.js", source.as_bytes(), Limits::default());
    if let Ok(mut program) = loaded {
        assert!(call(&mut program, Called::DecodeUplink, &[]).is_ok());
    }
}
