//! Ctrl-C and SIGTERM.

/// Completes at the next Ctrl-C or SIGTERM; from its first poll on, these no longer end the process by themselves.
pub(super) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                () = ctrl_c() => {}
            }
            return;
        }
    }
    ctrl_c().await;
}

async fn ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        // No signals here: run to the end.
        std::future::pending::<()>().await;
    }
}
