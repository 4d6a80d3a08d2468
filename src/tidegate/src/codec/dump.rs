//! Bytes as people read them.

use std::fmt::Write;

const ROW: usize = 16;
/// Rows that are shown from the beginning, and on either side of a mark.
const ROWS: usize = 32;
const AROUND: usize = 2;

/// Appends rows of `bytes`, of which the first has the number `offset`. Under the byte `mark.0` of them `mark.1` is said.
pub(super) fn rows(out: &mut String, offset: usize, bytes: &[u8], mark: Option<(usize, &str)>) {
    let marked = mark.map(|(at, _)| at / ROW);
    let count = bytes.len().div_ceil(ROW).max(marked.map_or(0, |row| row + 1));
    let is_shown = |row: &usize| *row < ROWS || marked.is_some_and(|marked| row.abs_diff(marked) <= AROUND);
    let mut shown = 0;
    for row in (0..count).filter(is_shown) {
        if row > shown {
            let _ = writeln!(out, "  …");
        }
        shown = row + 1;
        let from = (row * ROW).min(bytes.len());
        line(out, offset + row * ROW, &bytes[from..bytes.len().min(from + ROW)]);
        if let Some((at, why)) = mark
            && marked == Some(row)
        {
            let _ = writeln!(out, "            {:width$}^^ {why}", "", width = 3 * (at % ROW));
        }
    }
    if shown < count {
        let _ = writeln!(out, "  … {} bytes in all", bytes.len());
    }
}

fn line(out: &mut String, offset: usize, bytes: &[u8]) {
    let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let shown = |b: &u8| if (0x20..0x7f).contains(b) { char::from(*b) } else { '.' };
    let text: String = bytes.iter().map(shown).collect();
    let _ = writeln!(out, "  {offset:08x}  {:48} {text}", hex.join(" "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_under_its_byte() {
        let mut out = String::new();
        let bytes: Vec<u8> = (0x30..0x45).collect();
        rows(&mut out, 16, &bytes, Some((17, "why")));
        let expected = "  00000010  30 31 32 33 34 35 36 37 38 39 3a 3b 3c 3d 3e 3f  0123456789:;<=>?\n\
                        \x20 00000020  40 41 42 43 44                                   @ABCD\n\
                        \x20              ^^ why\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn a_mark_behind_the_last_byte_has_a_row() {
        let mut out = String::new();
        rows(&mut out, 0, &[7; 16], Some((16, "ends")));
        assert_eq!(out.lines().last(), Some("            ^^ ends"));
    }

    #[test]
    fn what_is_long_is_shown_in_part() {
        let mut out = String::new();
        rows(&mut out, 0, &vec![0; 4096], Some((2000, "here")));
        assert_eq!(out.lines().count(), 32 + 1 + 5 + 1 + 1);
        assert!(out.ends_with("  … 4096 bytes in all\n"));
    }
}
