//! Requests and replies: extension attributes, so that every transport and every `CloudEvents` binding carries them as
//! they are.

use super::{Envelope, EnvelopeBuilder, EnvelopeError, attributes::Attributes};
use crate::event::is_topic_name;

/// The topic of the replies to requests that [`Bus::request`](crate::Bus::request) publishes.
pub const REPLY_TOPIC: &str = "oncue.replies";

const REPLY_TO: &str = "replyto";
const IN_REPLY_TO: &str = "inreplyto";

impl Envelope {
    /// The topic that a reply goes to, if this event is a request.
    #[must_use]
    pub fn reply_to(&self) -> Option<&str> {
        // A record of another tool may mean something else by it.
        self.extension(REPLY_TO).filter(|topic| is_topic_name(topic))
    }

    /// The id of the request that this event is a reply to.
    #[must_use]
    pub fn in_reply_to(&self) -> Option<&str> {
        self.extension(IN_REPLY_TO)
    }
}

impl EnvelopeBuilder {
    /// Makes it a request: replies go to this topic (extension `replyto`).
    #[must_use]
    pub fn reply_to(self, topic: impl Into<String>) -> Self {
        self.only(REPLY_TO, topic.into())
    }

    /// Makes it a reply to the request of this id (extension `inreplyto`).
    #[must_use]
    pub fn in_reply_to(self, request: impl Into<String>) -> Self {
        self.only(IN_REPLY_TO, request.into())
    }

    /// Sets an extension; what it was before is gone.
    pub(super) fn only(mut self, name: &str, value: String) -> Self {
        self.extensions.retain(|(known, _)| known != name);
        self.extension(name, value)
    }
}

impl Attributes<'_> {
    /// Refuses a topic that no reply could go to. What a foreign record says is whatever its writer meant.
    pub(super) fn check_reply(&self) -> Result<(), EnvelopeError> {
        let wrong = |(name, topic): &&(&str, &str)| !self.foreign && *name == REPLY_TO && !is_topic_name(topic);
        match self.extensions.iter().find(wrong) {
            None => Ok(()),
            Some((name, value)) => {
                let allowed = "the name of a topic: 1 to 200 letters, digits, `.`, `_` or `-`";
                Err(EnvelopeError::Attribute { name: (*name).to_owned(), value: (*value).to_owned(), allowed })
            }
        }
    }
}

/// Whether a topic is for replies, which nobody wants once they are read: `oncue.replies`, or one that begins so.
pub(crate) fn is_reply_topic(name: &str) -> bool {
    name.strip_prefix(REPLY_TOPIC).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_where_replies_go_and_a_reply_what_it_answers() {
        let plain = Envelope::builder("a").build().unwrap();
        assert_eq!((plain.reply_to(), plain.in_reply_to()), (None, None));
        let request = Envelope::builder("a").reply_to("elsewhere").reply_to(REPLY_TOPIC).build().unwrap();
        assert_eq!(request.reply_to(), Some(REPLY_TOPIC), "the last word counts");
        let reply = Envelope::builder("b").in_reply_to(request.id()).build().unwrap().emitted_by(&request, "h", 0);
        assert_eq!(reply.in_reply_to(), Some(request.id()));
        assert_eq!(reply.reply_to(), None, "a reply to a request is none");
    }

    #[test]
    fn where_no_reply_can_go_is_refused_but_in_a_foreign_record() {
        for topic in ["", "no topic", "a/b"] {
            let error = Envelope::builder("a").reply_to(topic).build().unwrap_err().to_string();
            assert!(error.contains("replyto") && error.contains("name of a topic"), "{error}");
            let foreign = Envelope::builder("a").reply_to(topic).foreign().build().unwrap();
            assert_eq!((foreign.reply_to(), foreign.extension("replyto")), (None, Some(topic)));
        }
    }

    #[test]
    fn reply_topics_are_known_by_their_names() {
        for (name, is) in [
            ("oncue.replies", true),
            ("oncue.replies.node-7", true),
            ("oncue.repliesx", false),
            ("oncue.alerts", false),
            ("events", false),
        ] {
            assert_eq!(is_reply_topic(name), is, "{name}");
        }
    }
}
