//! The header `Link` (RFC 8288), of which registries use the relation `next`.

/// The target of the link to the next page, of the header's values.
///
/// What cannot be read is an error and not the end of the list: a list that is cut short must not
/// look like a whole one.
pub(super) fn next<'a>(values: &[&'a str]) -> Result<Option<&'a str>, &'static str> {
    const WRONG: &str = "its Link cannot be read";
    let mut found = None;
    for value in values {
        let mut rest = value.trim();
        while !rest.is_empty() {
            let (target, after) =
                rest.strip_prefix('<').and_then(|it| it.split_once('>')).ok_or(WRONG)?;
            let (is_next, after) = parameters(after).ok_or(WRONG)?;
            if is_next && found.replace(target).is_some_and(|other| other != target) {
                return Err("its Link has two next pages");
            }
            rest = after.trim_start();
        }
    }
    Ok(found)
}

/// Reads the parameters of one link, up to the comma before the next one: whether its relation is
/// `next`, and what is left.
fn parameters(mut rest: &str) -> Option<(bool, &str)> {
    let (mut is_next, mut has_relation) = (false, false);
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some((is_next, rest));
        }
        if let Some(after) = rest.strip_prefix(',') {
            return Some((is_next, after));
        }
        rest = rest.strip_prefix(';')?.trim_start();
        let end = rest.find(['=', ';', ',']).unwrap_or(rest.len());
        let name = rest[..end].trim();
        rest = &rest[end..];
        let mut value = "";
        if let Some(after) = rest.strip_prefix('=') {
            (value, rest) = self::value(after.trim_start())?;
        }
        // Of several relations the first one counts (section 3.3).
        if name.eq_ignore_ascii_case("rel") && !has_relation {
            has_relation = true;
            is_next = value.split_ascii_whitespace().any(|it| it.eq_ignore_ascii_case("next"));
        }
    }
}

/// A token, or a quoted text without its quotes, and what is left.
fn value(text: &str) -> Option<(&str, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',']).unwrap_or(text.len());
        return Some((text[..end].trim(), &text[end..]));
    };
    let mut escaped = false;
    let end = quoted.find(|c| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    })?;
    Some((&quoted[..end], &quoted[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_next_page() {
        for (value, expected) in [
            ("</v2/a/tags/list?n=2&last=x>; rel=\"next\"", Some("/v2/a/tags/list?n=2&last=x")),
            ("<x>;rel=next", Some("x")),
            ("<x> ; REL = Next ; title=\"a;b,c\"", Some("x")),
            ("<x>; title=\"\\\"; rel=\\\"no\"; rel=next", Some("x")),
            ("<x>; rel=\"prev next\"", Some("x")),
            ("<x>; rel=prev, <y>; rel=next", Some("y")),
            ("<x,y;z>; rel=next", Some("x,y;z")),
            ("<x>; rel=prev; rel=next", None),
            ("<x>; rel=prev", None),
            ("<x>; nextish; rel=nextish", None),
            ("<x>", None),
            ("", None),
        ] {
            assert_eq!(next(&[value]), Ok(expected), "{value}");
        }
        assert_eq!(next(&["<x>; rel=first", "<y>; rel=next"]), Ok(Some("y")));
    }

    #[test]
    fn what_cannot_be_read_is_no_end() {
        for value in
            ["x; rel=next", "<x; rel=next", "<x>; rel=\"next", "<x> rel=next", "<x>;rel=a \"b"]
        {
            let read = next(&[value]);
            assert!(read.is_err() || read == Ok(None), "{value}: {read:?}");
        }
        assert!(next(&["<x; rel=next"]).is_err());
        assert!(next(&["<x>; rel=next, <y>; rel=next"]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in "[<>;,= a-z\"\\\\é]{0,60}") {
            if let Ok(Some(target)) = next(&[&text]) {
                proptest::prop_assert!(!target.contains('>') && text.contains(target));
            }
        }
    }
}
