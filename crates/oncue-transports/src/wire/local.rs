//! A node as a transport in its own process: what is asked goes the same way, without a socket between.

use std::sync::Arc;

use bytes::Bytes;
use oncue::transport::{BoxFuture, OpenError, Transport};

use super::{
    caller::{Link, LinkError},
    listening::encode_answer,
    message::decode_request,
    node::{MAIN, Node},
    remote::Remote,
};

struct LocalLink {
    node: Arc<Node>,
    url: String,
}

impl Link for LocalLink {
    fn url(&self) -> &str {
        &self.url
    }

    fn ask(&self, question: Bytes) -> BoxFuture<'_, Result<Bytes, LinkError>> {
        Box::pin(async move {
            let answer = match decode_request(&question) {
                Ok(request) => self.node.answer(MAIN, request).await,
                Err(refusal) => Err(refusal),
            };
            encode_answer(&answer).map(Bytes::from).map_err(|error| LinkError(error.to_string()))
        })
    }
}

impl Node {
    /// The log that URLs without a path reach, for an app in the node's own process. Its end ends neither the node nor the
    /// log, and it is as any other client to those. Stands still for a moment: not to be called on a thread of a runtime.
    ///
    /// # Errors
    /// There can be no threads, or the node is closed.
    pub fn local(self: &Arc<Self>) -> Result<Arc<dyn Transport>, OpenError> {
        let link: Arc<dyn Link> = Arc::new(LocalLink { node: Arc::clone(self), url: self.main_url() });
        Ok(Arc::new(Remote::open(&link)?))
    }
}
