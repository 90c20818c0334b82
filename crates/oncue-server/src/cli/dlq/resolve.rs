//! Writing what becomes of dead letters, while no app has the directory.

use std::path::{Path, PathBuf};

use oncue::{
    Clock,
    transport::{
        Control, ControlError, DeadLetter, LockError, LogTransport, LogUrl, OpenError, Resolution, SettleError,
        Transport,
    },
};
use thiserror::Error;

use crate::cli::CommandError;

/// Resolved in one write, at most: so many, or of so many bytes.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 4 << 20;

/// Why dead letters could not be resolved.
#[derive(Debug, Error)]
pub(in crate::cli) enum ResolveError {
    /// A process has the directory.
    #[error(
        "--data: {} is in use by process {pid}: stop it first, or resolve its dead letters from its code, by \
         `Bus::dead_letters`", directory.display()
    )]
    Busy {
        /// The directory.
        directory: PathBuf,
        /// The process.
        pid: String,
    },
    /// The directory cannot be used for another reason.
    #[error("--data: {0}")]
    Directory(LockError),
    /// The log cannot be opened.
    #[error(transparent)]
    Open(OpenError),
    /// What became of them could not be recorded.
    #[error("{done} of {all} are resolved, the others are not: {error}")]
    Control {
        /// How many were.
        done: usize,
        /// How many were to be.
        all: usize,
        /// What stopped it.
        error: ControlError,
    },
    /// What was recorded may not be durable.
    #[error("the log could not be closed: {0}; look with `oncue dlq list` at what was done")]
    Close(SettleError),
    /// Discarding was not confirmed, and nobody can be asked.
    #[error("what is discarded is gone for good: say --yes, as there is no terminal to ask on")]
    Unconfirmed,
    /// Discarding was declined.
    #[error("nothing is discarded")]
    Declined,
}

impl ResolveError {
    /// Whether the cause is what was asked for.
    pub(in crate::cli) fn is_callers(&self) -> bool {
        match self {
            Self::Control { error, .. } => matches!(error, ControlError::OtherEvent { .. }),
            Self::Busy { .. } | Self::Directory(_) | Self::Unconfirmed => true,
            Self::Open(_) | Self::Close(_) | Self::Declined => false,
        }
    }

    fn opening(error: OpenError) -> Self {
        match error {
            OpenError::Directory(LockError::Locked { dir: directory, pid }) => Self::Busy { directory, pid },
            OpenError::Directory(error) => Self::Directory(error),
            error => Self::Open(error),
        }
    }
}

/// Takes the directory, resolves these dead letters of a subscription, and lets it go.
pub(super) fn resolve(
    directory: &Path,
    subscription: &str,
    letters: &[DeadLetter],
    resolution: impl Fn(&DeadLetter) -> Resolution,
) -> Result<(), CommandError> {
    if letters.is_empty() {
        return Ok(());
    }
    let transport = LogTransport::open(&LogUrl::file(directory), Clock::system()).map_err(ResolveError::opening)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::Runtime)?;
    runtime.block_on(async {
        let resolved = write(&transport, subscription, letters, resolution).await;
        let closed = transport.close().await;
        resolved?;
        Ok(closed.map_err(ResolveError::Close)?)
    })
}

async fn write(
    transport: &dyn Transport,
    subscription: &str,
    letters: &[DeadLetter],
    resolution: impl Fn(&DeadLetter) -> Resolution,
) -> Result<(), ResolveError> {
    let mut rest = letters;
    while !rest.is_empty() {
        let (batch, behind) = rest.split_at(batch(rest));
        let resolved = batch.iter().map(|letter| (letter.position, resolution(letter))).collect();
        let done = letters.len() - rest.len();
        let written = transport.control(subscription, Control::Resolve(resolved)).await;
        written.map_err(|error| ResolveError::Control { done, all: letters.len(), error })?;
        rest = behind;
    }
    Ok(())
}

/// How many of these, of which there is one at least, are one write.
fn batch(letters: &[DeadLetter]) -> usize {
    let mut bytes = 0;
    let fits = |letter: &&DeadLetter| {
        let errors: usize = letter.history.iter().map(|attempt| attempt.error.len()).sum();
        bytes += letter.envelope.encoded_bytes() + errors;
        bytes <= BATCH_BYTES
    };
    letters.iter().take(BATCH).take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oncue::{ManualClock, Timestamp, prelude::*, transport::Position};

    use super::*;

    #[test]
    fn a_batch_is_small_in_number_and_in_bytes_and_never_empty() {
        let letters = |count, bytes| {
            let envelope = Envelope::builder("t").data(vec![0; bytes]).build().unwrap();
            let letter = DeadLetter { position: Position::new(0, 0, 0), envelope, holds: false, history: Vec::new() };
            vec![letter; count]
        };
        assert_eq!(batch(&letters(1, 10)), 1);
        assert_eq!(batch(&letters(1_000, 10)), BATCH);
        assert_eq!(batch(&letters(1_000, 1 << 20)), 3);
    }

    /// Runs an app on `directory`, years ago, whose handler refuses everything; publishes the event `1`. Whether that one
    /// was known.
    fn published_again(directory: &Path) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let clock = ManualClock::new(Timestamp::from_micros(1_000_000)).clock();
            let url = LogUrl::file(directory).dedup_window(Duration::from_secs(100 * 365 * 24 * 3_600), 1_000);
            let log = std::sync::Arc::new(LogTransport::open(&url, clock.clone()).unwrap());
            let refuse = (|_: &Envelope| Err::<(), _>("no")).named("refuse").types(["t"]).inline();
            let app = App::with_transport(log, clock).on(refuse.retry(policy::never()));
            let bus = app.start().await.unwrap();
            let event = Envelope::builder("t").source("/s").id("1").build().unwrap();
            let receipt = bus.publish(event).await.unwrap();
            bus.idle().await.unwrap();
            bus.shutdown().await.unwrap();
            receipt.is_duplicate()
        })
    }

    #[test]
    fn an_app_that_looks_far_back_for_duplicates_still_finds_them() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!published_again(directory.path()));
        let log = LogTransport::snapshot(&LogUrl::file(directory.path()), &Clock::system()).unwrap();
        let letters = log.dead_letters("refuse").unwrap();
        assert_eq!(letters.len(), 1);
        resolve(directory.path(), "refuse", &letters, |_| Resolution::Discard).unwrap();
        assert!(published_again(directory.path()), "the id was forgotten");
    }
}
