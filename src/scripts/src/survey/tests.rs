use super::*;

fn may_leave_variables(source: &str) -> bool {
    Survey::of(source).may_leave_variables
}

fn is_kept(source: &str) -> bool {
    Survey::of(source).kept.is_some()
}

#[test]
fn functions_alone_are_kept() {
    for source in [
        "",
        "'use strict'; function decodeUplink(input) { return { data: input.bytes[0] / 2 }; }",
        "// a comment {\nfunction a(x, y = {}) { /* } */ return \"}\" + '\\'{' }\n\n;function b() { return a(1) / 2 / 3 }",
        "function a(x) { return `{ ${ x + `}` } \\``; }",
        "/** {@link x} */ function a() {} // the end",
        "function a(x) { return /[{\"/]+/.test(x) ? x.split(/,/g) : x.length / 2 / x; }",
        "function a(x) { x.y = 1; x.z.push(2); delete x.w; var b = x; b.c = 1; }",
        "function a(b) { var x = 0; x += b; b.a = x; for (const y of b) x++; return x <= 1 || x >= 2 || x == 3; }",
        include_str!("../../../../etc/codecs/climate.js"),
        include_str!("../../../../etc/codecs/weather.js"),
    ] {
        assert!(is_kept(source), "{source}");
    }
}

#[test]
fn tables_that_nobody_changes_are_kept() {
    for source in [
        "var T = { 1: { n: 'a', s: -0.5 }, 'x': [1, 2, [3e-4],], }; function a(b) { return T[b].n; }",
        "const A = 1, B = 'b', C = [0x10 * 2, 1 << 3]\nlet D = null;\nfunction a() { return A + B + C[0] + D; }",
        "var T = []; function a(b) { var d = {}; d.x = T[0]; d[b] = 1; d.n++; var l = []; l.push(T); return d; }",
        "var T = {}; function a(b) { var d; if (b) { d = {}; } else { d = []; } d.x = 1; return d; }",
        "var T = {}; var f = function (x) { return x + 1; }; const g = (x) => { return T[x]; };",
        "var T = 1; // 1 --> 2, it\u{2019}s <!-- this\nfunction a() {}",
        "const g = x => { return x / 2 };\nfunction a(b) { b.x = 1; return g(b); }",
        "var T = [1]; function a(b) { return String.fromCharCode.apply(null, b.bytes.slice(T[0])); }",
        "var T = {}; function a(T2) { var t = T[1]; if (!t || t.x <= 1) { return { T: 1 }; } return t.x - 1; }",
    ] {
        assert!(is_kept(source), "{source}");
    }
    let kept = Survey::of("var T = {}, U = 1; function a() {} const f = () => { };").kept.unwrap();
    assert_eq!(kept, ["T", "U", "a", "f"]);
}

#[test]
fn whatever_else_there_is_is_a_doubt() {
    for source in [
        "function a() {} a.count = 1",
        "function a() { a.count = 1 }",
        "function a() { a['count'] = 1 }",
        "function a() { a = 1 }",
        "function a() { a=1 }",
        "function a() {} function b() { [a] = [1] }",
        "function a() {} function b() { ({a} = b) }",
        "function a() {} function b() { for (a of []); }",
        "function a() {} function b() { for ([a] of []); }",
        "function a() {} function b() { eval('a = 1') }",
        "function a() { $want = 1 }",
        "function a() { \\u0061 = 1 }",
        "const a = () => { arguments[0] = 1 }",
        "const a = () => 1",
        "x = 1",
        "var x",
        "var x = y",
        "var x = f()",
        "var x = [y]",
        "var x = /a/g; function a() {}",
        "var x = {get a() { return 1 }}",
        "var x = {a() {}}",
        "var x = {__proto__: {}}",
        "var x = {}.y",
        "var x = 1 + z; function a() {}",
        "function a() {",
        "function a() { if (x) /[{]/.test(x) }",
        "function a() { return `${ x } }",
        "function a() { return `${ `} }",
        "function a() { return `${ a.b = 1 }` }",
        "function a() { (] }",
        "function a() { \"\n }",
        "function a() { // \u{2028} a = 1\n }",
        "function a() { // \r a = 1\n }",
        "function a() { x\u{a0}= 1 }",
        "function a() {}\n--> a = 1",
        "function a() {} <!-- var b",
        "var T = { f() { this.x = 1; } };",
        "var T = { f: function () { } };",
        "function () {}",
        "async function a() {}",
        "class A {}",
        "{ function a() {} }",
        "/* never closed",
        "module.exports = { a: 1 }",
    ] {
        assert!(!is_kept(source), "{source}");
    }
}

#[test]
fn a_table_that_a_call_may_change_is_a_doubt() {
    let missed = [
        "T = {};",
        "T.x = 1;",
        "T[1] = 1;",
        "T.x++;",
        "--T.x;",
        "++(T.x);",
        "T.x += 1;",
        "T.x ||= 1;",
        "T.push(1);",
        "var o = { f: function () { this.x = 1; } };",
        "this.x = 1;",
        "T['push'](1);",
        "T.push?.(1);",
        "T.list.push(1);",
        "delete T.x;",
        "var t = T; t.x = 1;",
        "var t = {}; t = T; t.x = 1;",
        "var t = {}, u = 1; for (t of T) t.x = 1;",
        "var t = {}; for (var t of T) t.x = 1;",
        "var t = {}; t.t = T; t.t.x = 1;",
        "var t = {} || T; t.x = 1;",
        "var t = [T][0]; t.x = 1;",
        "var t = {}; [t] = [T]; t.x = 1;",
        "var t = {}; var { t } = { t: T }; t.x = 1;",
        "var t = {}; t ??= T; t.x = 1;",
        "var t = {}; (function (t) { t.x = 1; })(T);",
        "var t = {}; T.forEach((t) => { t.x = 1; });",
        "var t = {}; T.forEach(t => { t.x = 1; });",
        "var t = {}; var o = { set(t) { t.x = 1; } };",
        "var t = {}; try { throw T; } catch (t) { t.x = 1; }",
        "f(T).x = 1;",
        "(T).x = 1;",
        "(0, T)[0] = 1;",
        "[T.x] = [1];",
        "({ a: T.x } = { a: 1 });",
        "for (T.x of [1]);",
        "for (T.x in [1]);",
        "for (T[0] of [1]);",
        "Object.assign(T, {});",
        "Object.defineProperty(T, 'x', {});",
        "Reflect.set(T, 'x', 1);",
        "Array.prototype.push.call(T, 1);",
        "T.sort();",
        "`${T.push(1)}`;",
        "`${T.x++}`;",
        "if (Object.isFrozen(T)) return;",
    ]
    .into_iter()
    .filter(|body| {
        is_kept(&format!("var T = [{{}}];\nfunction f(x) {{ return x; }}\nfunction a() {{ {body} }}"))
    });
    assert_eq!(missed.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_function_that_declares_all_its_variables_leaves_none() {
    for body in [
        "var a = b[0]; let c; c = a; const d = {}; d.e = 1; d['f'] = 2; b[0] = 3; g(b)[0] = 4; return d;",
        "for (var i = 0; i < b.length; i++) { i += 2; if (i == 3 || i != 4 || i <= 5 || i >= 6 || i === 7) {} }",
        "for (const k in b) { b = k; } /* x = 1 */",
        "var s = 'x = 1'; return b.map(v => v * 2);",
        "function inner(x, y) { y = x; }",
        "var x; x = `${b.length} bytes`",
        "const { x, y } = b; let [z] = x;",
        "var x; function inner() { x = 1; }",
    ] {
        let source = format!("function a(b) {{ {body} }}");
        assert!(!may_leave_variables(&source), "{source}");
    }
    assert!(!may_leave_variables(include_str!("../../../../etc/codecs/climate.js")));
    assert!(!may_leave_variables("var all = []; function a() {}"));
}

#[test]
fn what_nobody_has_declared_may_stay() {
    for body in [
        "x = 1",
        "var y = 0; y = x = 1",
        "for (i = 0;;) {}",
        "for (k in b) {}",
        "for (k of b) {}",
        "for ([k] of b) {}",
        "[x] = b",
        "return [x, y] = b",
        "({x} = b)",
        "this.x = 1",
        "globalThis['x'] = 1",
        "eval('x = 1')",
        "`${x = 1}`",
        "/* var x */ x = 1",
        "var s = 'var x'; x = 1",
        "x\n=\n1",
        "b.x = y = 1",
        "x \u{3d} 1",
        "function inner(x) {} x = 1",
        "function inner() { var x; } x = 1",
        "function inner(y = x) { x = 1 }",
        "{ let x; } x = 1",
        "for (let x of b) {} x = 1",
    ] {
        let source = format!("function a(b) {{ {body} }}");
        assert!(may_leave_variables(&source), "{source}");
    }
    assert!(may_leave_variables("var all; function a() {}"));
    assert!(may_leave_variables("function a() { var x; } function b() { x = 1; }"), "another one's");
}

#[test]
fn a_large_script_is_looked_at_no_longer_than_a_small_one() {
    let many = "var x; x = 1;".repeat(MAX_SURVEYED / 13 - 10);
    assert!(!may_leave_variables(&format!("function a() {{ {} }}", &many[..many.len() / 2 / 13 * 13])));
    assert!(may_leave_variables(&format!("function a() {{ {many} {many} }}")));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_a_panic(text in "(function |var |for|[ ab$(){}\\[\\]'\"/*\\\\\n`;=.,:+>?é1])*") {
        Survey::of(&text);
        Survey::of(&format!("function a() {{ {text} }}"));
    }
}
