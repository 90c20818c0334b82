//! What an adaptive concurrency limit tells of itself.

use std::{fmt, time::Duration};

use super::Watched;

/// Why an adaptive limit is what it is: what its last look said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitReason {
    /// Nothing was measured yet: it is what it was told to begin with.
    Initial,
    /// Calls take hardly longer than without load: it grew, or is as large as it may be.
    Grew,
    /// Calls take longer than without load, since they wait for each other: it shrank.
    Latency,
    /// A call was throttled or took too long: it shrank.
    Overload,
    /// Less than half of it was in use, so nothing is known of more: it stayed.
    Unused,
    /// It is half of what it was, to measure how long calls take without load.
    Probing,
}

impl LimitReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [Self::Initial, Self::Grew, Self::Latency, Self::Overload, Self::Unused, Self::Probing];
}

impl fmt::Display for LimitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initial => "initial",
            Self::Grew => "grew",
            Self::Latency => "latency",
            Self::Overload => "overload",
            Self::Unused => "unused",
            Self::Probing => "probing",
        })
    }
}

/// An adaptive limit at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitState {
    /// How many calls may run at once.
    pub limit: usize,
    /// Why.
    pub reason: LimitReason,
    /// How long calls took, on average, when it was looked at last.
    pub latency: Option<Duration>,
    /// How long they take without load, as far as that is known.
    pub no_load: Option<Duration>,
    /// How often it was decided for which reason, by the order of [`LimitReason::ALL`].
    pub decided: [u64; LimitReason::ALL.len()],
}

/// An adaptive limit, to look at. A layer that is one hands it out ([`Layer::limits`](super::Layer::limits)).
pub type LimitHandle = Watched<LimitState>;
