//! Models as JSON.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};
use thiserror::Error;

use crate::{
    builder::{ModelBuilder, ModelError, Sojourn, Transition},
    model::{Discount, Model},
};

/// Why a text is no model.
#[derive(Debug, Error)]
pub enum JsonError {
    /// It is no JSON, or not that of a model.
    #[error(transparent)]
    Form(#[from] serde_json::Error),
    /// Both kinds of discount.
    #[error("the model has a `discount` (per step) and a `rate` (per unit of time): give one of them")]
    TwoDiscounts,
    /// Two states, or two actions, have one name.
    #[error("two {what} have the name `{name}`: give each its own")]
    TwoOfAName {
        /// States or actions.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A transition speaks of what is not there.
    #[error("transitions[{line}]: there is no {what} {name}: there are {known}")]
    Unknown {
        /// Which transition, from 0 on.
        line: usize,
        /// State or action.
        what: &'static str,
        /// What it says.
        name: String,
        /// How many there are, or which.
        known: String,
    },
    /// The start is not there.
    #[error("start: there is no state {name}: there are {known}")]
    UnknownStart {
        /// What it says.
        name: String,
        /// How many there are, or which.
        known: String,
    },
    /// What it says is no model.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl Model {
    /// A model from JSON:
    ///
    /// ```
    /// let model = oncue_mdp::Model::from_json(br#"{
    ///     "discount": 0.9,
    ///     "states": ["new", "worn"],
    ///     "actions": ["run", "replace"],
    ///     "transitions": [
    ///         ["new", "run", "new", 0.7, 5],
    ///         ["new", "run", "worn", 0.3, 5],
    ///         ["worn", "run", "worn", 1, 1],
    ///         ["worn", "replace", "new", 1, -1]
    ///     ]
    /// }"#)?;
    /// assert_eq!((model.states(), model.choices(), model.transitions()), (2, 3, 4));
    /// # Ok::<(), oncue_mdp::JsonError>(())
    /// ```
    ///
    /// A transition is `[state, action, next state, probability, reward]`; states and actions go by their names or by their
    /// numbers, from 0 on, and instead of a list of names there may be their number. Where sojourns take time, it has a sixth
    /// part, the time in the state before it: a number, or `{"exponential": mean}`; and instead of `discount` there is
    /// `rate`, β in e^(−βτ). With neither, nothing is discounted. `start` says where executing begins.
    ///
    /// # Errors
    ///
    /// If it is no model. The message says which line or which state and action is wrong.
    pub fn from_json(text: &[u8]) -> Result<Self, JsonError> {
        serde_json::from_slice::<Written>(text)?.model()
    }
}

/// A model as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a model: an object with `states`, `actions` and `transitions`")]
struct Written {
    discount: Option<f64>,
    rate: Option<f64>,
    start: Option<Reference>,
    states: Names,
    actions: Names,
    transitions: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a list of names, or a number of them")]
enum Names {
    Count(u32),
    List(Vec<String>),
}

/// A name or a number.
enum Reference {
    Number(u64),
    Name(String),
}

struct Line {
    state: Reference,
    action: Reference,
    next: Reference,
    probability: f64,
    reward: f64,
    sojourn: Sojourn,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a time, or {\"exponential\": mean}")]
enum WrittenSojourn {
    Fixed(f64),
    Exponential { exponential: f64 },
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Reference;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or a number from 0 on")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Reference, E> {
                Ok(Reference::Number(number))
            }

            fn visit_str<E>(self, name: &str) -> Result<Reference, E> {
                Ok(Reference::Name(name.to_owned()))
            }
        }
        from.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Line;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a transition: [state, action, next state, probability, reward], with a time where it takes some",
                )
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Line, A::Error> {
                let short = |count| A::Error::invalid_length(count, &Parts);
                let line = Line {
                    state: parts.next_element()?.ok_or_else(|| short(0))?,
                    action: parts.next_element()?.ok_or_else(|| short(1))?,
                    next: parts.next_element()?.ok_or_else(|| short(2))?,
                    probability: parts.next_element()?.ok_or_else(|| short(3))?,
                    reward: parts.next_element()?.ok_or_else(|| short(4))?,
                    sojourn: match parts.next_element()? {
                        None => Sojourn::Fixed(1.0),
                        Some(WrittenSojourn::Fixed(time)) => Sojourn::Fixed(time),
                        Some(WrittenSojourn::Exponential { exponential }) => Sojourn::Exponential(exponential),
                    },
                };
                match parts.next_element::<serde::de::IgnoredAny>()? {
                    None => Ok(line),
                    Some(_) => Err(short(7)),
                }
            }
        }
        from.deserialize_seq(Parts)
    }
}

/// Names, and where each is.
struct Known<'a> {
    what: &'static str,
    count: u64,
    numbers: HashMap<&'a str, usize>,
}

impl<'a> Known<'a> {
    fn of(names: &'a Names, what: &'static str, plural: &'static str) -> Result<Self, JsonError> {
        let list = match names {
            Names::Count(count) => return Ok(Self { what, count: u64::from(*count), numbers: HashMap::new() }),
            Names::List(list) => list,
        };
        let mut numbers = HashMap::with_capacity(list.len());
        for (number, name) in list.iter().enumerate() {
            if numbers.insert(name.as_str(), number).is_some() {
                return Err(JsonError::TwoOfAName { what: plural, name: name.clone() });
            }
        }
        Ok(Self { what, count: list.len() as u64, numbers })
    }

    fn find(&self, reference: &Reference) -> Option<usize> {
        match reference {
            Reference::Number(number) => usize::try_from(*number).ok().filter(|_| *number < self.count),
            Reference::Name(name) => self.numbers.get(name.as_str()).copied(),
        }
    }

    fn find_in(&self, line: usize, reference: &Reference) -> Result<usize, JsonError> {
        self.find(reference).ok_or_else(|| JsonError::Unknown {
            line,
            what: self.what,
            name: reference.to_string(),
            known: self.to_string(),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}

impl fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        if self.numbers.is_empty() || self.numbers.len() > SHOWN {
            let named = if self.numbers.is_empty() { "without names" } else { "of other names" };
            return write!(f, "{} of them, {named}", self.count);
        }
        let mut names: Vec<_> = self.numbers.iter().collect();
        names.sort_by_key(|(_, number)| **number);
        let names: Vec<_> = names.iter().map(|(name, _)| format!("`{name}`")).collect();
        f.write_str(&names.join(", "))
    }
}

impl Written {
    fn model(self) -> Result<Model, JsonError> {
        let discount = match (self.discount, self.rate) {
            (Some(_), Some(_)) => return Err(JsonError::TwoDiscounts),
            (_, Some(rate)) => Discount::PerTime(rate),
            (factor, None) => Discount::PerStep(factor.unwrap_or(1.0)),
        };
        let (states, actions) =
            (Known::of(&self.states, "state", "states")?, Known::of(&self.actions, "action", "actions")?);
        let mut transitions = Vec::with_capacity(self.transitions.len());
        for (line, written) in self.transitions.iter().enumerate() {
            transitions.push(Transition {
                state: states.find_in(line, &written.state)?,
                action: actions.find_in(line, &written.action)?,
                next: states.find_in(line, &written.next)?,
                probability: written.probability,
                reward: written.reward,
                sojourn: written.sojourn,
            });
        }
        let count = usize::try_from(states.count).unwrap_or(usize::MAX);
        let mut builder = ModelBuilder::new(count, discount);
        if let Some(start) = &self.start {
            let unknown = || JsonError::UnknownStart { name: start.to_string(), known: states.to_string() };
            builder = builder.start(states.find(start).ok_or_else(unknown)?);
        }
        for (names, named) in [(&self.states, true), (&self.actions, false)] {
            if let Names::List(list) = names {
                builder = if named { builder.state_names(list.clone()) } else { builder.action_names(list.clone()) };
            }
        }
        builder.transitions(transitions)?;
        Ok(builder.build()?)
    }
}
