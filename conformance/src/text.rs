//! The words of a case: how a line is cut into words, and how a word stands for bytes.
//!
//! ```text
//! topic=a/{u}/b          {u} is a text that no other case and no other run has
//! payload="two words"    quotes keep spaces together
//! topic=a\xffb           \xNN is one byte, \n \r \t \\ \" as usual, \u{10ffff} a character in UTF-8
//! filter={30000*a/}b     {N*text} is the text N times
//! topic={u}{..100*x}     {..N*text} is the text over and over until the value has N bytes
//! payload=hex:00ff       hex: bytes
//! ```

/// One word of a line: a bare flag (`clean`) or `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Before the first `=`, or all of it.
    pub key: String,
    /// After it, as written.
    pub value: Option<String>,
}

/// Cuts a line at spaces outside quotes; `#` after a space begins a comment.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut begun) = (false, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => {
                word.push(c);
                word.extend(chars.next());
            }
            '"' => (quoted, begun) = (!quoted, true),
            c if c.is_whitespace() && !quoted => {
                if begun {
                    all.push(std::mem::take(&mut word));
                    begun = false;
                }
            }
            '#' if !begun && !quoted => break,
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if quoted {
        return Err("a quote is not closed".into());
    }
    if begun {
        all.push(word);
    }
    Ok(all)
}

/// Splits `key=value`.
pub fn word(text: &str) -> Word {
    match text.split_once('=') {
        Some((key, value)) => Word { key: key.into(), value: Some(value.into()) },
        None => Word { key: text.into(), value: None },
    }
}

/// The bytes that a value stands for, with `unique` for `{u}`.
pub fn bytes(value: &str, unique: &str) -> Result<Vec<u8>, String> {
    if let Some(digits) = value.strip_prefix("hex:") {
        return hex(digits);
    }
    let mut out = Vec::new();
    let mut rest = value;
    while let Some(at) = rest.find(['{', '\\']) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        rest = match rest.as_bytes()[0] {
            b'{' => placeholder(rest, unique, &mut out)?,
            _ => escape(rest, &mut out)?,
        };
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// A whole number, decimal or with `0x`.
pub fn number(value: &str) -> Result<u64, String> {
    let parsed = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => value.parse(),
    };
    parsed.map_err(|_| format!("{value:?} is no number"))
}

/// Pairs of hex digits; spaces between them are skipped.
pub fn hex(digits: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = digits.chars().filter(|c| !c.is_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| {
        let pair: String = pair.iter().collect();
        if pair.len() == 2 { u8::from_str_radix(&pair, 16).ok() } else { None }
    });
    pairs.collect::<Option<Vec<u8>>>().ok_or_else(|| "wrong hex digits".to_owned())
}

/// Two digits for each byte.
pub fn hex_digits(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes as a reader of a failure wants them: text where it is text, hex otherwise, and not without end.
pub fn show(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(48)];
    let more = if bytes.len() > head.len() { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    match std::str::from_utf8(head) {
        Ok(text) if !text.chars().any(char::is_control) => format!("{text:?}{more}"),
        _ => format!("hex:{}{more}", hex_digits(head)),
    }
}

fn placeholder<'a>(rest: &'a str, unique: &str, out: &mut Vec<u8>) -> Result<&'a str, String> {
    let end = rest.find('}').ok_or("a { is not closed")?;
    let inner = &rest[1..end];
    if inner == "u" {
        out.extend_from_slice(unique.as_bytes());
    } else if let Some((size, text)) = inner.strip_prefix("..").and_then(|rest| rest.split_once('*')) {
        let size: usize = size.parse().map_err(|_| format!("{{{inner}}} does not begin with a size"))?;
        out.extend(text.bytes().cycle().take(size.saturating_sub(out.len())));
    } else if let Some((count, text)) = inner.split_once('*') {
        let count: usize = count.parse().map_err(|_| format!("{{{inner}}} does not begin with a count"))?;
        out.extend(bytes(text, unique)?.repeat(count));
    } else {
        return Err(format!("{{{inner}}} is none of {{u}}, {{count*text}}, {{..size*text}}"));
    }
    Ok(&rest[end + 1..])
}

fn escape<'a>(rest: &'a str, out: &mut Vec<u8>) -> Result<&'a str, String> {
    let wrong = || format!("wrong escape at {rest:?}");
    let kind = rest[1..].chars().next().ok_or_else(wrong)?;
    let after = &rest[1 + kind.len_utf8()..];
    match kind {
        'x' => {
            out.extend(hex(after.get(..2).ok_or_else(wrong)?)?);
            return Ok(&after[2..]);
        }
        'u' => {
            let end = after.find('}').ok_or_else(wrong)?;
            let code = after.get(1..end).and_then(|digits| u32::from_str_radix(digits, 16).ok());
            let c = code.and_then(char::from_u32).ok_or_else(wrong)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(&after[end + 1..]);
        }
        'n' => out.push(b'\n'),
        'r' => out.push(b'\r'),
        't' => out.push(b'\t'),
        '\\' | '"' | '{' => out.push(kind as u8),
        _ => return Err(wrong()),
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_spaces_and_a_hash_begins_a_comment() {
        let cut = words(r#"a > publish payload="x # y" topic=a/# # the rest"#).unwrap();
        assert_eq!(cut, ["a", ">", "publish", "payload=x # y", "topic=a/#"]);
        assert!(words(r#"a "b"#).is_err());
    }

    #[test]
    fn an_empty_quoted_word_is_a_word() {
        assert_eq!(words(r#"x "" y"#).unwrap(), ["x", "", "y"]);
        assert_eq!(word("payload="), Word { key: "payload".into(), value: Some(String::new()) });
    }

    #[test]
    fn placeholders_and_escapes_become_bytes() {
        assert_eq!(bytes(r"{u}/\xff{3*ab}\u{20ac}", "U").unwrap(), b"U/\xffababab\xe2\x82\xac");
        assert_eq!(bytes("hex:00 ff", "").unwrap(), [0, 255]);
        assert_eq!(bytes("{u}{..6*xy}", "U").unwrap(), b"Uxyxyx");
        assert!(bytes("{what}", "").is_err());
        assert!(bytes(r"\q", "").is_err());
    }

    #[test]
    fn odd_hex_digits_are_refused() {
        assert!(hex("0").is_err());
        assert!(hex("0g").is_err());
    }
}
