//! Makes visible what a terminal would act upon or not show.
//!
//! Names, annotations, messages of registries and paths come from others. A terminal that is sent
//! their bytes obeys them: it moves the cursor, changes its title, or shows text in another order
//! than it is written. So none of it is printed before it went through here.

use std::borrow::Cow;
use std::fmt::Write;
use std::io;

use serde_json::ser::Formatter;

/// Whether a character does something to a terminal, or hides, instead of being seen.
fn is_hidden(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || matches!(c,
            '\u{ad}'                      // soft hyphen
            | '\u{61c}'                   // Arabic letter mark
            | '\u{115f}' | '\u{1160}'     // Hangul fillers
            | '\u{17b4}' | '\u{17b5}'     // invisible Khmer vowels
            | '\u{180b}'..='\u{180f}'     // Mongolian selectors
            | '\u{200b}'..='\u{200f}'     // zero width, direction marks
            | '\u{2028}'..='\u{202e}'     // line separators, direction overrides
            | '\u{2060}'..='\u{206f}'     // word joiner, direction isolates
            | '\u{3164}' | '\u{ffa0}'     // more Hangul fillers
            | '\u{feff}'                  // byte order mark
            | '\u{fff9}'..='\u{fffb}'     // interlinear annotation
            | '\u{e0000}'..='\u{e0fff}'   // tags, variation selectors
        )
}

/// The text with such characters written as Rust writes them: `\n`, `\u{1b}`.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// As [`line()`], for text of several lines: line feeds and tabs stay what they are.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

/// As [`text`], for bytes that may be no text at all.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&text(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let hidden = |c: char| is_hidden(c) && !keep(c);
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match hidden(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Compact JSON in which such characters are written as `\uXXXX`: the same value to a program,
/// harmless to a terminal.
pub(crate) struct Json;

impl Formatter for Json {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_hidden) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut chars = rest[at..].chars();
            if let Some(c) = chars.next() {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_instead() {
        let cases = [
            ("plain naïve 日本 \u{1f600}", "plain naïve 日本 \u{1f600}"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
            ("a\u{200b}b\u{e0041}", "a\\u{200b}b\\u{e0041}"),
        ];
        for (raw, shown) in cases {
            assert_eq!(line(raw), shown);
        }
        assert_eq!(text("a\n\tb\r\n"), "a\n\tb\\r\n");
        assert_eq!(bytes(b"\x1f\x8b\xff ok"), "\\u{1f}\\x8b\\xff ok");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = "a\u{1b}\"\\\n\u{9b}\u{202e}\u{e0041}\u{1f600}é";
        let mut bytes = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Json);
        serde::Serialize::serialize(value, &mut serializer).unwrap();
        let written = String::from_utf8(bytes).unwrap();
        assert_eq!(line(&written), written, "nothing in it is left to escape");
        assert!(written.contains("\\u009b\\u202e\\udb40\\udc41\u{1f600}é"), "{written}");
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), value);
    }
}
