//! Waiting for a running app, and ending it.

use std::time::Duration;

use super::{Bus, DEFAULT_GRACE};
use crate::{dispatch::Phase, error::Result};

impl Bus {
    /// Waits until every handler is through with every event, and with all that these caused, and that is durable: a crash
    /// from then on repeats nothing. Events that wait for their time or for a retry are waited for; what a dead letter holds
    /// is not, nor are handlers that are paused.
    ///
    /// # Errors
    /// A handler stopped.
    pub async fn idle(&self) -> Result<()> {
        loop {
            let progress = self.transport().progress();
            self.check()?;
            if self.inspect().unsettled() == 0 {
                // One that stopped while that was counted left nothing to count.
                return self.check();
            }
            tokio::select! {
                () = progress => {}
                stopped = self.stopped() => return stopped,
            }
        }
    }

    /// Waits until every source is exhausted, or stopped by a shutdown. A source that follows never is.
    ///
    /// # Errors
    /// A source gave up.
    pub async fn exhausted(&self) -> Result<()> {
        Ok(self.0.sources.exhausted().await?)
    }

    /// Whether a handler stopped, and why.
    ///
    /// # Errors
    /// It did.
    pub fn check(&self) -> Result<()> {
        self.0.failed.borrow().clone().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Runs until Ctrl-C or SIGTERM, then shuts down; a second one stops at once.
    ///
    /// # Errors
    /// A handler stopped, or closing failed.
    pub async fn run_until_ctrl_c(&self) -> Result<()> {
        tokio::select! {
            () = signal() => {}
            stopped = self.stopped() => return stopped,
        }
        tokio::select! {
            closed = self.shutdown() => closed,
            () = signal() => {
                self.0.serving.interrupt();
                self.0.requests.close().await;
                Ok(self.transport().close().await?)
            }
        }
    }

    /// Completes when a handler stops by itself.
    async fn stopped(&self) -> Result<()> {
        let mut failed = self.0.failed.clone();
        if failed.wait_for(Option::is_some).await.is_err() {
            // Every dispatcher ended as it should: nothing is left to fail.
            std::future::pending::<()>().await;
        }
        self.check()
    }

    /// Stops the sources, then stops taking events, lets handlers finish within [`DEFAULT_GRACE`], and closes the transport. What is not
    /// finished is delivered again at the next start. Idempotent.
    ///
    /// # Errors
    /// Closing failed.
    pub async fn shutdown(&self) -> Result<()> {
        self.shutdown_within(DEFAULT_GRACE).await
    }

    /// As [`shutdown`](Self::shutdown), with a grace time of the caller's.
    ///
    /// # Errors
    /// Closing failed.
    pub async fn shutdown_within(&self, grace: Duration) -> Result<()> {
        self.0.sources.stop(grace).await;
        self.0.serving.stop(Phase::Drain(grace)).await;
        self.0.requests.close().await;
        self.transport().close().await?;
        self.check()
    }
}

async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    // Without a signal to wait for, run until the process is ended.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
