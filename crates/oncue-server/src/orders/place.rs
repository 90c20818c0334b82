//! How far each input was read. Written with the events, in the same frame, so that it is never ahead and never behind.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::gateway::Gateway;

/// The id of the order system's source in the log.
pub(super) const SOURCE: &str = "orders";

/// How far one input was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Bytes.
    pub(super) bytes: u64,
    /// Lines.
    pub(super) line: u64,
    /// Lines among these that were malformed.
    pub(super) malformed: u64,
    /// Tells the bytes before this place from others.
    pub(super) hash: u64,
}

/// How far every input of a directory was read, by the input's name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Places {
    inputs: BTreeMap<String, Place>,
    /// How the gateway fails, as the last run that wrote here was told.
    #[serde(default)]
    pub(super) gateway: Option<Gateway>,
}

impl Places {
    /// Reads what [`to_text`](Self::to_text) wrote; nothing was written before the first batch.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    pub(super) fn to_text(&self) -> String {
        // A map of strings and numbers can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// How far this input was read.
    pub(super) fn of(&self, input: &str) -> Place {
        self.inputs.get(input).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, input: &str, place: Place) {
        self.inputs.insert(input.to_owned(), place);
    }

    /// Malformed lines of all inputs.
    pub(super) fn malformed(&self) -> u64 {
        self.inputs.values().map(|place| place.malformed).sum()
    }

    /// The inputs' names.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &str> {
        self.inputs.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_there_and_back() {
        let mut places = Places::default();
        let place = Place { bytes: u64::MAX, line: 7, malformed: 2, hash: u64::MAX };
        places.set("stdin", place);
        places.set("simulated", Place { malformed: 3, ..Place::default() });
        let read = Places::parse(&places.to_text()).unwrap();
        assert_eq!((read.of("stdin"), read.of("other"), read.malformed()), (place, Place::default(), 5));
        assert_eq!(Places::parse("").unwrap(), Places::default());
        assert!(Places::parse("{}").is_err() && Places::parse("x").is_err());
    }
}
