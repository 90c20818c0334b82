//! A file is changed in every way that editors and deployments do it; time is moved by hand.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use super::*;
use crate::clock::ManualClock;

const EVERY: Duration = Duration::from_secs(1);

struct Watched {
    directory: tempfile::TempDir,
    clock: ManualClock,
    watch: Watch,
}

impl Watched {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::default());
        let watch = watch(directory.path().join("oncue.toml"), clock.clock(), EVERY);
        Self { directory, clock, watch }
    }

    /// Already told what it said.
    async fn saying(concurrency: usize) -> Self {
        let mut watched = Self::new();
        watched.write(&saying(concurrency));
        assert_eq!(watched.look().await, Some(Ok(Some(concurrency))));
        watched
    }

    fn write(&self, text: &str) {
        fs::write(self.directory.path().join("oncue.toml"), text).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.directory.path().join(from), self.directory.path().join(to)).unwrap();
    }

    /// What one look tells: the default concurrency, or the error; none if the watch goes on waiting.
    async fn look(&mut self) -> Option<Result<Option<usize>, String>> {
        let told = {
            let mut changed = pin!(self.watch.changed());
            poll_fn(|cx| match changed.as_mut().poll(cx) {
                Poll::Ready(told) => Poll::Ready(Some(told)),
                // It sleeps until the next look: this one told nothing.
                Poll::Pending if self.clock.until_next().is_some() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        told.map(|told| told.map(|config| config.defaults.concurrency).map_err(|error| error.to_string()))
    }

    async fn next_look(&mut self) -> Option<Result<Option<usize>, String>> {
        assert_eq!(self.look().await, None, "a look before its time");
        self.clock.advance(EVERY);
        self.look().await
    }
}

fn saying(concurrency: usize) -> String {
    format!("[defaults]\nconcurrency = {concurrency}\n")
}

#[tokio::test]
async fn the_first_call_tells_what_there_is_and_the_next_what_is_new() {
    let mut watched = Watched::saying(1).await;
    assert_eq!(watched.next_look().await, None);
    watched.write(&saying(2));
    assert_eq!(watched.next_look().await, Some(Ok(Some(2))));
    assert_eq!(watched.next_look().await, None);
}

#[tokio::test]
async fn the_same_content_written_again_is_no_change() {
    let mut watched = Watched::saying(1).await;
    watched.write(&saying(1));
    assert_eq!(watched.next_look().await, None);
}

#[tokio::test]
async fn a_file_that_another_replaces_is_read() {
    let mut watched = Watched::saying(1).await;
    fs::write(watched.directory.path().join("new"), saying(2)).unwrap();
    watched.rename("new", "oncue.toml");
    assert_eq!(watched.next_look().await, Some(Ok(Some(2))));
}

#[tokio::test]
async fn a_file_that_is_missing_for_a_moment_is_no_change() {
    let mut watched = Watched::saying(1).await;
    watched.rename("oncue.toml", "old");
    assert_eq!(watched.next_look().await, None);
    watched.rename("old", "oncue.toml");
    assert_eq!(watched.next_look().await, None);
    watched.rename("oncue.toml", "old");
    assert_eq!(watched.next_look().await, None, "missing again, and again for a moment");
    watched.write(&saying(2));
    assert_eq!(watched.next_look().await, Some(Ok(Some(2))));
}

#[tokio::test]
async fn a_file_that_stays_away_is_told_once_and_so_is_its_return() {
    let mut watched = Watched::saying(1).await;
    watched.rename("oncue.toml", "old");
    assert_eq!(watched.next_look().await, None);
    let told = watched.next_look().await;
    assert!(matches!(&told, Some(Err(error)) if error.contains("oncue.toml` cannot be read")), "{told:?}");
    assert_eq!(watched.next_look().await, None);
    watched.rename("old", "oncue.toml");
    assert_eq!(watched.next_look().await, Some(Ok(Some(1))));
}

#[tokio::test]
async fn a_broken_file_is_told_once_per_content() {
    let mut watched = Watched::saying(1).await;
    watched.write("[defaults]\nconcurrency = \n");
    assert!(matches!(watched.next_look().await, Some(Err(error)) if error.contains("oncue.toml:2:15: ")));
    assert_eq!(watched.next_look().await, None);
    watched.write("[defaults]\nconcurrency = 0\n");
    assert!(matches!(watched.next_look().await, Some(Err(error)) if error.contains("0 would never handle anything")));
    watched.write(&saying(1));
    assert_eq!(watched.next_look().await, Some(Ok(Some(1))), "mended, if only to what it was");
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_taken_for_an_empty_one() {
    let mut watched = Watched::saying(1).await;
    watched.write("");
    assert_eq!(watched.next_look().await, None);
    watched.write(&saying(2));
    assert_eq!(watched.next_look().await, Some(Ok(Some(2))));
    watched.write("");
    assert_eq!(watched.next_look().await, None);
    assert_eq!(watched.next_look().await, Some(Ok(None)), "it stays empty");
    assert_eq!(watched.next_look().await, None);
}

#[test]
fn a_dropped_future_loses_no_change_and_puts_no_look_off() {
    // One thread for what blocks: while it is held, no look ends.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(dropping_futures());
}

async fn dropping_futures() {
    let mut watched = Watched::saying(1).await;
    watched.write(&saying(2));
    watched.clock.advance(EVERY);
    let (release, held) = tokio::sync::oneshot::channel::<()>();
    let holding = tokio::task::spawn_blocking(move || held.blocking_recv());
    {
        let mut changed = pin!(watched.watch.changed());
        let is_looking = poll_fn(|cx| Poll::Ready(changed.as_mut().poll(cx).is_pending())).await;
        assert!(is_looking && watched.clock.until_next().is_none());
    }
    release.send(()).unwrap();
    holding.await.unwrap().unwrap();
    assert_eq!(watched.look().await, Some(Ok(Some(2))));
    watched.write(&saying(3));
    for _ in 0..10 {
        // Dropped while it waits, oftener than it looks.
        assert_eq!(watched.look().await, None);
        watched.clock.advance(EVERY / 10);
    }
    assert_eq!(watched.look().await, Some(Ok(Some(3))));
}

#[tokio::test]
async fn a_file_whose_time_is_old_is_not_read_again() {
    let mut watched = Watched::new();
    let path = watched.directory.path().join("oncue.toml");
    let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let write = |text: &str| {
        fs::write(&path, text).unwrap();
        File::options().append(true).open(&path).unwrap().set_modified(written).unwrap();
    };
    // As soon after the writing as another one could have the same time: the content decides.
    watched.clock.set_wall(Timestamp::from_micros(1_001_000_000));
    write(&saying(1));
    assert_eq!(watched.look().await, Some(Ok(Some(1))));
    write(&saying(2));
    assert_eq!(watched.next_look().await, Some(Ok(Some(2))));
    // Long after: what has the same length and the same time is the same.
    watched.clock.set_wall(Timestamp::from_micros(2_000_000_000));
    assert_eq!(watched.next_look().await, None);
    write(&saying(3));
    assert_eq!(watched.next_look().await, None);
    write(&saying(44));
    assert_eq!(watched.next_look().await, Some(Ok(Some(44))), "another length");
}
