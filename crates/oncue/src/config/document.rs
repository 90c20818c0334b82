//! From TOML text to values, and where each key stands in the text.

use std::collections::BTreeMap;

use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::problem::{Findings, KeyPath, Place};

/// How deep tables and lists may stand in each other.
const MOST_LEVELS: usize = 64;

/// A parsed text.
pub(super) struct Document {
    /// The outermost table. What cannot be told in JSON is in `findings`, with a null in its place.
    pub(super) root: Value,
    /// Values that cannot be taken.
    pub(super) findings: Findings,
    /// Where the keys are.
    pub(super) places: Places,
    /// Errors of the syntax. With any, the rest is a guess.
    pub(super) syntax: Vec<(Option<Place>, String)>,
}

/// Where the keys are in the text, and where their values are.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(BTreeMap<KeyPath, (Place, Place)>);

impl Places {
    /// Where a key is.
    pub(super) fn key(&self, key: &KeyPath) -> Option<Place> {
        self.0.get(key).map(|(key, _)| *key)
    }

    /// Where the value of a key is.
    pub(super) fn value(&self, key: &KeyPath) -> Option<Place> {
        self.0.get(key).map(|(_, value)| *value)
    }
}

impl Document {
    /// Reads all that can be read. Never panics, whatever the text.
    pub(super) fn parse(text: &str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut reader = Reader::default();
        let root = reader.table(root.into_inner(), &KeyPath::default(), 0);
        let spans = errors.iter().filter_map(toml::de::Error::span);
        let keys = reader.keys.iter().flat_map(|(_, key, value)| [*key, *value]);
        let places = places(text, spans.map(|span| span.start).chain(keys).collect());
        let syntax = errors.iter().map(|error| {
            let span = error.span().unwrap_or_default();
            let place = error.span().and_then(|span| places.get(&span.start).copied());
            let token = text.get(span).unwrap_or_default().trim();
            let is_shown = !token.is_empty() && token.len() <= 40 && !token.contains('\n');
            (place, if is_shown { format!("`{token}`: {}", error.message()) } else { error.message().to_owned() })
        });
        let syntax = syntax.collect();
        let keys = reader
            .keys
            .into_iter()
            .filter_map(|(path, key, value)| Some((path, (places.get(&key).copied()?, places.get(&value).copied()?))));
        Self { root, findings: reader.findings, places: Places(keys.collect()), syntax }
    }
}

#[derive(Default)]
struct Reader {
    findings: Findings,
    /// Each key, with the offsets of itself and of its value.
    keys: Vec<(KeyPath, usize, usize)>,
}

impl Reader {
    fn table(&mut self, table: DeTable<'_>, path: &KeyPath, level: usize) -> Value {
        let entries = table.into_iter().map(|(key, value)| {
            let path = path.child(key.get_ref());
            self.keys.push((path.clone(), key.span().start, value.span().start));
            let value = self.value(value.into_inner(), &path, level + 1);
            (key.into_inner().into_owned(), value)
        });
        Value::Object(entries.collect())
    }

    fn value(&mut self, value: DeValue<'_>, path: &KeyPath, level: usize) -> Value {
        let wrong = match value {
            DeValue::String(text) => return Value::String(text.into_owned()),
            DeValue::Boolean(value) => return Value::Bool(value),
            DeValue::Datetime(time) => return Value::String(time.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => return Value::from(number),
                Err(_) => format!("`{number}` is too large: the largest number is {}", i64::MAX),
            },
            DeValue::Float(number) => {
                let finite = number.as_str().parse().ok().and_then(serde_json::Number::from_f64);
                match finite {
                    Some(number) => return Value::Number(number),
                    None => format!("`{number}` is not a finite number"),
                }
            }
            DeValue::Array(_) | DeValue::Table(_) if level > MOST_LEVELS => {
                dismantle(value);
                format!("more than {MOST_LEVELS} tables or lists stand in each other")
            }
            DeValue::Table(table) => return self.table(table, path, level),
            DeValue::Array(items) => {
                let items = items.into_iter().enumerate().map(|(index, item)| {
                    let path = path.item(index);
                    self.keys.push((path.clone(), item.span().start, item.span().start));
                    self.value(item.into_inner(), &path, level + 1)
                });
                return Value::Array(items.collect());
            }
        };
        self.findings.value(path, wrong);
        Value::Null
    }
}

/// Drops a value of any depth without a call per level: text can be made whose levels are more than a stack holds.
fn dismantle(value: DeValue<'_>) {
    let mut rest = vec![value];
    while let Some(value) = rest.pop() {
        match value {
            DeValue::Table(table) => rest.extend(table.into_iter().map(|(_, value)| value.into_inner())),
            DeValue::Array(items) => rest.extend(items.into_iter().map(Spanned::into_inner)),
            _ => {}
        }
    }
}

/// The lines and columns of offsets, in one pass over the text.
fn places(text: &str, mut offsets: Vec<usize>) -> BTreeMap<usize, Place> {
    offsets.sort_unstable();
    let mut offsets = offsets.into_iter().peekable();
    let mut places = BTreeMap::new();
    let mut place = Place { line: 1, column: 1 };
    for (at, char) in text.char_indices().chain([(text.len(), '\n')]) {
        while let Some(offset) = offsets.next_if(|offset| *offset <= at) {
            places.insert(offset, place);
        }
        place = match char {
            '\n' => Place { line: place.line.saturating_add(1), column: 1 },
            _ => Place { column: place.column.saturating_add(1), ..place },
        };
    }
    places
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(document: &Document, path: &[&str]) -> [(u32, u32); 2] {
        let path = path.iter().fold(KeyPath::default(), |path, key| path.child(key));
        let both = [document.places.key(&path).unwrap(), document.places.value(&path).unwrap()];
        both.map(|place| (place.line, place.column))
    }

    #[test]
    fn values_and_places_are_those_of_the_text() {
        let document = Document::parse("a = 1\n[t.\"x y\"]\n  é = [2.5, true]\r\n\"ü\" = { k = 'v' } # c\n");
        assert!(document.syntax.len() == 1, "a letter that needs quotes: {:?}", document.syntax);
        let document =
            Document::parse("a = 0x1F\n[t.\"x y\"]\r\n  \"é\" = [2.5, true]\nu = { k = 'v', d = 2020-01-01 }");
        assert!(document.syntax.is_empty() && document.findings.0.is_empty());
        let expected = json!({"a": 31, "t": {"x y": {"é": [2.5, true], "u": {"k": "v", "d": "2020-01-01"}}}});
        assert_eq!(document.root, expected);
        assert_eq!(place(&document, &["a"]), [(1, 1), (1, 5)]);
        assert_eq!(place(&document, &["t", "x y", "é"]), [(3, 3), (3, 9)]);
        assert_eq!(place(&document, &["t", "x y", "u", "k"]), [(4, 7), (4, 11)]);
    }

    #[test]
    fn every_error_of_the_syntax_is_found_with_its_place() {
        let document = Document::parse("a = 5s\nb =\n[c]\n[c]\nd = \"x\ne = 1");
        let found: Vec<_> = document.syntax.iter().filter_map(|(place, _)| *place).map(|place| place.line).collect();
        assert_eq!(found.len(), document.syntax.len());
        for line in [1, 2, 4, 5] {
            assert!(found.contains(&line), "line {line}: {:?}", document.syntax);
        }
        assert!(document.syntax.iter().any(|(_, what)| what.starts_with("`5s`: string values must be quoted")));
    }

    #[test]
    fn numbers_that_json_cannot_tell_are_found() {
        let document = Document::parse("a = 99999999999999999999\nb = [1e999, inf, -nan]\nc = -0x1\n");
        let keys: Vec<_> = document.findings.0.iter().map(|finding| finding.key.as_str()).collect();
        assert_eq!(keys, ["a", "b[0]", "b[1]", "b[2]"]);
        assert!(!document.syntax.is_empty());
    }

    #[test]
    fn no_depth_is_too_deep() {
        let dotted = vec!["a"; 70].join(".");
        let deepest = format!("{}{dotted} = 1{}", format!("{dotted} = {{ ").repeat(70), " }".repeat(70));
        let document = Document::parse(&deepest);
        assert!(document.syntax.is_empty(), "{:?}", document.syntax);
        assert_eq!(document.findings.0.len(), 1);
        for text in [format!("a = {}", "[".repeat(100_000)), vec!["a"; 100_000].join(".") + " = 1"] {
            assert!(!Document::parse(&text).syntax.is_empty());
        }
    }
}
