//! Whether a script has anything outside its functions that a call could change.
//!
//! Most published codecs are functions and nothing else. Of these nothing has to be made anew before a call, which is a fifth of its
//! time. This is no parser: where it is in doubt it says no, and the script is evaluated before each call.

use std::collections::HashSet;

/// Whether the script declares functions at its top level and does nothing else there, and never keeps anything on them.
pub(crate) fn is_functions_alone(source: &str) -> bool {
    let mut scan = Scan { bytes: source.as_bytes(), at: 0, before: 0, depth: 0 };
    scan.functions().is_some_and(|functions| {
        let kept = |name: &str, sign: &str| source.contains(&format!("{name}{sign}"));
        !functions.iter().any(|(name, _)| kept(name, ".") || kept(name, "[") || kept(name, " ="))
    })
}

/// Whether a call may leave a variable of its own to the next: one that nobody has declared belongs to all.
pub(crate) fn may_leave_variables(source: &str) -> bool {
    let mut scan = Scan { bytes: source.as_bytes(), at: 0, before: 0, depth: 0 };
    scan.functions().is_none_or(|functions| functions.iter().any(|(_, text)| leaves_variables(text)))
}

/// See [`may_leave_variables`], of one function with all that is in it.
fn leaves_variables(text: &str) -> bool {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0, before: 0, depth: 0 };
    let Some(tokens) = scan.tokens() else { return true };
    let token = |at: usize| tokens.get(at).copied().unwrap_or_default();
    let declares = |token: &[u8]| matches!(token, b"var" | b"let" | b"const");
    let mut declared: HashSet<&[u8]> = HashSet::new();
    for at in 0..tokens.len() {
        if declares(token(at)) {
            declared.insert(token(at + 1));
        }
        if token(at) == b"function" {
            let open = if token(at + 1) == b"(" { at + 1 } else { at + 2 };
            declared.extend(tokens.iter().skip(open + 1).take_while(|t| **t != b")").filter(|t| is_word(t)));
        }
    }
    let is_own = |name: &[u8]| is_word(name) && declared.contains(name);
    (0..tokens.len()).any(|at| match token(at) {
        b"this" | b"globalThis" | b"eval" | b"Function" | b"with" | b"constructor" => true,
        b"for" if token(at + 1) == b"(" && matches!(token(at + 3), b"in" | b"of") => !is_own(token(at + 2)),
        // The beginning or the end of another operator: those that change a variable look it up first.
        b"=" if matches!(token(at + 1), b"=" | b">") => false,
        b"=" if at > 0 && token(at - 1).len() == 1 && b"=!<>+-*/%&|^?".contains(&token(at - 1)[0]) => false,
        b"=" if at > 0 && token(at - 1) == b"]" => !is_element(&tokens[..at]),
        b"=" if at > 1 && (token(at - 2) == b"." || declares(token(at - 2))) => false,
        b"=" => at == 0 || !is_own(token(at - 1)),
        _ => false,
    })
}

fn is_word(token: &[u8]) -> bool {
    token.first().is_some_and(is_part_of_word)
}

fn is_part_of_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_$".contains(byte) || !byte.is_ascii()
}

/// Whether the bracket at the end closes one that stands behind a value: an element, and not a list of variables.
fn is_element(tokens: &[&[u8]]) -> bool {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().rev() {
        match *token {
            b"]" => depth += 1,
            b"[" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let before = at.checked_sub(1).and_then(|at| tokens.get(at)).copied().unwrap_or_default();
            let is_keyword =
                matches!(before, b"return" | b"of" | b"in" | b"else" | b"do" | b"case" | b"typeof");
            return !is_keyword && (is_word(before) || matches!(before, b")" | b"]"));
        }
    }
    false
}

/// Templates within templates.
const MAX_DEPTH: u8 = 16;

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The last byte that is neither white space nor part of a comment.
    before: u8,
    /// Templates around.
    depth: u8,
}

impl<'a> Scan<'a> {
    /// Names of the functions and all of each; None where something else stands beside them, or may.
    fn functions(&mut self) -> Option<Vec<(&'a str, &'a str)>> {
        let mut functions = Vec::new();
        loop {
            self.blank()?;
            match self.peek() {
                None => return Some(functions),
                Some(b';') => self.at += 1,
                Some(b'"' | b'\'') if functions.is_empty() => self.text()?,
                Some(_) => {
                    let begin = self.at;
                    let rest = self.bytes.get(self.at..)?.strip_prefix(b"function")?;
                    rest.first().filter(|b| b.is_ascii_whitespace())?;
                    self.at += b"function".len();
                    self.blank()?;
                    let name = self.word();
                    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
                    self.blank()?;
                    self.group(b'(')?;
                    self.blank()?;
                    self.group(b'{')?;
                    functions.push((name, std::str::from_utf8(self.bytes.get(begin..self.at)?).ok()?));
                }
            }
        }
    }

    /// Words and signs, and text as one; None where there is a doubt.
    fn tokens(&mut self) -> Option<Vec<&'a [u8]>> {
        let mut tokens = Vec::new();
        loop {
            self.blank()?;
            let Some(byte) = self.peek() else { return Some(tokens) };
            let begin = self.at;
            match byte {
                b'"' | b'\'' => self.text()?,
                b'`' => {
                    self.template()?;
                    // It may have code in it.
                    if self.bytes.get(begin..self.at)?.contains(&b'=') {
                        return None;
                    }
                }
                b'/' => self.slash()?,
                _ if is_part_of_word(&byte) => {
                    let rest = self.bytes.get(begin..)?;
                    self.at += rest.iter().take_while(|b| is_part_of_word(b)).count();
                }
                _ => self.at += 1,
            }
            self.before = *self.bytes.get(self.at - 1)?;
            tokens.push(self.bytes.get(begin..self.at)?);
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn word(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || b"_$".contains(b)).count();
        self.at += length;
        &rest[..length]
    }

    /// White space and comments.
    fn blank(&mut self) -> Option<()> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            self.at += match rest {
                [b, ..] if b.is_ascii_whitespace() => 1,
                [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
                [b'/', b'*', ..] => rest.windows(2).skip(2).position(|pair| pair == b"*/")? + 4,
                _ => return Some(()),
            };
        }
    }

    /// All from this bracket to the one that closes it.
    fn group(&mut self, open: u8) -> Option<()> {
        if self.peek() != Some(open) {
            return None;
        }
        let mut open = Vec::new();
        loop {
            self.blank()?;
            let byte = self.peek()?;
            match byte {
                b'(' | b'[' | b'{' => {
                    open.push(byte);
                    self.at += 1;
                }
                b')' | b']' | b'}' => {
                    let is_pair = matches!((open.pop()?, byte), (b'(', b')') | (b'[', b']') | (b'{', b'}'));
                    self.at += 1;
                    if !is_pair || open.is_empty() {
                        self.before = byte;
                        return is_pair.then_some(());
                    }
                }
                b'"' | b'\'' => self.text()?,
                b'`' => self.template()?,
                b'/' => self.slash()?,
                _ => self.at += 1,
            }
            self.before = byte;
        }
    }

    fn text(&mut self) -> Option<()> {
        let quote = self.peek()?;
        self.at += 1;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'\n' => return None,
                byte => {
                    self.at += 1;
                    if byte == quote {
                        return Some(());
                    }
                }
            }
        }
    }

    /// A template, which may have code in it, and this templates again.
    fn template(&mut self) -> Option<()> {
        self.depth += 1;
        self.at += 1;
        loop {
            match self.bytes.get(self.at..).unwrap_or_default() {
                [b'\\', ..] => self.at += 2,
                [b'$', b'{', ..] if self.depth < MAX_DEPTH => {
                    self.at += 1;
                    self.group(b'{')?;
                }
                [b'$', b'{', ..] | [] => return None,
                [b'`', ..] => {
                    self.at += 1;
                    self.depth -= 1;
                    return Some(());
                }
                _ => self.at += 1,
            }
        }
    }

    /// A division. What may begin a regular expression, which may have any brackets in it, is a doubt.
    fn slash(&mut self) -> Option<()> {
        let is_after_value = self.before.is_ascii_alphanumeric() || b"_$)]".contains(&self.before);
        let is_after_keyword = [&b"return"[..], b"typeof", b"case", b"of", b"in"]
            .iter()
            .any(|word| self.bytes[..self.at].trim_ascii_end().ends_with(word));
        self.at += 1;
        (is_after_value && !is_after_keyword).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_alone_are_known() {
        for source in [
            "",
            "'use strict'; function decodeUplink(input) { return { data: input.bytes[0] / 2 }; }",
            "// a comment {\nfunction a(x, y = {}) { /* } */ return \"}\" + '\\'{' }\n\n;function b() { return a(1) / 2 / 3 }",
            "function a(x) { return `{ ${ x + `}` } \\``; }",
            "/** {@link x} */ function a() {} // the end",
        ] {
            assert!(is_functions_alone(source), "{source}");
        }
    }

    #[test]
    fn whatever_else_there_is_is_a_doubt() {
        for source in [
            "var x = {}; function a() { x.y = 1 }",
            "function a() {} var x = 1",
            "function a() {} a.count = 1",
            "function a() { a.count = 1 }",
            "function a() { a['count'] = 1 }",
            "function a() { a = 1 }",
            "const a = () => {}",
            "x = 1",
            "function a() {",
            "function a() { return /[{]/.test(x) } var x",
            "function a() { return `${ x } }",
            "function a() { return `${ `} }",
            "function a() { (] }",
            "function a() { \"\n }",
            "function () {}",
            "async function a() {}",
            "class A {}",
            "{ function a() {} }",
            "/* never closed",
        ] {
            assert!(!is_functions_alone(source), "{source}");
        }
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
        ] {
            let source = format!("function a(b) {{ {body} }}");
            assert!(!may_leave_variables(&source), "{source}");
        }
        assert!(!may_leave_variables(include_str!("../../../etc/codecs/climate.js")));
    }

    #[test]
    fn what_nobody_has_declared_may_stay() {
        for body in [
            "x = 1",
            "var y = 0; y = x = 1",
            "for (i = 0;;) {}",
            "for (k in b) {}",
            "for (k of b) {}",
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
        ] {
            let source = format!("function a(b) {{ {body} }}");
            assert!(may_leave_variables(&source), "{source}");
        }
        assert!(may_leave_variables("var all; function a() {}"));
        assert!(may_leave_variables("function a() { var x; } function b() { x = 1; }"), "another one's");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_panic(text in "(function |[ a$(){}\\[\\]'\"/*\\\\\n`;=.é])*") {
            is_functions_alone(&text);
            may_leave_variables(&text);
            leaves_variables(&text);
        }
    }
}
