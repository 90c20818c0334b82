//! What is looked at of an event to learn from it.

use oncue_learn::Features;
use serde_json::Value;

use crate::event::Envelope;

/// Texts that are longer are names of single things, rather than kinds.
const SHORT: usize = 24;
/// How deep data is looked into, if nothing is said.
const DEPTH: usize = 3;
/// How many parts of a list are.
const WIDTH: usize = 4;
const HOUR_MICROS: i64 = 3_600_000_000;

/// Type, source, hour and weekday (UTC); and of JSON data what the paths name, or without any all that is short. Numbers
/// stand for themselves and for their magnitude, so that what is not linear in them can be learned.
pub(crate) fn of(event: &Envelope, paths: &[String]) -> Features {
    let mut features = Features::default();
    features.category("type", event.event_type());
    features.category("source", event.source());
    if let Some(time) = event.time() {
        let hours = time.as_micros().div_euclid(HOUR_MICROS);
        features.category("hour", &hours.rem_euclid(24).to_string());
        features.category("weekday", &hours.div_euclid(24).rem_euclid(7).to_string());
    }
    of_data(&mut features, event, paths);
    features
}

/// The type, and of the data the same: for models that have few slots, in which hours and sources would stand in the way.
pub(crate) fn kind_of(event: &Envelope, paths: &[String]) -> Features {
    let mut features = Features::default();
    features.category("type", event.event_type());
    of_data(&mut features, event, paths);
    features
}

fn of_data(features: &mut Features, event: &Envelope, paths: &[String]) {
    let data: Value = serde_json::from_slice(event.data()).unwrap_or(Value::Null);
    if paths.is_empty() {
        all(features, "", &data, (event.key(), DEPTH));
    }
    for path in paths {
        match part(&data, path) {
            Some(value @ (Value::Array(_) | Value::Object(_))) => {
                let size = value.as_array().map_or_else(|| value.as_object().map_or(0, serde_json::Map::len), Vec::len);
                number(features, path, size as f64);
            }
            Some(value) => one(features, path, value),
            None => features.category(path, "\0missing"),
        }
    }
}

/// A part of an event's JSON data, by its path.
pub(crate) fn part_of_data(event: &Envelope, path: &str) -> Option<Value> {
    part(&serde_json::from_slice(event.data()).ok()?, path).cloned()
}

fn part<'a>(data: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(data, |value, part| match value {
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        value => value.get(part),
    })
}

fn all(features: &mut Features, path: &str, value: &Value, (key, depth): (Option<&str>, usize)) {
    let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(parts) if depth > 0 => {
            parts.iter().for_each(|(name, part)| all(features, &child(name), part, (key, depth - 1)));
        }
        Value::Array(list) if depth > 0 => {
            number(features, path, list.len() as f64);
            for (place, part) in list.iter().take(WIDTH).enumerate() {
                all(features, &child(&place.to_string()), part, (key, depth - 1));
            }
        }
        Value::Object(_) | Value::Array(_) => {}
        Value::String(text) if text.len() > SHORT || Some(text.as_str()) == key => {}
        Value::Null if path.is_empty() => {}
        value => one(features, path, value),
    }
}

fn one(features: &mut Features, path: &str, value: &Value) {
    match value {
        Value::Number(value) => number(features, path, value.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => features.category(path, text),
        Value::Bool(yes) => features.category(path, if *yes { "\0true" } else { "\0false" }),
        Value::Null | Value::Array(_) | Value::Object(_) => features.category(path, "\0null"),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "at most 64")]
fn number(features: &mut Features, path: &str, value: f64) {
    features.number(path, value);
    let magnitude = value.abs().log2().floor().clamp(-32.0, 64.0) as i8;
    let sign = if value < 0.0 { "-" } else { "" };
    features.category(path, &format!("\0{sign}{magnitude}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_data(data: &str, paths: &[&str]) -> Features {
        let event = Envelope::builder("order.created").subject("o-1").data(data.to_owned()).build().unwrap();
        of(&event, &paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>())
    }

    /// Features beyond those of the envelope.
    fn count(data: &str, paths: &[&str]) -> usize {
        of_data(data, paths).all().len() - of_data("", &[]).all().len()
    }

    #[test]
    fn what_is_short_is_looked_at_and_names_are_not() {
        assert_eq!(count(r#"{"cents": 5}"#, &[]), 2, "a number and its magnitude");
        assert_eq!(count(r#"{"bank": "north", "paid": true, "note": null}"#, &[]), 3);
        assert_eq!(count(r#"{"order_id": "o-1", "customer": "08c5351a6aca1c1589a38f244edeee9d"}"#, &[]), 0);
        // How many there are, and of each its own two.
        assert_eq!(count(r#"{"payments": [{"cents": 5}, {"cents": 6}]}"#, &[]), 6);
        assert_eq!(count("not JSON", &[]), 0);
        assert_eq!(count("[[[[[[1]]]]]]", &[]), 6, "not deeper than three");
    }

    #[test]
    fn paths_name_parts_and_what_is_missing_is_told() {
        let data = r#"{"payments": [{"method": "voucher"}], "id": "08c5351a6aca1c1589a38f244edeee9d"}"#;
        assert_eq!(count(data, &["payments.0.method"]), 1);
        assert_eq!(count(data, &["payments", "id"]), 3, "how many, its magnitude, and a text of any length");
        assert_ne!(of_data(data, &["payments.7.method"]), of_data(data, &["payments.0.method"]));
        assert_eq!(of_data(data, &["nothing"]), of_data("{}", &["nothing"]));
        assert_ne!(of_data(r#"{"a": null}"#, &["a"]), of_data("{}", &["a"]));
    }

    #[test]
    fn numbers_beyond_all_bounds_are_no_numbers() {
        for value in ["0", "-0.0", "1e308", "-1e-300", "18446744073709551615"] {
            let features = of_data(&format!(r#"{{"a": {value}}}"#), &["a"]);
            assert!(features.all().iter().all(|feature| feature.number.is_none_or(f64::is_finite)), "{value}");
        }
    }
}
