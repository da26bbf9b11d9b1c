//! One source file: where it stands in the crate, its tokens, and the paths that they name.

use crate::lexer::{Token, tokens};

pub(crate) struct Source {
    /// Relative to the package, as `src/store/blob.rs`.
    pub(crate) path: String,
    pub(crate) lines: usize,
    pub(crate) all: Vec<Token>,
    /// Without what is compiled for tests alone.
    pub(crate) product: Vec<Token>,
    /// The modules in other files that are compiled for tests alone: `#[cfg(test)] mod tests;`.
    pub(crate) test_modules: Vec<Vec<String>>,
}

/// A path as the source names it, from an import or in place.
#[derive(Debug)]
pub(crate) struct Named {
    /// `["std", "fs", "read"]`; `crate`, `self` and `super` are already resolved, to a path that
    /// starts with `crate`. A glob ends with `*`.
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// Imported with more than private visibility.
    pub(crate) exported: bool,
    /// Imported `as` something.
    pub(crate) renamed: bool,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut source = Self {
            path: path.to_string(),
            lines: text.lines().count(),
            all: tokens(text),
            product: Vec::new(),
            test_modules: Vec::new(),
        };
        source.set_tests_apart();
        source
    }

    fn set_tests_apart(&mut self) {
        let mut at = 0;
        while at < self.all.len() {
            if !is_test_attribute(&self.all, at) {
                self.product.push(self.all[at].clone());
                at += 1;
                continue;
            }
            let start = skip_attributes(&self.all, at);
            at = item_end(&self.all, start);
            if let [.., keyword, name, end] = &self.all[start..at]
                && (keyword.text.as_str(), end.text.as_str()) == ("mod", ";")
            {
                self.test_modules.push([self.modules(), vec![name.text.clone()]].concat());
            }
        }
    }

    /// The folder or file below `src/`: `store` for `src/store/blob.rs`, `bin`, `error`, `lib`.
    pub(crate) fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or("");
        inside.split('/').next().unwrap_or("").trim_end_matches(".rs")
    }

    /// The modules that the file is in: `["store", "blob"]`; none for `src/lib.rs`.
    pub(crate) fn modules(&self) -> Vec<String> {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        let mut modules: Vec<String> = inside.split('/').map(str::to_string).collect();
        if matches!(modules.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            modules.pop();
        }
        modules
    }

    /// Every path of the product's code that could be another module's or crate's.
    pub(crate) fn named(&self) -> Vec<Named> {
        let mut walk = Walk {
            tokens: &self.product,
            at: 0,
            open: Vec::new(),
            modules: self.modules(),
            found: Vec::new(),
        };
        while walk.at < walk.tokens.len() {
            walk.step();
        }
        walk.found
    }
}

/// Whether the tokens at `at` are an attribute `#[test]` or `#[cfg(test)]`, also inside `all(…)`, or
/// that of the build with planted faults, which tests make for themselves.
fn is_test_attribute(tokens: &[Token], at: usize) -> bool {
    if tokens[at].text != "#" || text(tokens, at + 1) != "[" {
        return false;
    }
    let end = matching(tokens, at + 1);
    let inside: Vec<&str> = tokens[at + 2..end].iter().map(|token| token.text.as_str()).collect();
    inside == ["test"]
        || inside.starts_with(&["cfg", "(", "test"])
        || inside == ["cfg", "(", "planted_faults", ")"]
        || inside.starts_with(&["cfg", "(", "all", "(", "test"])
}

fn skip_attributes(tokens: &[Token], mut at: usize) -> usize {
    while text(tokens, at) == "#" && text(tokens, at + 1) == "[" {
        at = matching(tokens, at + 1) + 1;
    }
    at
}

/// The end of the item, field or arm that starts at `start`: behind its `;`, `,` or block.
fn item_end(tokens: &[Token], start: usize) -> usize {
    // The commas of an item are those of its generics.
    let is_item =
        ["pub", "fn", "struct", "enum", "impl", "trait", "type", "const", "async", "unsafe"]
            .contains(&text(tokens, start));
    let mut at = start;
    while at < tokens.len() {
        match text(tokens, at) {
            ";" => return at + 1,
            "," if !is_item => return at + 1,
            "{" => return matching(tokens, at) + 1,
            "(" | "[" => at = matching(tokens, at) + 1,
            "}" | ")" | "]" => return at,
            _ => at += 1,
        }
    }
    at
}

/// The bracket that closes the one at `open`.
fn matching(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len() - 1
}

fn text(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| token.text.as_str())
}

struct Walk<'a> {
    tokens: &'a [Token],
    at: usize,
    /// For each open brace, whether it is an inline module's.
    open: Vec<bool>,
    modules: Vec<String>,
    found: Vec<Named>,
}

impl Walk<'_> {
    fn step(&mut self) {
        let previous = if self.at == 0 { "" } else { text(self.tokens, self.at - 1) };
        match text(self.tokens, self.at) {
            "mod" if text(self.tokens, self.at + 2) == "{" => {
                self.modules.push(text(self.tokens, self.at + 1).to_string());
                self.open.push(true);
                self.at += 3;
            }
            "{" => {
                self.open.push(false);
                self.at += 1;
            }
            "}" => {
                if self.open.pop() == Some(true) {
                    self.modules.pop();
                }
                self.at += 1;
            }
            // `+ use<'a>` in a return type captures lifetimes.
            "use" if text(self.tokens, self.at + 1) != "<" => {
                let exported = previous == "pub" || (previous == ")" && self.is_visibility());
                self.at += 1;
                self.tree(&[], exported);
            }
            word if is_name(word) && text(self.tokens, self.at + 1) == "::" => self.path(),
            _ => self.at += 1,
        }
    }

    /// Whether the `)` before this token closes a `pub(…)`.
    fn is_visibility(&self) -> bool {
        let before = &self.tokens[..self.at];
        let open = before.iter().rposition(|token| token.text == "(");
        open.is_some_and(|open| open > 0 && before[open - 1].text == "pub")
    }

    /// A path in an expression, a type, a visibility or a macro.
    fn path(&mut self) {
        let line = self.tokens[self.at].line;
        let mut segments = Vec::new();
        while is_name(text(self.tokens, self.at)) {
            segments.push(text(self.tokens, self.at).to_string());
            self.at += 1;
            if text(self.tokens, self.at) == "::" {
                self.at += 1;
            } else {
                break;
            }
        }
        self.add(segments, line, (false, false));
    }

    /// A use tree, each leaf a path.
    fn tree(&mut self, prefix: &[String], exported: bool) {
        let mut segments = prefix.to_vec();
        loop {
            let (word, line) = (
                text(self.tokens, self.at).to_string(),
                self.tokens.get(self.at).map_or(0, |token| token.line),
            );
            match word.as_str() {
                "" => return,
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !matches!(text(self.tokens, self.at), "}" | "") {
                        self.tree(&segments, exported);
                        if text(self.tokens, self.at) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                _ => {
                    if word != "self" || segments.is_empty() {
                        segments.push(word);
                    }
                    self.at += 1;
                    let renamed = text(self.tokens, self.at) == "as";
                    self.at += if renamed { 2 } else { 0 };
                    if text(self.tokens, self.at) != "::" {
                        self.add(segments, line, (exported, renamed));
                        return;
                    }
                }
            }
        }
    }

    fn add(&mut self, named: Vec<String>, line: usize, (exported, renamed): (bool, bool)) {
        let mut rest = named.as_slice();
        let mut segments = match rest[0].as_str() {
            "crate" => vec!["crate".to_string()],
            "self" | "super" => [vec!["crate".to_string()], self.modules.clone()].concat(),
            _ => Vec::new(),
        };
        while let ["crate" | "self" | "super", ..] = rest.first().map(String::as_str).as_slice() {
            if rest[0] == "super" {
                segments.pop();
            }
            rest = &rest[1..];
        }
        segments.extend_from_slice(rest);
        self.found.push(Named { segments, line, exported, renamed });
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}
