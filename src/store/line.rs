//! Lines that carry their own check: `TEXT CRC`, the CRC-32 (IEEE) of the text in eight hexadecimal
//! digits. Leases and the states of parts are made of them.

/// The line of a text that has no line feed in it, with its line feed.
pub(crate) fn seal(text: &str) -> String {
    format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// The text of a line without its line feed; nothing if the line is not as it was written.
pub(crate) fn open(line: &[u8]) -> Option<&str> {
    let (text, crc) = std::str::from_utf8(line).ok()?.rsplit_once(' ')?;
    let sum = u32::from_str_radix(crc, 16).ok()?;
    (crc.len() == 8 && sum == crc32fast::hash(text.as_bytes())).then_some(text)
}
