//! Which content types are one form of data.

use super::raw::OCTET_STREAM;

/// Whether data of content type `given` is in the form that `expected` names. Parameters (`; charset=utf-8`) and the case
/// of letters say nothing. JSON is JSON whatever it describes, `MessagePack` has more names than one, and any data can be
/// taken for bytes of which nothing is known.
pub(crate) fn is_read_by(given: &str, expected: &str) -> bool {
    given == expected
        || media_type(given).eq_ignore_ascii_case(media_type(expected))
        || media_type(expected).eq_ignore_ascii_case(OCTET_STREAM)
        || (is_json(given) && is_json(expected))
        || (is_message_pack(given) && is_message_pack(expected))
}

/// JSON by the `CloudEvents` specification: the subtype is `json` or ends in `+json`.
pub(crate) fn is_json(content_type: &str) -> bool {
    let media_type = media_type(content_type);
    ends_with(media_type, "/json") || ends_with(media_type, "+json")
}

/// The registered name, and those that were in use before there was one.
fn is_message_pack(content_type: &str) -> bool {
    let names = ["application/vnd.msgpack", "application/msgpack", "application/x-msgpack"];
    let media_type = media_type(content_type);
    names.iter().any(|name| media_type.eq_ignore_ascii_case(name)) || ends_with(media_type, "+msgpack")
}

/// Without parameters.
fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn ends_with(text: &str, end: &str) -> bool {
    let start = text.len().checked_sub(end.len());
    start.and_then(|start| text.get(start..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_has_many_names() {
        for (given, expected) in [
            ("application/json", "application/json"),
            ("Application/JSON; charset=utf-8", "application/json"),
            ("application/vnd.shop.order+json", "application/json"),
            ("application/json", "application/vnd.shop.order+json"),
            ("application/msgpack", "application/vnd.msgpack"),
            ("application/x-msgpack", "application/vnd.msgpack"),
            ("image/png", "application/octet-stream"),
            ("image/png;x=1", "image/PNG"),
        ] {
            assert!(is_read_by(given, expected), "{given} by {expected}");
        }
        for (given, expected) in [
            ("application/vnd.msgpack", "application/json"),
            ("application/json", "application/vnd.msgpack"),
            ("application/octet-stream", "application/json"),
            ("image/jpeg", "image/png"),
            ("application/octet-stream", "image/png"),
            ("json", "application/json"),
            ("\u{1F680}json", "application/json"),
            ("", "application/json"),
        ] {
            assert!(!is_read_by(given, expected), "{given} by {expected}");
        }
    }
}
