//! Why a question is not answered: what a server refuses for want of a right it says beside, and a connection that is lost
//! takes with it what was asked on it.

use std::future::pending;

use async_nats::{Client, Event, ServerError};
use oncue::transport::broker::BrokerError;
use tokio::sync::broadcast;

/// So many are kept for whoever hears of them. Who misses one asks again, and is refused again.
const KEPT: usize = 256;
/// What the server says, before a subject in quotes.
const PUBLISH: &str = "Permissions Violation for Publish to ";
const SUBSCRIBE: &str = "Permissions Violation for Subscription to ";
/// What the subjects of answers begin with.
const INBOX: &str = "_INBOX.";

/// A connection to a server, and what it refuses.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) refusals: Refusals,
}

/// Tells of each subject that may not be used, and of each connection that is lost.
#[derive(Clone)]
pub(super) struct Refusals(broadcast::Sender<Said>);

#[derive(Clone)]
enum Said {
    Refused(String),
    Lost,
}

impl Default for Refusals {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

impl Refusals {
    /// Takes what the server says beside its answers, and what becomes of the connection.
    pub(super) fn take(&self, event: &Event) {
        let said = match event {
            Event::ServerError(ServerError::Other(text)) => {
                tracing::debug!(text, "the server refuses something");
                refused(text).map(Said::Refused)
            }
            Event::Disconnected => Some(Said::Lost),
            _ => None,
        };
        if let Some(said) = said {
            // Nobody may be waiting.
            let _ = self.0.send(said);
        }
    }

    /// From now on; to be asked before the question is.
    pub(super) fn hear(&self) -> Hearing {
        Hearing(self.0.subscribe())
    }
}

/// Hears what is refused, and what is lost.
pub(super) struct Hearing(broadcast::Receiver<Said>);

impl Hearing {
    /// Why what was sent to a subject is not answered: [`BrokerError::Failed`] if it may be asked again. Never, if it may be sent
    /// there, and its answer be received, on the connection that there is.
    pub(super) async fn unanswered(&mut self, asked: &str) -> BrokerError {
        loop {
            match self.0.recv().await {
                Ok(Said::Lost) => return BrokerError::Failed("the connection was lost".to_owned()),
                Ok(Said::Refused(subject)) if subject == asked || subject.starts_with(INBOX) => {
                    return BrokerError::Refused(format!(
                        "the user has no right to `{subject}`: on this server it needs `publish` for `$JS.API.>` and the \
                         subjects of its topics (`TOPIC.>`, behind the prefix if there is one), and `subscribe` for \
                         `_INBOX.>`"
                    ));
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => pending().await,
            }
        }
    }
}

/// The subject that an error of the server is about.
fn refused(text: &str) -> Option<String> {
    let quoted = [PUBLISH, SUBSCRIBE].iter().find_map(|what| text.split_once(what)).map(|(_, subject)| subject)?;
    Some(quoted.strip_prefix('"')?.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asked_hears_why_there_is_no_answer_and_nobody_else() {
        let refusals = Refusals::default();
        let (mut asked, mut another) = (refusals.hear(), refusals.hear());
        let said = |text: &str| refusals.take(&Event::ServerError(ServerError::Other(text.to_owned())));
        said("Permissions Violation for Publish to \"orders.0.step\"");
        said("Stale Connection");
        let heard = asked.unanswered("orders.0.step").await;
        assert!(matches!(&heard, BrokerError::Refused(reason) if reason.contains("`orders.0.step`")), "{heard}");
        said("Permissions Violation for Subscription to \"_INBOX.abc.*\"");
        let heard = another.unanswered("bills.0.step").await;
        assert!(heard.to_string().contains("`_INBOX.abc.*`"), "{heard}");
        refusals.take(&Event::Disconnected);
        let heard = another.unanswered("bills.0.step").await;
        assert!(matches!(heard, BrokerError::Failed(_)), "{heard}");
    }
}
