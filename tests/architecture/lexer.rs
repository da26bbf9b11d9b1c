//! Rust source as identifiers and punctuation, each with its line; comments and the contents of
//! literals are gone, so that no rule can be set off, or hidden, by text.

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    /// An identifier (`r#` removed), `"` for any literal, `::`, or one other character.
    pub(crate) text: String,
    pub(crate) line: usize,
}

pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source, line: 1, found: Vec::new() };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    lexer.found
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    found: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn step(&mut self) {
        let rest = self.rest;
        let first = rest.chars().next().expect("the caller checked that there is a character");
        if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(block_comment(rest));
        } else if let Some(length) = string(rest) {
            self.push("\"", length);
        } else if first == '\'' {
            self.quote();
        } else if rest.starts_with("::") {
            self.push("::", 2);
        } else if is_word(first) {
            let raw = if rest.starts_with("r#") { 2 } else { 0 };
            let end = rest[raw..].find(|c| !is_word(c)).map_or(rest.len(), |at| raw + at);
            self.push(&rest[raw..end], end);
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else {
            self.push(&rest[..first.len_utf8()], first.len_utf8());
        }
    }

    /// A lifetime or label, which is dropped, or a character literal.
    fn quote(&mut self) {
        let rest = &self.rest[1..];
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if let Some(escape) = rest.strip_prefix('\\') {
            // The escaped character may itself be a quote: look for the end after it.
            let escaped = escape.chars().next().map_or(0, char::len_utf8);
            let end = escape[escaped..].find('\'').unwrap_or(escape.len() - escaped);
            self.push("\"", (2 + escaped + end + 1).min(self.rest.len()));
        } else if word > 0 && !rest[word..].starts_with('\'') {
            self.skip(1 + word);
        } else {
            let end = rest.chars().next().map_or(0, char::len_utf8);
            self.push("\"", (1 + end + 1).min(self.rest.len()));
        }
    }

    fn push(&mut self, text: &str, length: usize) {
        self.found.push(Token { text: text.to_string(), line: self.line });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        self.line += self.rest[..length].matches('\n').count();
        self.rest = &self.rest[length..];
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the comment that `rest` starts with; comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of the string literal of any kind that `rest` starts with.
fn string(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        rest.strip_prefix(prefix).is_some_and(|after| {
            let hashes = if prefix.ends_with('r') { after.trim_start_matches('#') } else { after };
            hashes.starts_with('"')
        })
    })?;
    let after = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = after.find('"')?;
        let end = format!("\"{}", &after[..hashes]);
        let body = prefix.len() + hashes + 1;
        return Some(rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()));
    }
    let mut escaped = false;
    for (at, c) in after.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(prefix.len() + at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> String {
        let texts: Vec<String> = tokens(source).into_iter().map(|token| token.text).collect();
        texts.join(" ")
    }

    #[test]
    fn text_is_no_code() {
        assert_eq!(texts("a // unsafe\nb /* x /* unsafe */ y */ c"), "a b c");
        assert_eq!(texts(r#"f("a \" unsafe", b"\\") g"#), "f ( \" , \" ) g");
        assert_eq!(texts(r###"r#"a " unsafe"# br##"x"# y"## cr"z" d"###), "\" \" \" d");
    }

    #[test]
    fn quotes_are_lifetimes_or_characters() {
        assert_eq!(
            texts(r"<'a> '\'' '\\' '\u{1F}' 'x' b'y' '\'' '\n' 'é' end"),
            "< > \" \" \" \" b \" \" \" \" end"
        );
        assert_eq!(texts("'outer: loop { break 'outer }"), ": loop { break }");
        assert_eq!(texts(r#"('"', "unsafe", '"')"#), "( \" , \" , \" )");
    }

    #[test]
    fn words_paths_and_lines() {
        assert_eq!(texts("r#use::r#fn rb br0 crate::x"), "use :: fn rb br0 crate :: x");
        let lines: Vec<usize> =
            tokens("a\n\"x\ny\" b\n/*\n*/ c").iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 2, 3, 5]);
    }
}
