//! Bytes in hexadecimal, as samples, scripts and people write them.

/// The bytes that `text` says; white space does not count.
pub fn decode(text: &str) -> Result<Vec<u8>, String> {
    let digit = |(at, c): (usize, char)| {
        let value = c.to_digit(16).and_then(|d| u8::try_from(d).ok());
        value.ok_or_else(|| format!("{c:?} at {at} is no hexadecimal digit"))
    };
    let digits = text.char_indices().filter(|(_, c)| !c.is_whitespace()).map(digit);
    let digits: Vec<u8> = digits.collect::<Result<_, _>>()?;
    if digits.len() % 2 == 1 {
        return Err("the last byte has one hexadecimal digit only".to_owned());
    }
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// `bytes` in small digits without spaces.
pub fn encode(bytes: &[u8]) -> String {
    let digit = |d: u8| char::from_digit(u32::from(d), 16).unwrap_or('0');
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_they_are_written() {
        assert_eq!(decode("00 fF\n7e").as_deref(), Ok(&[0, 0xff, 0x7e][..]));
        assert_eq!(encode(&[0, 0xff, 0x7e]), "00ff7e");
        assert_eq!(decode("0x"), Err("'x' at 1 is no hexadecimal digit".to_owned()));
        assert!(decode("012").is_err());
    }
}
