//! Calls to a node: asked again, later and later, while it cannot be reached.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use oncue::{policy::exponential, transport::BoxFuture};
use thiserror::Error;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

use super::message::{self, Refusal, Reply, Request};

/// Pauses between attempts: from the first, doubled up to the last, each shortened at random.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// So long a call that somebody waits for is asked again.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What carries a question to a node, and its answer back.
pub(crate) trait Link: Send + Sync + 'static {
    /// The node's URL, without secrets.
    fn url(&self) -> &str;

    /// Asks once. An error leaves open whether the node got the question.
    fn ask(&self, question: Bytes) -> BoxFuture<'_, Result<Bytes, LinkError>>;
}

/// A question or its answer did not arrive.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
pub(crate) struct LinkError(pub(crate) String);

/// A call came to no answer, or to that the node refuses.
#[derive(Clone, Debug, Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the node at {url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
}

/// Makes calls, on threads of its own: those who only look wait for the answer without a runtime.
pub(super) struct Caller {
    link: Arc<dyn Link>,
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Caller {
    pub(super) fn new(link: Arc<dyn Link>) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("oncue-wire").enable_all().build()?;
        Ok(Self { link, handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(super) fn url(&self) -> String {
        self.link.url().to_owned()
    }

    /// Asks until there is an answer, or for so long.
    pub(super) fn call(&self, request: &Request, patience: Option<Duration>) -> Call {
        let (link, question) = (Arc::clone(&self.link), message::encode(request));
        Call(self.handle.spawn(async move {
            let question = Bytes::from(question.map_err(|error| Refusal::Malformed(error.to_string()))?);
            if question.len() > message::MAX_MESSAGE_BYTES {
                return Err(Refusal::TooLarge { bytes: question.len(), limit: message::MAX_MESSAGE_BYTES }.into());
            }
            Ok(ask(&*link, question, patience).await??)
        }))
    }

    /// As [`call`](Self::call), for those who cannot wait otherwise than by standing still.
    pub(super) fn call_blocking(&self, request: &Request, patience: Duration) -> Result<Reply, CallError> {
        let (done, answer) = mpsc::sync_channel(1);
        let call = self.call(request, Some(patience));
        self.handle.spawn(async move { done.send(call.await) });
        answer.recv().unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Runs something on its threads.
    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(future)
    }

    fn stopped(&self) -> CallError {
        CallError::Unreachable { url: self.url(), reason: "this process is shutting down".to_owned() }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // May be called in a runtime, where nobody must wait for threads.
            runtime.shutdown_background();
        }
    }
}

type Answer = Result<Reply, Refusal>;

async fn ask(link: &dyn Link, question: Bytes, patience: Option<Duration>) -> Result<Answer, CallError> {
    let Some(patience) = patience else { return Ok(ask_on(link, question, &mut None).await) };
    let mut last = None;
    match tokio::time::timeout(patience, ask_on(link, question, &mut last)).await {
        Ok(answer) => Ok(answer),
        Err(_) => {
            let reason = last.map_or_else(|| format!("no answer within {patience:?}"), |error: LinkError| error.0);
            Err(CallError::Unreachable { url: link.url().to_owned(), reason })
        }
    }
}

/// Asks until there is an answer, and tells the last error.
async fn ask_on(link: &dyn Link, question: Bytes, last: &mut Option<LinkError>) -> Answer {
    let pauses = exponential().initial(FIRST_PAUSE).max_delay(LAST_PAUSE);
    let mut attempt = 0_u32;
    loop {
        attempt = attempt.saturating_add(1);
        let error = match link.ask(question.clone()).await {
            Ok(answer) => match message::decode(&answer) {
                Ok(Err(refusal @ Refusal::Closing)) => LinkError(refusal.to_string()),
                Ok(answer) => return answer,
                Err(error) => return Err(Refusal::Malformed(error.to_string())),
            },
            Err(error) => error,
        };
        if pauses.delay(attempt, 0.0) == LAST_PAUSE {
            tracing::warn!(node = link.url(), error = error.0, "the node cannot be reached; trying on");
        }
        *last = Some(error);
        tokio::time::sleep(pauses.delay(attempt, fastrand::f64())).await;
    }
}

/// A call on its way; given up when it is dropped.
pub(super) struct Call(JoinHandle<Result<Reply, CallError>>);

impl Future for Call {
    type Output = Result<Reply, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|ended| {
            ended.unwrap_or_else(|error| {
                Err(CallError::Unreachable { url: "(closed)".to_owned(), reason: error.to_string() })
            })
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.abort();
    }
}
