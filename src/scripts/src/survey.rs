//! What a script has outside its functions, and whether a call could change that.
//!
//! Most published codecs are functions, and tables of numbers and names. Of these nothing has to be made anew before a call:
//! that is between a fifth and a third of its time. What is kept is frozen, so that no call can leave anything in it even if
//! this is wrong; what is asked here is whether freezing would change what the script does. This is no parser: where it is
//! in doubt it says no, and the script is evaluated before each call.

mod scan;
mod writes;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use scan::{Tokens, is_word};

/// Scripts of more bytes are not looked at.
const MAX_SURVEYED: usize = 256 * 1024;
/// Declarations of a name that are looked at.
const MAX_DECLARED: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Names of all that the script declares, if that is functions and constants which no call changes.
    pub(crate) kept: Option<Vec<String>>,
    /// Whether a call may leave a variable that nobody has declared, and which belongs to all.
    pub(crate) may_leave_variables: bool,
}

impl Survey {
    pub(crate) fn of(source: &str) -> Survey {
        let source = Some(source).filter(|source| source.len() <= MAX_SURVEYED);
        let surveyed = source.and_then(Tokens::of).and_then(|tokens| {
            let top = top(&tokens)?;
            let may_leave_variables = top.code.iter().any(|code| leaves_variables(&tokens, code.clone()));
            let kept = can_be_kept(&tokens, &top).then(|| top.names());
            Some(Survey { kept, may_leave_variables })
        });
        surveyed.unwrap_or(Survey { kept: None, may_leave_variables: true })
    }
}

/// What stands outside functions.
#[derive(Default)]
struct Top<'a> {
    functions: BTreeSet<&'a [u8]>,
    constants: BTreeSet<&'a [u8]>,
    /// Whether a constant is an object or a list.
    has_tables: bool,
    /// Where the names of the constants are given their values.
    declared: BTreeSet<usize>,
    /// Functions with all that is in them.
    code: Vec<Range<usize>>,
}

impl Top<'_> {
    fn names(&self) -> Vec<String> {
        let names = self.functions.union(&self.constants);
        names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }
}

/// None where there is anything but functions and constants.
fn top<'a>(tokens: &Tokens<'a>) -> Option<Top<'a>> {
    let mut top = Top::default();
    let mut at = 0;
    while at < tokens.len() {
        at = match tokens.at(at) {
            b";" => at + 1,
            // "use strict"
            [b'"' | b'\'', ..] if at == 0 => at + 1,
            b"function" => {
                let end = function(tokens, at)?;
                top.functions.insert(name(tokens, at + 1)?);
                top.code.push(at..end);
                end
            }
            token if is_declaration(token) => constants(tokens, at + 1, &mut top)?,
            _ => return None,
        };
    }
    Some(top)
}

fn name<'a>(tokens: &Tokens<'a>, at: usize) -> Option<&'a [u8]> {
    let name = tokens.at(at);
    (is_word(name) && !name.first()?.is_ascii_digit()).then_some(name)
}

/// The end of a function with or without a name.
fn function(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let open = if tokens.at(at + 1) == b"(" { at + 1 } else { at + 2 };
    let body = tokens.partner(open) + 1;
    (tokens.at(open) == b"(" && tokens.at(body) == b"{").then(|| tokens.partner(body) + 1)
}

/// The end of `(a, b) => {…}` or `a => {…}`.
fn arrow(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let sign = if tokens.at(at) == b"(" { tokens.partner(at) } else { at } + 1;
    let is_arrow = tokens.at(sign) == b"=" && tokens.at(sign + 1) == b">" && tokens.at(sign + 2) == b"{";
    is_arrow.then(|| tokens.partner(sign + 2) + 1)
}

/// The end of `NAME = value, NAME = value;`.
fn constants<'a>(tokens: &Tokens<'a>, mut at: usize, top: &mut Top<'a>) -> Option<usize> {
    loop {
        let name = name(tokens, at)?;
        if tokens.at(at + 1) != b"=" {
            return None;
        }
        top.declared.insert(at);
        let value = at + 2;
        let end =
            if tokens.at(value) == b"function" { function(tokens, value) } else { arrow(tokens, value) };
        let end = match end {
            Some(end) => {
                top.functions.insert(name);
                top.code.push(value..end);
                end
            }
            None => {
                top.constants.insert(name);
                top.has_tables |= matches!(tokens.at(value), b"{" | b"[");
                literal(tokens, value)?
            }
        };
        match tokens.at(end) {
            b"," => at = end + 1,
            b";" => return Some(end + 1),
            // A line without its semicolon.
            after if is_declaration(after) || matches!(after, b"" | b"function") => return Some(end),
            _ => return None,
        }
    }
}

/// The end of a value that takes no code to make: nothing in it is the name of anything.
fn literal(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let close = tokens.partner(at);
    match tokens.at(at) {
        b"[" => {
            let mut at = at + 1;
            while at < close {
                at = if tokens.at(at) == b"," { at + 1 } else { element(tokens, at, close)? };
            }
            Some(close + 1)
        }
        b"{" => {
            let mut at = at + 1;
            while at < close {
                let key = tokens.at(at);
                let is_key = is_word(key) && key != b"__proto__" || matches!(key, [b'"' | b'\'', ..]);
                if !is_key || key.windows(9).any(|part| part == b"__proto__") || tokens.at(at + 1) != b":" {
                    return None;
                }
                at = element(tokens, at + 2, close)?;
                at += usize::from(tokens.at(at) == b",");
            }
            Some(close + 1)
        }
        _ => {
            let is_part = |token: &[u8]| match token {
                b"true" | b"false" | b"null" | b"undefined" => true,
                [b'"' | b'\'' | b'0'..=b'9', ..] => true,
                [sign] => b"+-*/%.<>&|^~()".contains(sign),
                _ => false,
            };
            let length = (at..tokens.len()).take_while(|at| is_part(tokens.at(*at))).count();
            (length > 0).then_some(at + length)
        }
    }
}

/// As [`literal`], in another one that ends at `close`.
fn element(tokens: &Tokens<'_>, at: usize, close: usize) -> Option<usize> {
    let end = literal(tokens, at)?;
    (end == close || end < close && tokens.at(end) == b",").then_some(end)
}

/// Whether no call changes what is outside the functions, as far as that can be seen.
fn can_be_kept(tokens: &Tokens<'_>, top: &Top<'_>) -> bool {
    let is_top = |name: &[u8]| top.functions.contains(name) || top.constants.contains(name);
    let is_left_alone = (0..tokens.len()).all(|at| {
        let (token, next) = (tokens.at(at), tokens.at(at + 1));
        match token {
            // They reach variables without naming them.
            b"eval" | b"with" | b"arguments" | b"$want" => false,
            b"]" | b"}" if tokens.is_assigned_at(at + 1) => {
                is_declaration(tokens.before(tokens.partner(at), 1))
                    || token == b"]" && is_element(tokens, at)
            }
            b"for" => !matches!(tokens.at(at + 2), b"[" | b"{"),
            _ if !tokens.is_variable(at) || !is_top(token) => true,
            _ if top.declared.contains(&at) || is_declaration(tokens.before(at, 1)) => true,
            _ if tokens.is_assigned_at(at + 1) || tokens.is_after_step(at) => false,
            _ if tokens.before(at, 2) == b"for" => !matches!(next, b"of" | b"in"),
            _ => !top.functions.contains(token) || !matches!(next, b"." | b"["),
        }
    });
    is_left_alone && (!top.has_tables || writes::are_to_own_objects(tokens, &top.constants))
}

fn is_declaration(token: &[u8]) -> bool {
    matches!(token, b"var" | b"let" | b"const")
}

/// Whether the bracket closes one that stands behind a value: an element, and not a list.
fn is_element(tokens: &Tokens<'_>, at: usize) -> bool {
    let before = tokens.before(tokens.partner(at), 1);
    let is_keyword = matches!(
        before,
        b"return" | b"of" | b"in" | b"else" | b"do" | b"case" | b"typeof" | b"yield" | b"await"
    ) || is_declaration(before);
    !is_keyword && (is_word(before) || matches!(before, b")" | b"]"))
}

/// Whether a function, with all that is in it, may give a value to a variable that it does not declare.
fn leaves_variables(tokens: &Tokens<'_>, code: Range<usize>) -> bool {
    let blocks = blocks(tokens, &code);
    let block_of = |at: usize| blocks.get(at - code.start).cloned().unwrap_or_default();
    // Where each name surely means what was declared.
    let mut declared: HashMap<&[u8], Vec<Range<usize>>> = HashMap::new();
    let mut declare = |name, within: Range<usize>| {
        let places = declared.entry(name).or_default();
        if places.len() < MAX_DECLARED {
            places.push(within);
        }
    };
    for at in code.clone() {
        // What `let` declares in the head of a loop ends with it.
        if tokens.at(at) == b"var" || is_declaration(tokens.at(at)) && tokens.before(at, 1) != b"(" {
            declare(tokens.at(at + 1), block_of(at));
        }
        if tokens.at(at) == b"function" {
            let open = if tokens.at(at + 1) == b"(" { at + 1 } else { at + 2 };
            let body = tokens.partner(open) + 1;
            let names = tokens.group(open);
            if names.iter().all(|name| is_word(name) || *name == b",") {
                names.iter().for_each(|name| declare(name, body..tokens.partner(body)));
            }
        }
    }
    let is_own = |at: usize| {
        let places = declared.get(tokens.at(at)).filter(|_| is_word(tokens.at(at)));
        places.is_some_and(|places| places.iter().any(|within| within.contains(&at)))
    };
    code.clone().any(|at| match tokens.at(at) {
        b"this" | b"globalThis" | b"eval" | b"Function" | b"with" | b"constructor" => true,
        b"for" if tokens.at(at + 1) == b"(" && matches!(tokens.at(at + 3), b"in" | b"of") => !is_own(at + 2),
        b"for" if matches!(tokens.at(at + 2), b"[" | b"{") => true,
        // The beginning or the end of another operator: those that change a variable look it up first.
        b"=" if matches!(tokens.at(at + 1), b"=" | b">") => false,
        b"=" if matches!(tokens.before(at, 1), [sign] if b"=!<>+-*/%&|^?".contains(sign)) => false,
        b"=" if matches!(tokens.before(at, 1), b"]" | b"}") => {
            !is_declaration(tokens.before(tokens.partner(at - 1), 1))
                && (tokens.before(at, 1) == b"}" || !is_element(tokens, at - 1))
        }
        b"=" if tokens.before(at, 2) == b"." || is_declaration(tokens.before(at, 2)) => false,
        b"=" => !is_own(at - 1),
        _ => false,
    })
}

/// For each token of the function the innermost braces around it. What `var` declares is seen further; less is never wrong.
fn blocks(tokens: &Tokens<'_>, code: &Range<usize>) -> Vec<Range<usize>> {
    let mut open: Vec<Range<usize>> = Vec::new();
    code.clone()
        .map(|at| {
            match tokens.at(at) {
                b"{" => open.push(at..tokens.partner(at)),
                b"}" => drop(open.pop()),
                _ => {}
            }
            open.last().cloned().unwrap_or_default()
        })
        .collect()
}

#[cfg(test)]
mod tests;
