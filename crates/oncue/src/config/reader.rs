//! Reads tables of values, and collects all that is wrong with them instead of stopping at the first.

use std::{collections::BTreeMap, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    duration,
    problem::{Findings, KeyPath},
    suggestion::suggestion,
};

/// Longest text of a value that a message repeats.
const LONGEST_SHOWN: usize = 40;

/// Reads one value: none if it is wrong, and then the findings say why.
pub(super) type Read<T> = fn(&Value, &KeyPath, &mut Findings) -> Option<T>;

/// A table whose keys are read one by one; those that nobody asked for are unknown.
pub(super) struct Table<'a> {
    values: &'a Map<String, Value>,
    pub(super) path: &'a KeyPath,
    pub(super) findings: &'a mut Findings,
    asked: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn of(value: &'a Value, path: &'a KeyPath, findings: &'a mut Findings) -> Option<Self> {
        match value {
            Value::Object(values) => Some(Self { values, path, findings, asked: Vec::new() }),
            other => {
                findings.value(path, format!("{} is not a table", shown(other)));
                None
            }
        }
    }

    /// The value of `key`; none if it is not there (a null is not), or wrong.
    pub(super) fn read<T>(&mut self, key: &'static str, read: Read<T>) -> Option<T> {
        self.asked.push(key);
        let value = self.values.get(key).filter(|value| !value.is_null())?;
        read(value, &self.path.child(key), self.findings)
    }

    /// As [`read`](Self::read), for a key that must be there.
    pub(super) fn required<T>(&mut self, key: &'static str, example: &str, read: Read<T>) -> Option<T> {
        let value = self.read(key, read);
        if self.values.get(key).is_none_or(Value::is_null) {
            self.findings.value(self.path, format!("`{key}` is missing: add {key} = {example}"));
        }
        value
    }

    /// A table of tables, by name.
    pub(super) fn named<T>(&mut self, key: &'static str, read: Read<T>) -> BTreeMap<String, T> {
        self.asked.push(key);
        let path = self.path.child(key);
        let Some(value) = self.values.get(key) else { return BTreeMap::new() };
        let Some(table) = Table::of(value, &path, self.findings) else { return BTreeMap::new() };
        let each = table
            .values
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), read(value, &path.child(name), table.findings)?)));
        each.collect()
    }

    /// Finds the keys that nobody asked for.
    pub(super) fn finish(self) {
        for (key, value) in self.values.iter().filter(|(key, _)| !self.asked.contains(&key.as_str())) {
            let meant = suggestion(key, self.asked.iter().copied(), "keys");
            let dotted = if value.is_object() && !self.path.as_str().is_empty() {
                "; a name with a dot needs quotes, as [handlers.\"order.mail\"]"
            } else {
                ""
            };
            self.findings.key(self.path.child(key), format!("unknown key `{key}`: {meant}{dotted}"));
        }
    }
}

/// A value as a message shows it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => {
            let text = other.to_string();
            let cut: String = text.chars().take(LONGEST_SHOWN).collect();
            if cut.len() < text.len() { format!("{cut}…") } else { text }
        }
    }
}

pub(super) fn duration(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<Duration> {
    let read = match value {
        Value::String(text) => duration::parse(text),
        Value::Number(number) => Err(format!("{number} has no unit: write a duration as text, as \"{number}s\"")),
        other => Err(format!("{} is not a duration such as \"200ms\", \"5s\" or \"1m30s\"", shown(other))),
    };
    read.map_err(|what| findings.value(path, what)).ok()
}

/// A list of durations.
pub(super) fn durations(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<Vec<Duration>> {
    list(value, path, findings, "durations such as [\"1s\", \"10s\"]", duration)
}

/// A list of what `item` reads. One that is wrong is nothing much in it: the findings stop the whole.
fn list<T: Default>(
    value: &Value,
    path: &KeyPath,
    findings: &mut Findings,
    what: &str,
    item: impl Fn(&Value, &KeyPath, &mut Findings) -> Option<T>,
) -> Option<Vec<T>> {
    let Value::Array(items) = value else {
        findings.value(path, format!("{} is not a list of {what}", shown(value)));
        return None;
    };
    let read = |(index, value)| item(value, &path.item(index), findings).unwrap_or_default();
    Some(items.iter().enumerate().map(read).collect())
}

/// A whole number that fits `T`.
pub(super) fn whole<T: TryFrom<u64>>(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<T> {
    let read = value.as_u64().and_then(|number| T::try_from(number).ok());
    if read.is_none() {
        let limit = if value.is_u64() { "below 4294967296" } else { "of 1 or more, without quotes" };
        findings.value(path, format!("{} is not a whole number {limit}", shown(value)));
    }
    read
}

pub(super) fn number(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<f64> {
    if value.as_f64().is_none() {
        findings.value(path, format!("{} is not a number such as 2 or 0.5", shown(value)));
    }
    value.as_f64()
}

pub(super) fn boolean(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<bool> {
    if !value.is_boolean() {
        findings.value(path, format!("{} is neither true nor false", shown(value)));
    }
    value.as_bool()
}

pub(super) fn text(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<String> {
    if !value.is_string() {
        findings.value(path, format!("{} is not a text in quotes", shown(value)));
    }
    value.as_str().map(str::to_owned)
}

/// A list of texts.
pub(super) fn texts(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<Vec<String>> {
    list(value, path, findings, "texts such as [\"a\", \"b\"]", text)
}

/// One of `choices`, by the name that serde gives it.
pub(super) fn choice<T: Copy + Serialize>(
    value: &Value,
    path: &KeyPath,
    findings: &mut Findings,
    choices: &[T],
) -> Option<T> {
    let name = |choice: &T| serde_json::to_value(choice).ok().and_then(|name| name.as_str().map(str::to_owned));
    let named: Vec<(String, T)> = choices.iter().filter_map(|choice| Some((name(choice)?, *choice))).collect();
    let found = named.iter().find(|(name, _)| value.as_str() == Some(name));
    if found.is_none() {
        let names = named.iter().map(|(name, _)| name.as_str());
        let meant = suggestion(value.as_str().unwrap_or_default(), names, "values");
        findings.value(path, format!("{} is no value of this key: {meant}", shown(value)));
    }
    found.map(|(_, choice)| *choice)
}

/// What serde makes of it.
pub(super) fn any<T: DeserializeOwned>(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<T> {
    serde_json::from_value(value.clone()).map_err(|error| findings.value(path, error.to_string())).ok()
}

/// Reads a value that stands alone, as an override that is stored as JSON.
///
/// # Errors
/// All that is wrong with it.
pub(super) fn alone<T>(value: &Value, read: Read<T>) -> Result<T, String> {
    let mut findings = Findings::default();
    let read = read(value, &KeyPath::default(), &mut findings);
    read.filter(|_| findings.0.is_empty()).ok_or_else(|| findings.texts().join("; "))
}
