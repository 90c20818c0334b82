//! What makes a handler graph impossible.

use thiserror::Error;

use crate::transport::MAX_MEMBERS;

/// Why handlers cannot be put into a graph.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GraphError {
    /// Two handlers have the same id.
    #[error("two handlers have the id `{id}`: give one of them another (`id = \"…\"`)")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// An `after` edge leads to a handler that is not there.
    #[error("`{handler}` runs after `{first}`, but no handler `{first}` is registered")]
    UnknownAfter {
        /// The one that waits.
        handler: String,
        /// The one that is missing.
        first: String,
    },
    /// An `after` edge starts at a handler that is not there.
    #[error("`{handler}` is to run after `{first}`, but no handler `{handler}` is registered")]
    UnknownHandler {
        /// The one that is missing.
        handler: String,
        /// The one that it would wait for.
        first: String,
    },
    /// A handler waits for itself.
    #[error("`{handler}` cannot run after itself")]
    AfterItself {
        /// The handler.
        handler: String,
    },
    /// Handlers wait for each other.
    #[error("these handlers wait for each other: {}; remove one `after`", .cycle.join(" → "))]
    Cycle {
        /// Each runs before the next; the first is the last too.
        cycle: Vec<String>,
    },
    /// The two never handle the same event, so the edge could never matter.
    #[error("`{handler}` runs after `{first}`, but they consume no event type in common")]
    NothingInCommon {
        /// The one that waits.
        handler: String,
        /// The one that it waits for.
        first: String,
    },
    /// `after` edges join too many handlers.
    #[error(
        "`after` joins {members} handlers (`{handler}` among them): the limit is {MAX_MEMBERS} (MAX_MEMBERS); emit an \
         event between two parts of them instead"
    )]
    TooManyMembers {
        /// One of them.
        handler: String,
        /// How many they are.
        members: usize,
    },
}
