//! What an edited event is.

use oncue::Envelope;
use serde_json::Value;

use super::EditError;

/// A change: `--set NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Set {
    /// An attribute; an empty value removes it.
    Attribute {
        /// Its name, as `CloudEvents` has it.
        name: String,
        /// Its new value.
        value: String,
    },
    /// A field of JSON data.
    Field {
        /// The names from the data on: at least one.
        path: Vec<String>,
        /// Its new value.
        value: Value,
    },
}

impl Set {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, value) =
            text.split_once('=').ok_or("write `NAME=VALUE`, such as `subject=o-1` or `data.total_cents=4200`")?;
        match name.split_once('.') {
            Some(("data", path)) if path.split('.').all(|step| !step.is_empty()) => {
                let path = path.split('.').map(str::to_owned).collect();
                let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
                Ok(Self::Field { path, value })
            }
            Some(_) => Err(format!("`{name}` is neither an attribute nor a field such as `data.total_cents`")),
            None if name == "data" => {
                Err("give all of the data with --data-file, or a field as `data.FIELD`".to_owned())
            }
            None => Ok(Self::Attribute { name: name.to_owned(), value: value.to_owned() }),
        }
    }
}

/// The event with other data and with these changes, in order.
pub(super) fn edition(event: &Envelope, data: Option<Vec<u8>>, changes: &[Set]) -> Result<Envelope, EditError> {
    let mut attributes: Vec<_> =
        event.attributes().map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
    let is_typed_anew =
        changes.iter().any(|set| matches!(set, Set::Attribute { name, .. } if name == "datacontenttype"));
    let mut bytes = match data {
        Some(data) => {
            let was_json = serde_json::from_slice::<Value>(event.data()).is_ok();
            match serde_json::from_slice::<Value>(&data) {
                Err(error) if was_json && !is_typed_anew => return Err(EditError::NotJson(error)),
                _ => data.into(),
            }
        }
        None => event.data().clone(),
    };
    for change in changes {
        match change {
            Set::Attribute { name, value } => {
                attributes.retain(|(known, _)| known != name);
                if !value.is_empty() {
                    attributes.push((name.clone(), value.clone()));
                }
            }
            Set::Field { path, value } => bytes = with_field(&bytes, path, value)?.into(),
        }
    }
    let attributes = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Ok(Envelope::from_binary(attributes, bytes)?)
}

/// The JSON data with another value of a field. A last field that an object does not have is added.
fn with_field(data: &[u8], path: &[String], value: &Value) -> Result<String, EditError> {
    let field = || format!("data.{}", path.join("."));
    let mut json: Value = serde_json::from_slice(data).map_err(|_| EditError::NoFields { field: field() })?;
    let mut here = &mut json;
    for (depth, step) in path.iter().enumerate() {
        let is_last = depth + 1 == path.len();
        let below = match here {
            Value::Object(members) => {
                if is_last {
                    members.entry(step.clone()).or_insert(Value::Null);
                }
                members.get_mut(step)
            }
            Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get_mut(index)),
            _ => None,
        };
        let missing = || {
            let before = path.iter().take(depth).map(String::as_str);
            EditError::NoField { field: field(), at: ["data"].into_iter().chain(before).collect::<Vec<_>>().join(".") }
        };
        here = below.ok_or_else(missing)?;
    }
    here.clone_from(value);
    Ok(json.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Envelope {
        let data = r#"{"id":"o-1","lines":[{"cents":5},{"cents":6}]}"#;
        Envelope::builder("t").id("1").source("/s").subject("o-1").extension("x", "y").data(data).build().unwrap()
    }

    fn edited(changes: &[&str]) -> Result<Envelope, String> {
        let changes: Vec<_> = changes.iter().map(|change| Set::parse(change)).collect::<Result<_, _>>()?;
        edition(&event(), None, &changes).map_err(|error| error.to_string())
    }

    #[test]
    fn attributes_are_set_and_removed() {
        let edited = edited(&["type=u", "x=", "y2=z=z", "time=2024-01-01T00:00:00Z"]).unwrap();
        assert_eq!((edited.event_type(), edited.extension("x"), edited.extension("y2")), ("u", None, Some("z=z")));
        assert_eq!((edited.id(), edited.subject(), edited.data()), ("1", Some("o-1"), event().data()));
        assert_eq!(edited.time().unwrap().to_rfc3339(), "2024-01-01T00:00:00Z");
    }

    #[test]
    fn fields_are_set_where_they_are_and_added_to_objects() {
        let edited = edited(&["data.lines.1.cents=7", "data.note=a b", "data.id=\"1\"", "data.gone=null"]).unwrap();
        let data: Value = serde_json::from_slice(edited.data()).unwrap();
        let expected = r#"{"id":"1","lines":[{"cents":5},{"cents":7}],"note":"a b","gone":null}"#;
        assert_eq!(data, serde_json::from_str::<Value>(expected).unwrap());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (change, words) in [
            ("data.lines.2.cents=1", "data.lines.2.cents: there is no object or list element at `data.lines`"),
            ("data.id.x=1", "at `data.id`"),
            ("data.nobody.x=1", "at `data`"),
            ("type=", "attribute `type`"),
            ("Upper=1", "`Upper` is no attribute name"),
            ("time=noon", "attribute `time`"),
            ("subject", "NAME=VALUE"),
            ("data=1", "--data-file"),
            ("data..x=1", "neither an attribute nor a field"),
        ] {
            let error = edited(&[change]).unwrap_err();
            assert!(error.contains(words), "{change}: {error}");
        }
    }

    #[test]
    fn json_stays_json_unless_another_type_is_said() {
        let new = || Some(b"{".to_vec());
        assert!(matches!(edition(&event(), new(), &[]), Err(EditError::NotJson(_))));
        let said = [Set::parse("datacontenttype=text/plain").unwrap()];
        assert_eq!(edition(&event(), new(), &said).unwrap().data().as_ref(), b"{");
        let raw = Envelope::builder("t").data("no json").build().unwrap();
        let error = edition(&raw, None, &[Set::parse("data.a=1").unwrap()]).unwrap_err();
        assert!(error.to_string().contains("the data is not JSON"), "{error}");
    }
}
