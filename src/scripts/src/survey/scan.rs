//! The words and signs of a script. Where it may not be read as the engine reads it, it is not read at all.

/// Templates within templates.
const MAX_DEPTH: u8 = 16;

/// A script's tokens: words (numbers are cut at their signs), single signs, and text, templates and regular expressions as one.
pub(super) struct Tokens<'a> {
    list: Vec<&'a [u8]>,
    /// Of a bracket, where the other one is.
    partner: Vec<usize>,
}

impl<'a> Tokens<'a> {
    /// None where there is a doubt.
    pub(super) fn of(source: &'a str) -> Option<Tokens<'a>> {
        let mut scan = Scan { bytes: source.as_bytes(), at: 0, depth: 0 };
        let mut tokens = Tokens { list: Vec::new(), partner: Vec::new() };
        let mut open = Vec::new();
        loop {
            scan.blank()?;
            let begin = scan.at;
            let Some(byte) = scan.peek() else { break };
            scan.token(byte, &tokens)?;
            let at = tokens.list.len();
            let mut partner = at;
            match byte {
                b'(' | b'[' | b'{' => open.push((byte, at)),
                b')' | b']' | b'}' => {
                    let (other, place) = open.pop()?;
                    if !is_pair(other, byte) {
                        return None;
                    }
                    partner = place;
                    *tokens.partner.get_mut(place)? = at;
                }
                _ => {}
            }
            tokens.list.push(source.as_bytes().get(begin..scan.at)?);
            tokens.partner.push(partner);
        }
        open.is_empty().then_some(tokens)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Nothing where there is none.
    pub(super) fn at(&self, at: usize) -> &'a [u8] {
        self.list.get(at).copied().unwrap_or_default()
    }

    /// The token so many places before.
    pub(super) fn before(&self, at: usize, places: usize) -> &'a [u8] {
        at.checked_sub(places).map_or(b"", |at| self.at(at))
    }

    /// Where the bracket is that belongs to the one at this place.
    pub(super) fn partner(&self, at: usize) -> usize {
        self.partner.get(at).copied().unwrap_or(at)
    }

    /// What is between this bracket and its partner.
    pub(super) fn group(&self, open: usize) -> &[&'a [u8]] {
        self.list.get(open + 1..self.partner(open)).unwrap_or_default()
    }

    /// Whether the word there is a variable's and not a property's.
    pub(super) fn is_variable(&self, at: usize) -> bool {
        is_word(self.at(at)) && self.before(at, 1) != b"."
    }

    /// Whether what stands before `at` is given a value there, by any operator that does so.
    pub(super) fn is_assigned_at(&self, at: usize) -> bool {
        let signs: Vec<u8> = (at..self.len())
            .map_while(|at| match self.at(at) {
                [sign] if b"+-*/%&|^?<>=!".contains(sign) => Some(*sign),
                _ => None,
            })
            .take(6)
            .collect();
        if signs.starts_with(b"++") || signs.starts_with(b"--") {
            return true;
        }
        let Some(equals) = signs.iter().position(|sign| *sign == b'=') else { return false };
        let is_operator = [
            &b""[..],
            b"+",
            b"-",
            b"*",
            b"/",
            b"%",
            b"&",
            b"|",
            b"^",
            b"**",
            b"<<",
            b">>",
            b">>>",
            b"&&",
            b"||",
            b"??",
        ]
        .contains(&&signs[..equals]);
        is_operator && !matches!(signs.get(equals + 1), Some(b'=' | b'>'))
    }

    /// Whether `++` or `--` is before this place.
    pub(super) fn is_after_step(&self, at: usize) -> bool {
        matches!((self.before(at, 2), self.before(at, 1)), (b"+", b"+") | (b"-", b"-"))
    }
}

/// Whether it is a name, a keyword, or begins as a number does.
pub(super) fn is_word(token: &[u8]) -> bool {
    token.first().is_some_and(is_part_of_word)
}

fn is_part_of_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_$".contains(byte)
}

fn is_pair(open: u8, close: u8) -> bool {
    matches!((open, close), (b'(', b')') | (b'[', b']') | (b'{', b'}'))
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Templates around.
    depth: u8,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// One token that begins with `byte`.
    fn token(&mut self, byte: u8, before: &Tokens<'_>) -> Option<()> {
        match byte {
            b'"' | b'\'' => self.text(),
            b'`' => {
                let begin = self.at;
                self.template()?;
                let template = self.bytes.get(begin..self.at)?;
                // It may have code in it, of which no more is known.
                let has = |what: &[u8]| template.windows(what.len()).any(|part| part == what);
                let may_change = [&b"="[..], b"++", b"--", b"eval", b"arguments"].into_iter().any(has);
                (!may_change || !has(b"${")).then_some(())
            }
            b'/' => self.slash(before),
            _ if is_part_of_word(&byte) => {
                self.at += self.rest().iter().take_while(|b| is_part_of_word(b)).count();
                Some(())
            }
            // Comments of HTML, which sloppy scripts have too.
            b'<' | b'-' if self.rest().starts_with(b"<!--") || self.rest().starts_with(b"-->") => None,
            // Part of an identifier, or white space that is not looked for.
            b'\\' => None,
            _ if !byte.is_ascii() => None,
            _ => {
                self.at += 1;
                Some(())
            }
        }
    }

    /// White space and comments.
    fn blank(&mut self) -> Option<()> {
        loop {
            let rest = self.rest();
            self.at += match rest {
                [b, ..] if b.is_ascii_whitespace() => 1,
                [b'/', b'/', ..] => {
                    let end = rest.iter().position(|b| b"\r\n".contains(b)).unwrap_or(rest.len());
                    // U+2028 and U+2029 end lines too.
                    if rest[..end].windows(3).any(|c| matches!(c, [0xe2, 0x80, 0xa8 | 0xa9])) {
                        return None;
                    }
                    end
                }
                [b'/', b'*', ..] => rest.windows(2).skip(2).position(|pair| pair == b"*/")? + 4,
                _ => return Some(()),
            };
        }
    }

    fn text(&mut self) -> Option<()> {
        let quote = self.peek()?;
        self.at += 1;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'\n' | b'\r' => return None,
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
            match self.rest() {
                [b'\\', ..] => self.at += 2,
                [b'$', b'{', ..] if self.depth < MAX_DEPTH => {
                    self.at += 1;
                    self.code_in_template()?;
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

    /// From one brace to that which closes it.
    fn code_in_template(&mut self) -> Option<()> {
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
                    if !is_pair(open.pop()?, byte) {
                        return None;
                    }
                    self.at += 1;
                    if open.is_empty() {
                        return Some(());
                    }
                }
                b'"' | b'\'' => self.text()?,
                b'`' => self.template()?,
                // A division or a regular expression.
                b'/' => return None,
                _ => self.at += 1,
            }
        }
    }

    /// A division, or a regular expression, which may have any brackets in it.
    fn slash(&mut self, before: &Tokens<'_>) -> Option<()> {
        let end = before.len();
        let last = before.before(end, 1);
        let is_division = match last {
            _ if before.is_after_step(end) => return None,
            // After the head of a statement it would be an expression.
            b")" => match before.before(before.partner(end - 1), 1) {
                b"if" | b"while" | b"for" | b"with" => return None,
                _ => true,
            },
            b"]" => true,
            _ if is_word(last) && before.before(end, 2) == b"." => true,
            // After an object it is a division, after a block it is none.
            b"}" => return None,
            b"return" | b"typeof" | b"case" | b"of" | b"in" | b"do" | b"else" | b"void" | b"delete"
            | b"new" | b"throw" | b"yield" | b"await" | b"instanceof" => false,
            _ if is_word(last) => true,
            [b'"' | b'\'' | b'`' | b'/', ..] if last.len() > 1 => return None,
            _ => false,
        };
        self.at += 1;
        if is_division { Some(()) } else { self.regular_expression() }
    }

    fn regular_expression(&mut self) -> Option<()> {
        let mut is_in_class = false;
        loop {
            match self.peek()? {
                b'\n' | b'\r' => return None,
                b'\\' => self.at += 1,
                b'[' => is_in_class = true,
                b']' => is_in_class = false,
                b'/' if !is_in_class => break,
                byte if !byte.is_ascii() => return None,
                _ => {}
            }
            self.at += 1;
        }
        self.at += 1;
        self.at += self.rest().iter().take_while(|b| is_part_of_word(b)).count();
        Some(())
    }
}
