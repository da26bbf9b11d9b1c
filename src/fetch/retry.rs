use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use super::range::number;
use crate::error::{Error, Result};

/// How patient a pull is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// How often one operation is repeated in a row. Default: 5.
    pub retries: u32,
    /// How often the operations of one pull may be repeated together. Default: 40.
    pub total_retries: u32,
    /// The wait before the first repetition; each further one waits twice as long. Up to as much
    /// again is added at random, so that many pullers do not come back at once. Default: 0.5 s.
    pub first_delay: Duration,
    /// The longest wait of our own choice, before that addition. Default: 15 s.
    pub max_delay: Duration,
    /// The longest wait that a server may ask for with `Retry-After`. One that wants more time is
    /// not asked again: its error is returned at once. Default: 2 minutes.
    pub max_retry_after: Duration,
    /// A body that brings less than 64 KiB in this time is cut, and asked for again. Default: 30 s.
    pub stall: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            retries: 5,
            total_retries: 40,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(15),
            max_retry_after: Duration::from_secs(120),
            stall: Duration::from_secs(30),
        }
    }
}

/// What is left of the patience of one pull; its clones share it.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    policy: Arc<RetryPolicy>,
    used: Arc<AtomicU32>,
}

impl RetryBudget {
    /// A full budget.
    pub fn new(policy: RetryPolicy) -> RetryBudget {
        RetryBudget { policy: Arc::new(policy), used: Arc::default() }
    }

    /// How many repetitions there have been.
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// How long a body may bring next to nothing.
    pub(super) fn stall(&self) -> Duration {
        self.policy.stall
    }

    fn take(&self) -> bool {
        let one_more = |used| (used < self.policy.total_retries).then_some(used + 1);
        self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn delays(&self) -> impl Iterator<Item = Duration> + use<> {
        ExponentialBuilder::new()
            .with_jitter()
            .with_factor(2.0)
            .with_min_delay(self.policy.first_delay)
            .with_max_delay(self.policy.max_delay)
            .with_max_times(usize::try_from(self.policy.retries).unwrap_or(usize::MAX))
            .build()
    }

    /// The wait that honours both our own back-off and the server's wish; nothing where the
    /// server's wish is beyond our patience.
    fn wait(&self, own: Duration, error: &Error) -> Option<Duration> {
        match error {
            Error::Registry { retry_after: Some(wish), .. } => {
                let bearable = *wish <= self.policy.max_retry_after;
                // `own` has the jitter: added, it keeps those who got the same answer apart.
                bearable.then(|| if wish.is_zero() { own } else { *wish + own.min(*wish) })
            }
            Error::Endpoints { errors } => match errors.last() {
                Some(error) => self.wait(own, error),
                None => Some(own),
            },
            _ => Some(own),
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget::new(RetryPolicy::default())
    }
}

/// One repetition, before it is waited for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Retry<'a> {
    /// Which repetition of this operation it is, counted from 1.
    pub number: u32,
    /// How long it is waited for.
    pub delay: Duration,
    /// Why it is needed.
    pub error: &'a Error,
}

/// Runs an operation, and runs it again after a [transient](is_transient) error, as long as the
/// budget and its policy allow.
///
/// `operation` is given the number of the attempt, from 0. `notify` hears of each repetition
/// before it is waited for. Returns what the last attempt returned.
///
/// ```
/// use layerstore::fetch::{RetryBudget, retry};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let budget = RetryBudget::default();
/// let answer = retry(
///     &budget,
///     |_attempt| async { Ok(42) },
///     |retry| eprintln!("again in {:?}: {}", retry.delay, retry.error),
/// )
/// .await?;
/// assert_eq!((answer, budget.used()), (42, 0));
/// # Ok::<(), layerstore::Error>(()) }).unwrap();
/// ```
pub async fn retry<T, F, Fut>(
    budget: &RetryBudget,
    mut operation: F,
    mut notify: impl FnMut(&Retry<'_>),
) -> Result<T>
where
    F: FnMut(u32) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let mut delays = budget.delays();
    let mut attempt = 0;
    loop {
        let error = match operation(attempt).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let wait = if is_transient(&error) { delays.next() } else { None };
        let Some(delay) = wait.and_then(|own| budget.wait(own, &error)).filter(|_| budget.take())
        else {
            return Err(error);
        };
        tracing::debug!(attempt, ?delay, %error, "trying again");
        notify(&Retry { number: attempt + 1, delay, error: &error });
        tokio::time::sleep(delay).await;
        attempt += 1;
    }
}

/// Whether the same request may succeed later: the connection failed or broke, or the server
/// said so (`408`, `429`, `500`, `502`, `503`, `504`).
///
/// A peer that is reached but fails to prove who it is, or does not speak TLS at all, is not
/// transient; nor is anything that the bytes themselves decide, as a digest that does not match.
pub fn is_transient(error: &Error) -> bool {
    match error {
        Error::Registry { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
        Error::Network { source, .. } => !is_tls_failure(source.as_ref()),
        // Where the image comes from decides: mirrors may well never have it.
        Error::Endpoints { errors } => errors.last().is_some_and(is_transient),
        _ => false,
    }
}

/// TLS libraries report certificates and messages that they do not accept as invalid data; so does
/// this crate where TLS cannot be set up.
fn is_tls_failure(error: &(dyn StdError + 'static)) -> bool {
    match error.downcast_ref::<io::Error>() {
        Some(io) if io.kind() == io::ErrorKind::InvalidData => true,
        // Its `source` would be that of the error within, and so pass that one by.
        Some(io) => io.get_ref().is_some_and(|within| is_tls_failure(within)),
        None => error.source().is_some_and(is_tls_failure),
    }
}

/// What a `Retry-After` header asks for (RFC 9110, section 10.2.3): seconds, or the time between
/// the answer's own date and the one named. A moment that has passed asks for nothing.
pub(super) fn retry_after(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    match number(value.trim()) {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => {
            let until = http_date(value)?.duration_since(now);
            Some(Duration::try_from(until).unwrap_or_default())
        }
    }
}

/// A date as HTTP writes it (RFC 9110, section 5.6.7), in its one form that is not obsolete.
pub(super) fn http_date(value: &str) -> Option<jiff::Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value.trim()).ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn answered(status: u16, retry_after: Option<u64>) -> Error {
        let retry_after = retry_after.map(Duration::from_secs);
        Error::Registry { url: "http://r/".into(), status, errors: vec![], retry_after }
    }

    fn broken(kind: io::ErrorKind) -> Error {
        let source = Box::new(io::Error::other(io::Error::from(kind)));
        Error::Network { action: "get", url: "http://r/".into(), source }
    }

    fn quick() -> RetryPolicy {
        RetryPolicy {
            first_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(2),
            ..RetryPolicy::default()
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn what_is_transient() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(is_transient(&answered(status, None)), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 405, 410, 416, 501, 505] {
            assert!(!is_transient(&answered(status, None)), "{status}");
        }
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::TimedOut,
            io::ErrorKind::UnexpectedEof,
        ] {
            assert!(is_transient(&broken(kind)), "{kind}");
        }
        assert!(!is_transient(&broken(io::ErrorKind::InvalidData)));
        let url = String::new;
        assert!(!is_transient(&Error::BadResponse { url: url(), reason: url() }));
        assert!(!is_transient(&Error::Unauthorized { registry: url(), reason: url() }));
        assert!(!is_transient(&Error::UnusableRange { url: url(), range: url(), reason: url() }));
    }

    #[test]
    fn one_operation_is_repeated_as_often_as_the_policy_says() {
        let budget = RetryBudget::new(RetryPolicy { retries: 3, ..quick() });
        let (calls, mut seen) = (Cell::new(0), Vec::new());
        let always = |attempt| {
            assert_eq!(attempt, calls.get());
            calls.set(calls.get() + 1);
            async { Err::<(), _>(broken(io::ErrorKind::ConnectionRefused)) }
        };
        let error = run(retry(&budget, always, |retry| seen.push(retry.number))).unwrap_err();
        assert!(matches!(error, Error::Network { .. }));
        assert_eq!((calls.get(), seen, budget.used()), (4, vec![1, 2, 3], 3));
    }

    #[test]
    fn all_operations_share_the_budget() {
        let budget = RetryBudget::new(RetryPolicy { total_retries: 4, retries: 3, ..quick() });
        let calls = Cell::new(0);
        for clone in [budget.clone(), budget.clone(), budget.clone()] {
            let always = |_| {
                calls.set(calls.get() + 1);
                async { Err::<(), _>(answered(503, None)) }
            };
            run(retry(&clone, always, |_| {})).unwrap_err();
        }
        assert_eq!((calls.get(), budget.used()), (4 + 2 + 1, 4));
    }

    #[test]
    fn what_is_not_transient_is_returned_at_once() {
        let budget = RetryBudget::new(quick());
        let missing = |_| async { Err::<(), _>(answered(404, None)) };
        run(retry(&budget, missing, |_| panic!("repeated"))).unwrap_err();
        let later = |attempt| async move {
            if attempt < 2 { Err(answered(500, None)) } else { Ok(attempt) }
        };
        assert_eq!(run(retry(&budget, later, |_| {})).unwrap(), 2);
    }

    #[test]
    fn a_server_is_left_alone_for_as_long_as_it_says() {
        let budget = RetryBudget::default();
        let own = Duration::from_millis(700);
        let wait = |error: &Error| budget.wait(own, error);
        assert_eq!(wait(&answered(429, None)), Some(own));
        assert_eq!(wait(&answered(429, Some(0))), Some(own));
        assert_eq!(wait(&answered(503, Some(60))), Some(own + Duration::from_secs(60)));
        assert_eq!(wait(&answered(503, Some(121))), None);
        assert_eq!(wait(&answered(503, Some(u64::MAX))), None);
        let absurd = |_| async { Err::<(), _>(answered(429, Some(86_400))) };
        run(retry(&budget, absurd, |_| panic!("waited"))).unwrap_err();
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn delays_grow_to_their_limit() {
        let delays: Vec<_> = RetryBudget::default().delays().collect();
        assert_eq!(delays.len(), 5);
        for (n, delay) in delays.iter().enumerate() {
            let own = Duration::from_millis(500 << n);
            assert!((own..=2 * own).contains(delay), "{n}: {delay:?}");
        }
    }

    #[test]
    fn retry_after_in_seconds_or_as_a_date() {
        let now = "1994-11-06T08:49:00Z".parse().unwrap();
        let parsed = |text| retry_after(text, now).map(|it| it.as_secs());
        assert_eq!(parsed("120"), Some(120));
        assert_eq!(parsed(" 0 "), Some(0));
        assert_eq!(parsed("18446744073709551615"), Some(u64::MAX));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:49:37 GMT"), Some(37));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        for text in ["", "soon", "-5", "1.5", "99999999999999999999", "Sun, 99 Nov 1994"] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }
}
