//! A map from numbers that are spread already, or nearly: offsets and hashes of keys.

use std::collections::HashMap;

use oncue_log::spread::Spread;

/// A map keyed by a number.
pub(crate) type NumberMap<V> = HashMap<u64, V, Spread>;
