//! Stopping: what runs is finished and settled, the rest is left for the next start.

use std::time::Duration;

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, FutureExt as _, join_all, pending},
};

use super::{DispatchError, Dispatcher, Phase};

impl Dispatcher {
    /// Finishes what runs, settles it, and leaves the rest for the next start.
    pub(super) async fn drain(&mut self, mut phase: Phase) -> Result<(), DispatchError> {
        for member in &mut self.members {
            member.queue.clear();
            member.draining.send_replace(true);
        }
        if let Some(gather) = &mut self.gather {
            gather.close();
        }
        self.lanes.close();
        let mut over = self.over(phase);
        self.flush();
        while !self.tasks.is_empty() || !self.settling.is_empty() || !self.outbox.is_empty() {
            tokio::select! {
                () = &mut over => {
                    tracing::warn!(handler = %self.name(), unfinished = self.tasks.len(),
                        "the grace time is over: what still runs is cancelled and will be delivered again");
                    if !matches!(phase, Phase::Change(_)) {
                        return Ok(());
                    }
                    // Their end is waited for: an event that is delivered again must not meet itself.
                    self.tasks.abort_all();
                    over = pending().boxed();
                }
                changed = self.phase.changed() => {
                    let told = *self.phase.borrow_and_update();
                    if changed.is_err() || told == Phase::Stop {
                        return Ok(());
                    }
                    if matches!((phase, told), (Phase::Change(_), Phase::Drain(_))) {
                        phase = told;
                        over = self.over(phase);
                    }
                }
                Some((of, settled)) = self.settling.next(), if !self.settling.is_empty() => {
                    self.settled(of, settled)?;
                }
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => self.joined(ended),
            }
            self.go_on().await;
        }
        // It may wait for plain functions too, and stands before whoever does after it: nobody asks it any more.
        drop(over);
        if matches!(phase, Phase::Change(_)) {
            // A call that waited for its keyed state may have come to its plain function just as it was cancelled.
            tokio::select! {
                () = self.unblocked() => {}
                _ = self.phase.changed() => {}
            }
        }
        Ok(())
    }

    /// Completes when no plain function runs.
    fn unblocked(&self) -> impl Future<Output = ()> + Send + use<> {
        let blocked: Vec<_> = self.members.iter().map(|member| member.callee.binding.draining.clone()).collect();
        async move {
            join_all(blocked.iter().map(|draining| draining.unblocked())).await;
        }
    }

    /// Completes when what still runs is to be cancelled.
    fn over(&self, phase: Phase) -> BoxFuture<'static, ()> {
        let grace = match phase {
            Phase::Drain(grace) => return self.clock.sleep(grace).boxed(),
            Phase::Change(grace) => self.clock.sleep(grace),
            Phase::Run | Phase::Stop => return self.clock.sleep(Duration::ZERO).boxed(),
        };
        let (name, unblocked) = (self.name(), self.unblocked());
        let blocked: Vec<_> = self.members.iter().map(|member| member.callee.binding.draining.clone()).collect();
        async move {
            grace.await;
            if blocked.iter().any(|draining| draining.is_blocked()) {
                tracing::warn!(handler = %name,
                    "the grace time is over: a change waits for plain functions that still run, as they cannot be cancelled");
            }
            unblocked.await;
        }
        .boxed()
    }
}
