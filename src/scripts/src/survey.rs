//! Whether a script has anything outside its functions that a call could change.
//!
//! Most published codecs are functions and nothing else. Of these nothing has to be made anew before a call, which is a fifth of its
//! time. This is no parser: where it is in doubt it says no, and the script is evaluated before each call.

/// Whether the script declares functions at its top level and does nothing else there, and never keeps anything on them.
pub(crate) fn is_functions_alone(source: &str) -> bool {
    let mut scan = Scan { bytes: source.as_bytes(), at: 0, before: 0, depth: 0 };
    scan.functions().is_some_and(|names| {
        let kept = |name: &&str, sign: &str| source.contains(&format!("{name}{sign}"));
        !names.iter().any(|name| kept(name, ".") || kept(name, "[") || kept(name, " ="))
    })
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
    /// Names of the functions; None where something else stands beside them, or may.
    fn functions(&mut self) -> Option<Vec<&'a str>> {
        let mut names = Vec::new();
        loop {
            self.blank()?;
            match self.peek() {
                None => return Some(names),
                Some(b';') => self.at += 1,
                Some(b'"' | b'\'') if names.is_empty() => self.text()?,
                Some(_) => {
                    let rest = self.bytes.get(self.at..)?.strip_prefix(b"function")?;
                    rest.first().filter(|b| b.is_ascii_whitespace())?;
                    self.at += b"function".len();
                    self.blank()?;
                    let name = self.word();
                    names.push(std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?);
                    self.blank()?;
                    self.group(b'(')?;
                    self.blank()?;
                    self.group(b'{')?;
                }
            }
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

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_panic(text in "(function |[ a$(){}\\[\\]'\"/*\\\\\n`;])*") {
            is_functions_alone(&text);
        }
    }
}
