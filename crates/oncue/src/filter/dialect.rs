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
            "prefix" => {
                map.next_value_seed(PairsReader { test: Test::Prefix, place: place("prefix"), reader: self })?
            }
            "suffix" => {
                map.next_value_seed(PairsReader { test: Test::Suffix, place: place("suffix"), reader: self })?
            }
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

#[cfg(test)]
mod tests {
    use serde::de::{DeserializeSeed, value::Error};

    use super::*;

    /// As the specification writes them, section 3.2.4.1.1.
    const EXAMPLES: [&str; 6] = [
        r#"{"exact":{"subject":"https://github.com/cloudevents/spec","type":"com.github.push"}}"#,
        r#"{"prefix":{"subject":"https://github.com/cloudevents","type":"com.github."}}"#,
        r#"{"suffix":{"subject":"/cloudevents/spec","type":".created"}}"#,
        r#"{"all":[{"exact":{"type":"com.github.push"}},{"exact":{"subject":"https://github.com/cloudevents/spec"}}]}"#,
        r#"{"any":[{"exact":{"type":"com.github.push"}},{"exact":{"subject":"https://github.com/cloudevents/spec"}}]}"#,
        r#"{"not":{"exact":{"type":"com.github.push"}}}"#,
    ];

    #[test]
    fn the_specification_s_examples_go_there_and_back() {
        for json in EXAMPLES {
            let filter: Filter = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&filter).unwrap(), json);
            assert_eq!(filter.validate(), Ok(()));
            let toml = toml::to_string(&filter).unwrap();
            assert_eq!(toml::from_str::<Filter>(&toml).unwrap(), filter, "{toml}");
        }
    }

    #[test]
    fn toml_reads_as_one_would_write_it() {
        let toml = r#"all = [{ exact = { type = "x" } }, { not = { prefix = { tenant = "t" } } }]"#;
        let expected = Filter::exact("type", "x").and(!Filter::prefix("tenant", "t"));
        assert_eq!(toml::from_str::<Filter>(toml).unwrap(), expected);
    }

    #[test]
    fn what_is_built_is_what_is_read() {
        let filter =
            Filter::any([Filter::suffix("subject", "/1"), !Filter::exact("type", "a")]).and(Filter::prefix("id", "x"));
        let json = serde_json::to_value(&filter).unwrap();
        assert_eq!(serde_json::from_value::<Filter>(json).unwrap(), filter);
    }

    #[test]
    fn what_is_no_filter_is_refused_with_its_place() {
        for (json, expected) in [
            (r#"{}"#, "at the top: has 0 dialects"),
            (r#"{"exact":{"type":"a"},"prefix":{"type":"a"}}"#, "at the top: has 2 dialects and must have one"),
            (r#"{"sql":"TRUE"}"#, "at the top: `sql` is no filter dialect here: there are exact"),
            (r#"{"all":[{"not":{"like":{"type":"a"}}}]}"#, "at all[0].not: `like` is no filter dialect"),
            (r#"{"all":[]}"#, "at all: the list is empty"),
            (r#"{"not":{"any":[]}}"#, "at not.any: the list is empty"),
            (r#"{"any":[{"exact":{"type":"a"}},{"exact":{}}]}"#, "at any[1].exact: names no attribute"),
            (r#"{"exact":{"Type":"a"}}"#, "at exact: `Type` is no attribute name"),
            (r#"{"suffix":{"type":""}}"#, "at suffix: the value for `type` is empty"),
            (r#"{"exact":{"type":"a","id":"1","type":"b"}}"#, "at exact: `type` stands twice"),
            (r#"{"exact":{"type":3}}"#, "expected a string"),
            (r#"{"exact":"type"}"#, "expected attributes and the texts to compare them with, at exact"),
            (r#"{"all":{"exact":{"type":"a"}}}"#, "expected a list of filters, at all"),
            (r#"["exact"]"#, "expected a filter, such as"),
        ] {
            let error = serde_json::from_str::<Filter>(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn a_filter_of_too_many_parts_is_refused() {
        let json = |parts| format!(r#"{{"any":[{}]}}"#, vec![r#"{"exact":{"type":"a"}}"#; parts].join(","));
        assert!(serde_json::from_str::<Filter>(&json(MAX_FILTER_NODES - 1)).is_ok());
        let error = serde_json::from_str::<Filter>(&json(MAX_FILTER_NODES)).unwrap_err().to_string();
        assert!(error.contains("at any[255].exact: more than 256 parts (MAX_FILTER_NODES)"), "{error}");
    }

    #[test]
    fn nesting_has_a_limit_in_each_format() {
        let json = |depth| {
            format!("{}{}{}", r#"{"not":"#.repeat(depth - 1), r#"{"exact":{"type":"a"}}"#, "}".repeat(depth - 1))
        };
        assert!(serde_json::from_str::<Filter>(&json(MAX_FILTER_DEPTH)).is_ok());
        let error = serde_json::from_str::<Filter>(&json(MAX_FILTER_DEPTH + 1)).unwrap_err().to_string();
        assert!(error.contains("not.not: more than 16 filters within one another"), "{error}");
        let toml = format!(
            "{}{}{}",
            "not = ".to_owned() + &"{ not = ".repeat(MAX_FILTER_DEPTH),
            "{ exact = { type = 'a' } }",
            " }".repeat(MAX_FILTER_DEPTH)
        );
        assert!(toml::from_str::<Filter>(&toml).unwrap_err().to_string().contains("more than 16 filters"));
    }

    /// A format without any limit: an endless `{"not": {"not": …`, or `{"all": [{"all": [ …`.
    #[derive(Clone, Copy)]
    struct Endless(&'static str);

    impl<'de> Deserializer<'de> for Endless {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.visit_map(self)
        }

        fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.visit_seq(self)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct tuple tuple_struct map struct enum identifier ignored_any
        }
    }

    impl<'de> MapAccess<'de> for Endless {
        type Error = Error;

        fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
            seed.deserialize(serde::de::value::StrDeserializer::new(self.0)).map(Some)
        }

        fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
            seed.deserialize(*self)
        }
    }

    impl<'de> SeqAccess<'de> for Endless {
        type Error = Error;

        fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
            seed.deserialize(*self).map(Some)
        }
    }

    #[test]
    fn an_endless_filter_is_refused() {
        for dialect in ["not", "all", "any"] {
            let error = Filter::deserialize(Endless(dialect)).unwrap_err().to_string();
            assert!(error.contains("more than 16 filters within one another (MAX_FILTER_DEPTH)"), "{error}");
        }
    }
}
