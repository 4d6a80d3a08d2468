//! Whether functions change no object but those that they have made themselves in the same call.

use std::collections::{BTreeSet, HashSet};

use super::scan::{Tokens, is_word};
use super::{is_declaration, is_element};

/// Methods that change a list.
const CHANGING: [&[u8]; 9] =
    [b"push", b"pop", b"shift", b"unshift", b"splice", b"sort", b"reverse", b"fill", b"copyWithin"];
/// What changes any object, or looks whether it can be changed.
const OTHER: [&[u8]; 17] = [
    b"assign",
    b"defineProperty",
    b"defineProperties",
    b"setPrototypeOf",
    b"__proto__",
    b"__defineGetter__",
    b"__defineSetter__",
    b"Reflect",
    b"bind",
    b"delete",
    b"freeze",
    b"seal",
    b"preventExtensions",
    b"isFrozen",
    b"isSealed",
    b"isExtensible",
    b"getOwnPropertyDescriptor",
];
/// Functions of the engine that may be called with any `this`.
const HARMLESS: [&[u8]; 5] = [b"fromCharCode", b"max", b"min", b"hasOwnProperty", b"slice"];

/// `tables` are the names of what is kept. A frozen object would not change, which in sloppy code nobody is told. So this must be sure: each property that is set, and
/// each list that changes, is that of a variable which never holds anything but a literal.
pub(super) fn are_to_own_objects<'a>(tokens: &Tokens<'a>, tables: &BTreeSet<&'a [u8]>) -> bool {
    let own = own_objects(tokens, tables);
    // The object of the property whose name, or whose closing bracket, is at this place.
    let is_own = |at: usize| {
        let object = match tokens.at(at) {
            b"]" => tokens.partner(at).checked_sub(1),
            _ => at.checked_sub(2),
        };
        object.is_some_and(|object| tokens.is_variable(object) && own.contains(tokens.at(object)))
    };
    (0..tokens.len()).all(|at| {
        let token = tokens.at(at);
        let is_property = is_word(token) && tokens.before(at, 1) == b".";
        match token {
            b"]" if tokens.at(at + 1) == b"(" => false,
            b"]" if is_element(tokens, at) => !tokens.is_assigned_at(at + 1) || is_own(at),
            // A pattern of a declaration, or of an assignment, which has been looked at by then.
            b"]" => true,
            b"call" | b"apply" if is_property => HARMLESS.contains(&tokens.before(at, 2)),
            _ if OTHER.contains(&token) => false,
            _ if is_property && CHANGING.contains(&token) => is_own(at),
            _ if is_property && tokens.is_assigned_at(at + 1) => is_own(at),
            // ++a.b
            _ if is_word(token) && tokens.is_after_step(at) => {
                !matches!(tokens.at(at + 1), b"." | b"[" | b"(")
            }
            b"(" if tokens.is_after_step(at) => false,
            // for (a.b of …)
            _ if is_word(token) && tokens.before(at, 1) == b"(" && tokens.before(at, 2) == b"for" => {
                !matches!(tokens.at(at + 1), b"." | b"[")
            }
            // Code in a template may call what changes something.
            [b'`', ..] => !token.contains(&b'$') || !token.contains(&b'('),
            _ => true,
        }
    })
}

/// Names that stand for an object or a list made where it is declared, wherever in the script they stand.
fn own_objects<'a>(tokens: &Tokens<'a>, tables: &BTreeSet<&'a [u8]>) -> HashSet<&'a [u8]> {
    let mut own = HashSet::new();
    let mut other: HashSet<&[u8]> = tables.iter().copied().collect();
    for at in 0..tokens.len() {
        let (token, next) = (tokens.at(at), tokens.at(at + 1));
        if is_declaration(token) && matches!(next, b"{" | b"[") {
            other.extend(tokens.group(at + 1));
        }
        if token == b"(" {
            let closed = tokens.partner(at);
            let is_head = matches!(tokens.before(at, 1), b"if" | b"for" | b"while" | b"switch");
            let is_arrow = tokens.at(closed + 1) == b"=" && tokens.at(closed + 2) == b">";
            if is_arrow || tokens.at(closed + 1) == b"{" && !is_head {
                other.extend(tokens.group(at));
            }
        }
        if !tokens.is_variable(at) {
            continue;
        }
        let is_arrow = next == b"=" && tokens.at(at + 2) == b">";
        let is_named = matches!(tokens.before(at, 1), b"function" | b"class");
        let is_each = matches!(next, b"of" | b"in")
            && (is_declaration(tokens.before(at, 1)) || tokens.before(at, 1) == b"(");
        if is_arrow || is_named || is_each {
            other.insert(token);
        } else if tokens.is_assigned_at(at + 1) || tokens.is_after_step(at) {
            let is_new = next == b"=" && is_literal(tokens, at + 2);
            if is_new {
                own.insert(token)
            } else {
                other.insert(token)
            };
        }
    }
    own.difference(&other).copied().collect()
}

/// Whether an object or a list begins here, and nothing is made of it before the statement or the declaration ends.
fn is_literal(tokens: &Tokens<'_>, at: usize) -> bool {
    let after = tokens.at(tokens.partner(at) + 1);
    matches!(tokens.at(at), b"{" | b"[")
        && (matches!(after, b";" | b"," | b"if" | b"for" | b"while" | b"return" | b"switch" | b"function")
            || is_declaration(after))
}
