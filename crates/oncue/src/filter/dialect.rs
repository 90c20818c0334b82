//! Filters as the specification writes them: one object with one member, named after the dialect.

use std::{cell::Cell, fmt};

use serde::{
    Deserialize, Serialize, Serializer,
    de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
    ser::{Error as _, SerializeMap as _},
};

use super::{
    Expression, Filter, Test,
    attribute::Attribute,
    validity::{InvalidFilter, MAX_FILTER_DEPTH, MAX_FILTER_NODES, Place, Step, at, check_pairs},
};

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Serialize for Expression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Self::Refused(refused) = self {
            return Err(S::Error::custom(refused));
        }
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::Attributes(test, pairs) => map.serialize_entry(test.dialect(), &Pairs(pairs))?,
            Self::All(parts) => map.serialize_entry("all", parts)?,
            Self::Any(parts) => map.serialize_entry("any", parts)?,
            Self::Not(part) => map.serialize_entry("not", part)?,
            Self::Refused(_) => {}
        }
        map.end()
    }
}

struct Pairs<'a>(&'a [(Attribute, Box<str>)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(attribute, value)| (attribute.name(), value)))
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let nodes = Cell::new(0);
        Reader { above: None, depth: 1, nodes: &nodes }.deserialize(deserializer).map(Self)
    }
}

/// Reads one filter, which stands at `above`. The limits are watched while reading: whatever the format allows, nothing
/// recurses further.
#[derive(Clone, Copy)]
struct Reader<'a> {
    above: Option<&'a Place<'a>>,
    depth: usize,
    /// Parts so far.
    nodes: &'a Cell<usize>,
}

impl<'a> Reader<'a> {
    fn count(&self, place: Option<&Place<'_>>) -> Result<(), InvalidFilter> {
        self.nodes.set(self.nodes.get() + 1);
        if self.nodes.get() > MAX_FILTER_NODES { Err(InvalidFilter::TooLarge { at: at(place) }) } else { Ok(()) }
    }

    fn below<'b>(self, place: &'b Place<'b>) -> Reader<'b>
    where
        'a: 'b,
    {
        Reader { above: Some(place), depth: self.depth + 1, nodes: self.nodes }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Expression;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Expression, D::Error> {
        if self.depth > MAX_FILTER_DEPTH {
            return Err(D::Error::custom(InvalidFilter::TooDeep { at: at(self.above) }));
        }
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Expression;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a filter, such as {\"exact\": {\"type\": \"order.created\"}}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Expression, A::Error> {
        let Some(dialect) = map.next_key::<String>()? else {
            return Err(A::Error::custom(InvalidFilter::Dialects { at: at(self.above), found: 0 }));
        };
        let place = |dialect| Place { above: self.above, step: Step::Dialect(dialect) };
        let expression = match dialect.as_str() {
            "exact" => map.next_value_seed(PairsReader { test: Test::Exact, place: place("exact"), reader: self })?,
            "prefix" => map.next_value_seed(PairsReader { test: Test::Prefix, place: place("prefix"), reader: self })?,
            "suffix" => map.next_value_seed(PairsReader { test: Test::Suffix, place: place("suffix"), reader: self })?,
            "all" => Expression::All(map.next_value_seed(ListReader { place: place("all"), reader: self })?),
            "any" => Expression::Any(map.next_value_seed(ListReader { place: place("any"), reader: self })?),
            "not" => {
                self.count(self.above).map_err(A::Error::custom)?;
                Expression::Not(Box::new(map.next_value_seed(self.below(&place("not")))?))
            }
            _ => return Err(A::Error::custom(InvalidFilter::UnknownDialect { at: at(self.above), dialect })),
        };
        if map.next_key::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom(InvalidFilter::Dialects { at: at(self.above), found: 2 }));
        }
        Ok(expression)
    }
}

/// Reads the attributes of `exact`, `prefix` or `suffix`.
struct PairsReader<'a> {
    test: Test,
    place: Place<'a>,
    reader: Reader<'a>,
}

impl<'de> DeserializeSeed<'de> for PairsReader<'_> {
    type Value = Expression;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Expression, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PairsReader<'_> {
    type Value = Expression;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attributes and the texts to compare them with, at {}", self.place)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Expression, A::Error> {
        let mut pairs: Vec<(Attribute, Box<str>)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            self.reader.count(Some(&self.place)).map_err(A::Error::custom)?;
            pairs.push((Attribute::named(&name), map.next_value()?));
        }
        pairs.sort_by(|(one, _), (other, _)| one.name().cmp(other.name()));
        check_pairs(&self.place, &pairs).map_err(A::Error::custom)?;
        Ok(Expression::Attributes(self.test, pairs))
    }
}

/// Reads the filters of `all` or `any`.
struct ListReader<'a> {
    place: Place<'a>,
    reader: Reader<'a>,
}

impl<'de> DeserializeSeed<'de> for ListReader<'_> {
    type Value = Vec<Expression>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.reader.count(self.reader.above).map_err(D::Error::custom)?;
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ListReader<'_> {
    type Value = Vec<Expression>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of filters, at {}", self.place)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut parts = Vec::new();
        loop {
            let place = Place { above: Some(&self.place), step: Step::Index(parts.len()) };
            match list.next_element_seed(self.reader.below(&place))? {
                Some(part) => parts.push(part),
                None if parts.is_empty() => {
                    return Err(A::Error::custom(InvalidFilter::EmptyList { at: self.place.to_string() }));
                }
                None => return Ok(parts),
            }
        }
    }
}
