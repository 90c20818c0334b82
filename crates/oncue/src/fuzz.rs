//! Decoders and parsers as functions of any bytes, for fuzzing: `fuzz/` runs them for as long as one likes, the tests below
//! for a moment. None may panic, hang, or take more memory than its input is worth; and what is read can be written and
//! read again.

use bytes::Bytes;

pub use crate::transport::fuzz::{change, changes, state, states};
use crate::{
    config::Config,
    event::Envelope,
    filter::{Filter, FilterIndex},
    transport::LogUrl,
};

/// A decoder: its name, what to do with any bytes, and some that it is made for.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// Every decoder and parser.
pub const TARGETS: &[Target] = &[
    ("change", change, changes),
    ("state", state, states),
    ("envelope", envelope, || vec![sample().to_stored().to_vec()]),
    ("cloudevent", cloudevent, || vec![sample().to_json().into_bytes()]),
    ("filter", filter, filters),
    ("config", config, configs),
    ("url", url, || {
        ["memory:", "file:./data?durability=os&partitions=4&dedup_seconds=5&max_bytes=6&retention=settled"]
            .map(|url| url.as_bytes().to_vec())
            .to_vec()
    }),
];

fn sample() -> Envelope {
    let builder = Envelope::builder("order.placed").id("1").source("/shop").subject("s").data(r#"{"total":7}"#);
    builder.extension("partitionkey", "k").extension("ttl", "30").build().unwrap_or_else(|_| Envelope::blank())
}

fn filters() -> Vec<Vec<u8>> {
    [
        r#"{"exact":{"type":"order.placed","source":"/shop"}}"#,
        r#"{"any":[{"prefix":{"type":"order."}},{"not":{"suffix":{"subject":"s"}}}]}"#,
        r#"{"all":[{"exact":{"ttl":"30"}},{"all":[{"prefix":{"id":"1"}}]}]}"#,
    ]
    .map(|filter| filter.as_bytes().to_vec())
    .to_vec()
}

fn configs() -> Vec<Vec<u8>> {
    [
        "[policies.slow]\nkind = \"exponential\"\nfirst = \"1s\"\nmax = \"5m\"\n\n[handlers.bill]\npolicy = \"slow\"\nconcurrency = 8\n",
        "[defaults]\ntimeout = \"30s\"\n[groups.g]\nenabled = false\n[handlers.\"a.b\"]\npolicy = { kind = \"list\", delays = [\"1s\"] }\n",
    ]
    .map(|config| config.as_bytes().to_vec())
    .to_vec()
}

/// An event as the log stores it.
fn envelope(data: &[u8]) {
    let Ok(envelope) = Envelope::from_stored(&Bytes::copy_from_slice(data)) else { return };
    look_at(&envelope);
    let again = Envelope::from_stored(&envelope.to_stored());
    assert!(again.is_ok_and(|again| again == envelope), "what was read is what is written");
}

/// An event as JSON.
fn cloudevent(data: &[u8]) {
    let Ok(envelope) = Envelope::from_json(data) else { return };
    look_at(&envelope);
    let again = Envelope::from_stored(&envelope.to_stored());
    assert!(again.is_ok_and(|again| again == envelope), "what was read can be stored");
    let again = Envelope::from_json(envelope.to_json().as_bytes());
    assert!(again.is_ok_and(|again| again.data() == envelope.data()), "what was read can be sent on");
}

fn look_at(envelope: &Envelope) {
    let _texts = (envelope.id(), envelope.source(), envelope.event_type(), envelope.key(), envelope.schema());
    let _more = (envelope.extensions().count(), envelope.attributes().count(), envelope.to_json().len());
}

fn filter(data: &[u8]) {
    let Ok(filter) = serde_json::from_slice::<Filter>(data) else { return };
    let text = serde_json::to_string(&filter).unwrap_or_default();
    let again: Option<Filter> = serde_json::from_str(&text).ok();
    assert!(again.as_ref() == Some(&filter), "what was read is what is written: {text}");
    if filter.validate().is_err() {
        return;
    }
    let (event, mut index, mut found) = (sample(), FilterIndex::new(), Vec::new());
    index.insert(1, &[], Some(&filter));
    index.matches(&event, &mut found);
    assert_eq!(found.len(), usize::from(filter.matches(&event)), "the index finds what the filter matches: {text}");
}

fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Config::parse(text, "oncue.toml") {
        Ok(config) => {
            let bill = config.handler("bill", Some("g"));
            let _policy = (bill.problems(), bill.is_empty());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn url(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match text.parse::<LogUrl>() {
        Ok(url) => {
            let again: Result<LogUrl, _> = url.to_string().parse();
            assert!(again.is_ok() || url.to_string().contains('?'), "{url}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;

    #[test]
    fn what_decoders_are_made_for() {
        for (_, run, seeds) in TARGETS {
            seeds().iter().for_each(|seed| run(seed));
        }
    }

    #[test]
    fn what_was_found() {
        // A directory that begins with two slashes was told as none.
        url(b"file:////");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes(target in any::<Index>(), bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            target.get(TARGETS).1(&bytes);
        }

        #[test]
        fn some_bytes_changed(
            target in any::<Index>(),
            seed in any::<Index>(),
            edits in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..6),
            length in any::<Index>(),
        ) {
            let (_, run, seeds) = target.get(TARGETS);
            let seeds = seeds();
            let mut bytes = seed.get(&seeds).clone();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            run(&bytes);
            run(&bytes[..length.index(bytes.len())]);
        }
    }
}
