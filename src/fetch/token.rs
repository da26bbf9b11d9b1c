//! What a token server answers: parsed and judged, without any I/O.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Secret;

/// The lifetime of a token whose server does not say, and the shortest that is believed
/// (distribution: "Token Authentication Specification", "Token Response Fields").
const MIN_LIFETIME: Duration = Duration::from_secs(60);

/// The longest lifetime that is believed.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A token that may be put into a header as it is.
pub(super) struct Token {
    /// The token itself.
    pub(super) secret: Secret,
    /// How long to use it, counted from when it came: its lifetime, less what a request may take
    /// to arrive.
    pub(super) usable: Duration,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    // Anything but the right type counts as left out.
    expires_in: Option<Value>,
    issued_at: Option<Value>,
}

impl Token {
    /// Parses the body of an answer that came at `now`, by the clock of the server if possible.
    ///
    /// The error reads after the address of the token server and a colon, and has nothing in it
    /// of what the body says.
    pub(super) fn parse(body: &[u8], now: jiff::Timestamp) -> Result<Token, &'static str> {
        let answer: Answer = serde_json::from_slice(body)
            .map_err(|_| "its answer is not the JSON object that token servers send")?;
        let text = [&answer.token, &answer.access_token]
            .into_iter()
            .flatten()
            .find(|token| !token.is_empty())
            .ok_or("its answer has no token in it")?;
        // As RFC 6750 has it, section 2.1; above all no line break and no space.
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("its token has characters that no token may have");
        }
        let expires_in = answer.expires_in.as_ref().and_then(Value::as_u64);
        let issued_at = answer.issued_at.as_ref().and_then(Value::as_str);
        let issued_at = issued_at.and_then(|text| text.parse().ok());
        Ok(Token { secret: Secret::new(text), usable: usable(expires_in, issued_at, now) })
    }
}

/// How long a token that came just now is used.
fn usable(
    expires_in: Option<u64>,
    issued_at: Option<jiff::Timestamp>,
    now: jiff::Timestamp,
) -> Duration {
    let lifetime = expires_in.map_or(MIN_LIFETIME, Duration::from_secs);
    let lifetime = lifetime.clamp(MIN_LIFETIME, MAX_LIFETIME);
    let age = issued_at.map(|issued| now.duration_since(issued)).unwrap_or_default();
    let age = Duration::try_from(age).unwrap_or_default();
    let slack = (lifetime / 10).min(Duration::from_secs(30));
    lifetime.saturating_sub(age).saturating_sub(slack)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> jiff::Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    fn parse(body: &str) -> Result<(String, u64), &'static str> {
        let token = Token::parse(body.as_bytes(), now())?;
        Ok((token.secret.expose().to_owned(), token.usable.as_secs()))
    }

    #[test]
    fn both_names_of_the_token() {
        let expected = Ok(("t".to_owned(), 54));
        for body in [
            r#"{"token":"t"}"#,
            r#"{"access_token":"t"}"#,
            r#"{"token":"t","access_token":"t"}"#,
            r#"{"token":"","access_token":"t"}"#,
            r#"{"token":null,"access_token":"t","refresh_token":"r","x":[1]}"#,
        ] {
            assert_eq!(parse(body), expected, "{body}");
        }
    }

    #[test]
    fn lifetimes() {
        let cases = [
            (r#""expires_in":300"#, 270),
            (r#""expires_in":3600"#, 3570),
            (r#""expires_in":1"#, 54),
            (r#""expires_in":0"#, 54),
            (r#""expires_in":-1"#, 54),
            (r#""expires_in":"300""#, 54),
            (r#""expires_in":null"#, 54),
            (r#""expires_in":18446744073709551615"#, 86_370),
            (r#""expires_in":1e300"#, 54),
            (r#""expires_in":300,"issued_at":"2026-01-01T11:59:00Z""#, 210),
            (r#""expires_in":300,"issued_at":"2026-01-01T12:58:00+01:00""#, 150),
            (r#""expires_in":300,"issued_at":"2020-01-01T00:00:00Z""#, 0),
            (r#""expires_in":300,"issued_at":"2099-01-01T00:00:00Z""#, 270),
            (r#""expires_in":300,"issued_at":"yesterday""#, 270),
            (r#""expires_in":300,"issued_at":7"#, 270),
        ];
        for (fields, usable) in cases {
            let parsed = parse(&format!(r#"{{"token":"t",{fields}}}"#)).unwrap();
            assert_eq!(parsed.1, usable, "{fields}");
        }
    }

    #[test]
    fn answers_without_a_usable_token() {
        let cases = [
            "",
            "[]",
            "null",
            "{}",
            r#"{"token":7}"#,
            r#"{"token":""}"#,
            r#"{"token":"a b"}"#,
            r#"{"token":"a\r\nX-Y: z"}"#,
            r#"{"token":"a\u0000"}"#,
            r#"{"token":"ä"}"#,
            r#"{"token":"secret"#,
        ];
        for body in cases {
            let error = parse(body).unwrap_err();
            assert!(!error.contains("secret"), "{body}: {error}");
        }
    }
}
