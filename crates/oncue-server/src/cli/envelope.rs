//! How an event is shown: its attributes, its data, the attempts that failed.

use oncue::{Envelope, transport::FailedAttempt};
use serde_json::{Value, json};

use crate::{
    columns::{Column, columns},
    number::grouped,
};

/// Bytes that are shown of data that is not JSON.
const FIRST_BYTES: usize = 64;

/// The event in the JSON form of `CloudEvents`. Data that is JSON only by its content type is in it as base64.
pub(super) fn json(event: &Envelope) -> Value {
    serde_json::from_str(&event.to_json()).unwrap_or_default()
}

/// A failed attempt.
pub(super) fn failed(attempt: &FailedAttempt) -> Value {
    json!({
        "number": attempt.number,
        "class": attempt.class,
        "read": attempt.read.to_rfc3339(),
        "ended": attempt.ended.to_rfc3339(),
        "error": attempt.error,
    })
}

/// What is said of the event, then its attributes, then its data.
pub(super) fn text(said: Vec<Vec<String>>, event: &Envelope) -> String {
    let mut rows = said;
    rows.push(vec!["published".to_owned(), event.published().to_rfc3339()]);
    rows.extend(event.attributes().map(|(name, value)| vec![name.to_owned(), value.into_owned()]));
    columns(&[Column::Text("EVENT"), Column::Text("")], &rows) + &data(event)
}

fn data(event: &Envelope) -> String {
    let bytes = grouped(event.data().len() as u64);
    match serde_json::from_slice::<Value>(event.data()) {
        _ if event.data().is_empty() => "\nNO DATA\n".to_owned(),
        Ok(json) => format!("\nDATA ({bytes} bytes of JSON)\n{json:#}\n"),
        Err(_) => {
            let first = &event.data()[..event.data().len().min(FIRST_BYTES)];
            let more = if first.len() < event.data().len() { " …" } else { "" };
            format!("\nDATA ({bytes} bytes)\n{}{more}\n", first.escape_ascii())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_or_its_first_bytes() {
        let shown = |bytes: Vec<u8>| data(&Envelope::builder("t").data(bytes).build().unwrap());
        assert_eq!(shown(Vec::new()), "\nNO DATA\n");
        assert_eq!(shown(br#"{"a":[1]}"#.to_vec()), "\nDATA (9 bytes of JSON)\n{\n  \"a\": [\n    1\n  ]\n}\n");
        assert_eq!(shown(b"\x1b[2J\xff".to_vec()), "\nDATA (5 bytes)\n\\x1b[2J\\xff\n");
        let long = shown(vec![b'x'; 2_000]);
        assert_eq!(long, format!("\nDATA (2,000 bytes)\n{} …\n", "x".repeat(FIRST_BYTES)));
    }
}
