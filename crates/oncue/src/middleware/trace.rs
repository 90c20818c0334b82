//! A line in the log for each call.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use tracing::Level;

use crate::handler::{Invocation, Layer, Next, Outcome};

/// Logs what became of each call, through `tracing`: the handler, the event's id and type, the attempt, how long it took
/// with all that is inside of this layer, and the outcome. Failures are warnings, everything else is at level debug, or
/// at the one that is [given](Trace::level).
///
/// ```
/// use oncue::prelude::*;
///
/// let audit = (|event: &Envelope| println!("{event:?}")).named("audit").types(["order.created"]);
/// let audit = audit.layer(middleware::trace().level(tracing::Level::INFO));
/// # assert!(audit.problems().is_empty());
/// ```
///
/// Without it, too, each call runs in a span `handle` with the same fields, which what the handler logs is inside of;
/// failures that will be tried again are logged at level debug, and dead letters as warnings. This layer is for a line
/// per call, and for the time that a call spends in layers: that is no part of the span. Of a batch it names the first
/// event, and the first outcome that is no ack.
#[must_use]
pub fn trace() -> Trace {
    Trace { level: Level::DEBUG }
}

/// See [`trace()`].
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    level: Level,
}

impl Trace {
    /// The level of what is no failure.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }
}

impl Layer for Trace {
    fn call(&self, invocation: Invocation, next: Next) -> BoxFuture<'static, Outcome> {
        let level = self.level;
        async move {
            let began = invocation.binding().clock.monotonic();
            let outcome = next.run(invocation.clone()).await;
            let duration = invocation.binding().clock.monotonic().saturating_sub(began);
            log(level, &invocation, duration, &outcome);
            outcome
        }
        .boxed()
    }
}

/// Logs at a level that is known only now: `tracing` wants a constant.
macro_rules! log_at {
    ($level:expr, $($fields:tt)*) => {
        match $level {
            Level::TRACE => tracing::trace!($($fields)*),
            Level::DEBUG => tracing::debug!($($fields)*),
            Level::INFO => tracing::info!($($fields)*),
            Level::WARN => tracing::warn!($($fields)*),
            Level::ERROR => tracing::error!($($fields)*),
        }
    };
}

fn log(level: Level, invocation: &Invocation, duration: Duration, outcome: &Outcome) {
    let (handler, event) = (invocation.subscription(), invocation.envelope().id());
    let (event_type, attempt) = (invocation.envelope().event_type(), invocation.attempt());
    match outcome {
        Outcome::Fail { class, error } => {
            tracing::warn!(handler, event, r#type = event_type, attempt, ?duration, %class, error, "failed");
        }
        Outcome::Reject { class, error } => {
            tracing::warn!(handler, event, r#type = event_type, attempt, ?duration, %class, error, "rejected");
        }
        Outcome::Ack => log_at!(level, handler, event, r#type = event_type, attempt, ?duration, "handled"),
        Outcome::Defer(delay) => {
            log_at!(level, handler, event, r#type = event_type, attempt, ?duration, ?delay, "deferred");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use parking_lot::Mutex;

    use super::*;
    use crate::{
        middleware::tests::{Calls, at_zero, transient},
        policy::ErrorClass,
    };

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged at `most` and what is worse.
    fn logged(most: Level, work: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let to = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(most)
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_writer(move || to.clone());
        tracing::subscriber::with_default(subscriber.finish(), work);
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        text.lines().map(|line| line.trim_start().to_owned()).collect()
    }

    #[test]
    fn each_call_is_a_line_with_its_event_its_time_and_its_outcome() {
        let manual = at_zero();
        let calls = Calls::by(&manual);
        let layer = trace().level(Level::INFO);
        let lines = logged(Level::INFO, || {
            let mut call = calls.pending(&layer, 0);
            assert_eq!(call.poll(), None);
            manual.advance(Duration::from_millis(250));
            calls.finish(0);
            assert_eq!(call.poll(), Some(Outcome::Ack));
            for outcome in [
                Outcome::Defer(Duration::from_secs(1)),
                transient(),
                Outcome::Reject { class: ErrorClass::Malformed, error: "no amount".to_owned() },
            ] {
                assert_eq!(calls.ready(&layer, outcome.clone()).poll(), Some(outcome));
            }
        });
        let fields = r#"handler="test" event="e-1" type="tested" attempt=1"#;
        assert_eq!(
            lines,
            [
                format!("INFO handled {fields} duration=250ms"),
                format!("INFO deferred {fields} duration=0ns delay=1s"),
                format!(r#"WARN failed {fields} duration=0ns class=transient error="down""#),
                format!(r#"WARN rejected {fields} duration=0ns class=malformed error="no amount""#),
            ]
        );
    }

    #[test]
    fn what_is_no_failure_is_logged_at_the_level_that_is_asked_for() {
        let calls = Calls::default();
        for (level, layer) in [
            (Level::DEBUG, trace()),
            (Level::TRACE, trace().level(Level::TRACE)),
            (Level::WARN, trace().level(Level::WARN)),
            (Level::ERROR, trace().level(Level::ERROR)),
        ] {
            let call = || drop(calls.ready(&layer, Outcome::Ack).poll());
            assert!(logged(level, call)[0].starts_with(level.as_str()), "{level}");
            if level > Level::ERROR {
                let quieter = if level == Level::TRACE { Level::DEBUG } else { Level::ERROR };
                assert_eq!(logged(quieter, call), [""; 0], "{level}");
            }
        }
    }
}
