use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::{Envelope, Event};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "sample", key = id, codec = MessagePack)]
struct Sample {
    id: u64,
    change: i64,
    ratio: f64,
    name: String,
    small: Option<i8>,
    bytes: Vec<u8>,
    pair: (bool, char),
    kind: Kind,
    named: BTreeMap<String, Kind>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
enum Kind {
    Plain,
    Wrapped(Box<Kind>),
    Pair(u16, String),
    Fields { left: Option<u32>, right: () },
}

/// The event of [`Sample`], in JSON.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "sample")]
struct InJson {
    name: String,
}

#[derive(Event, Debug, PartialEq)]
#[event(type = "note", key = 0.len(), codec = raw, content_type = "text/plain; charset=utf-8")]
struct Note(String);

#[derive(Event, Debug, PartialEq)]
#[event(type = "image.stored", codec = raw)]
struct ImageStored(Bytes);

#[derive(Event, Debug, PartialEq)]
#[event(type = "file.stored", codec = raw)]
struct FileStored(Vec<u8>);

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(type = "order.created", codec = Json, content_type = "application/vnd.shop.order+json")]
struct OrderCreated {
    cents: u32,
}

#[derive(Event, Debug, PartialEq)]
enum Mixed {
    Image(ImageStored),
    Order(OrderCreated),
    #[event(type = "sample.taken")]
    Sample(Sample),
    #[event(type = "closed")]
    Closed,
}

fn kind() -> impl Strategy<Value = Kind> {
    let leaf = prop_oneof![
        Just(Kind::Plain),
        (any::<u16>(), ".{0,6}").prop_map(|(number, text)| Kind::Pair(number, text)),
        any::<Option<u32>>().prop_map(|left| Kind::Fields { left, right: () }),
    ];
    leaf.prop_recursive(6, 8, 1, |inner| inner.prop_map(|kind| Kind::Wrapped(Box::new(kind))))
}

fn sample() -> impl Strategy<Value = Sample> {
    let numbers = (any::<u64>(), any::<i64>(), any::<i32>(), any::<Option<i8>>());
    let others = (".{0,40}", proptest::collection::vec(any::<u8>(), 0..40), any::<(bool, char)>(), kind());
    let named = proptest::collection::btree_map(".{0,8}", kind(), 0..4);
    (numbers, others, named).prop_map(|((id, change, eighths, small), (name, bytes, pair, kind), named)| Sample {
        id,
        change,
        // A number that decimal digits give back exactly: what is tested is the codec, not the reading of decimals.
        ratio: f64::from(eighths) / 8.0,
        name,
        small,
        bytes,
        pair,
        kind,
        named,
    })
}

/// What each codec says of any bytes; to be reached at all.
fn read_with_all(data: &[u8]) {
    let _ = <MessagePack as Codec<Sample>>::decode("sample", data);
    let _ = <MessagePack as Codec<Kind>>::decode("sample", data);
    let _ = <Json as Codec<Sample>>::decode("sample", data);
    let _ = <Json as Codec<Kind>>::decode("sample", data);
    let _ = <Raw as Codec<String>>::decode("sample", data);
}

proptest! {
    #[test]
    fn values_go_there_and_back(sample in sample()) {
        let packed = <MessagePack as Codec<Sample>>::encode("sample", &sample).unwrap();
        prop_assert_eq!(<MessagePack as Codec<Sample>>::decode("sample", &packed), Ok(sample.clone()));
        let json = <Json as Codec<Sample>>::encode("sample", &sample).unwrap();
        prop_assert_eq!(<Json as Codec<Sample>>::decode("sample", &json), Ok(sample.clone()));
        prop_assert_eq!(json, serde_json::to_vec(&sample).unwrap());
        let envelope = Envelope::of(&sample).unwrap();
        prop_assert_eq!(envelope.decode::<Sample>(), Ok(sample));
    }

    #[test]
    fn bytes_go_there_and_back(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in ".{0,30}") {
        let shared = ImageStored(Bytes::from(bytes.clone()));
        let envelope = Envelope::of(&shared).unwrap();
        prop_assert_eq!(envelope.data().as_ref(), bytes.as_slice());
        prop_assert_eq!(envelope.decode(), Ok(shared));
        let own = FileStored(bytes.clone());
        prop_assert_eq!(Envelope::of(&own).unwrap().decode(), Ok(own));
        let note = Note(text.clone());
        let envelope = Envelope::of(&note).unwrap();
        prop_assert_eq!(envelope.data().as_ref(), text.as_bytes());
        prop_assert_eq!(envelope.key(), Some(&*text.len().to_string()));
        prop_assert_eq!(envelope.decode(), Ok(note));
        let read = Envelope::builder("note").data(bytes.clone()).build().unwrap().decode::<Note>();
        prop_assert_eq!(read.ok(), String::from_utf8(bytes).ok().map(Note));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        read_with_all(&bytes);
    }

    #[test]
    fn damaged_data_never_panics(sample in sample(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        for encoded in [
            <MessagePack as Codec<Sample>>::encode("sample", &sample).unwrap(),
            <Json as Codec<Sample>>::encode("sample", &sample).unwrap(),
        ] {
            let mut damaged = encoded.to_vec();
            let at = at.index(damaged.len());
            damaged[at] = byte;
            read_with_all(&damaged);
            read_with_all(&damaged[..at]);
        }
    }

    #[test]
    fn json_that_carries_any_codec_gives_it_back(sample in sample(), bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
        for event in [Envelope::of(&sample), Envelope::of(&ImageStored(bytes.into()))] {
            let event = event.unwrap();
            let read = Envelope::from_json(event.to_json().as_bytes()).unwrap();
            prop_assert_eq!((read.data(), read.content_type()), (event.data(), event.content_type()));
        }
    }
}

#[test]
fn a_recursive_enum_cannot_exhaust_the_stack() {
    // {"Wrapped": {"Wrapped": …}}, a million deep: rmp-serde alone would follow it.
    let level = [&[0x81, 0xa7][..], b"Wrapped"].concat();
    let error = <MessagePack as Codec<Kind>>::decode("sample", &level.repeat(1_000_000)).unwrap_err();
    assert!(error.reason.contains("nested more than 128 deep"), "{error}");
}

#[test]
fn message_pack_has_the_names_of_fields_so_that_they_may_be_added() {
    let encoded = <MessagePack as Codec<OrderCreated>>::encode("order.created", &OrderCreated { cents: 7 }).unwrap();
    assert_eq!(encoded.as_ref(), b"\x81\xa5cents\x07");
    let newer = b"\x82\xa5cents\x07\xa4note\xc0";
    assert_eq!(<MessagePack as Codec<OrderCreated>>::decode("order.created", newer), Ok(OrderCreated { cents: 7 }));
}

#[test]
fn an_error_says_what_does_not_fit_and_where() {
    let of = |result: Result<OrderCreated, CodecError>| result.unwrap_err().to_string();
    let packed = |data: &[u8]| of(MessagePack::decode("order.created", data));
    let json = |data: &[u8]| of(Json::decode("order.created", data));
    for (error, reason) in [
        (packed(b"\x81\xa5cents\xa3ten"), "order.created`: wrong msgpack marker FixStr(3) at byte 8"),
        (packed(b"\x81\xa5cents"), "ends too early, at byte 7"),
        (packed(b"\x80"), "missing field `cents` at byte 1"),
        (packed(b"\x81\xa5cents\x07\x07"), "a second value at byte 8"),
        (packed(b""), "ends too early, at byte 0"),
        (
            json(b"{\"cents\":\n\"ten\"}"),
            "order.created`: invalid type: string \"ten\", expected u32 at line 2 column 5",
        ),
        (json(b"{\"cents\":7} 7"), "trailing characters at line 1 column 13"),
    ] {
        assert!(error.contains("OrderCreated from event type `order.created`") && error.contains(reason), "{error}");
    }
    let note = Envelope::builder("note").data(&b"caf\xe9"[..]).build().unwrap().decode::<Note>().unwrap_err();
    assert!(note.type_name.ends_with("::Note"), "{note}");
    assert_eq!(note.reason, "no UTF-8 text at byte 3");
}

#[test]
fn an_event_of_another_content_type_is_refused_by_name() {
    let packed = Envelope::builder("sample").content_type("application/msgpack").data(&b"\x81\xa4name\xa1x"[..]);
    let error = packed.build().unwrap().decode::<InJson>().unwrap_err();
    assert_eq!(error.reason, "content type is application/msgpack, `InJson` reads application/json");
    let read = |content_type: &str, data: &'static [u8]| {
        Envelope::builder("sample").content_type(content_type).data(data).build().unwrap().decode::<InJson>()
    };
    let x = InJson { name: "x".into() };
    for content_type in ["", "application/json", "application/json; charset=utf-8", "application/vnd.x+json"] {
        assert_eq!(read(content_type, br#"{"name":"x"}"#).as_ref(), Ok(&x), "{content_type}");
    }
    assert!(read("text/plain", br#"{"name":"x"}"#).is_err());
    let image = Envelope::builder("image.stored").content_type("image/png").data("x").build().unwrap();
    assert_eq!(image.decode(), Ok(ImageStored("x".into())), "bytes are bytes");
}

#[test]
fn an_enum_takes_events_of_several_codecs() {
    let content_type = |event: &Mixed| {
        let envelope = Envelope::of(event).unwrap();
        assert_eq!(envelope.decode::<Mixed>().as_ref(), Ok(event));
        envelope.content_type().map(str::to_owned).unwrap_or_default()
    };
    assert_eq!(content_type(&Mixed::Image(ImageStored("x".into()))), "application/octet-stream");
    assert_eq!(content_type(&Mixed::Order(OrderCreated { cents: 7 })), "application/vnd.shop.order+json");
    let json = r#"{"id":1,"change":-1,"ratio":0.5,"name":"","small":null,"bytes":[],"pair":[true,"x"],"kind":"Plain","named":{}}"#;
    let sample: Sample = Json::decode("sample", json.as_bytes()).unwrap();
    assert_eq!(content_type(&Mixed::Sample(sample)), "application/vnd.msgpack");
    assert_eq!(content_type(&Mixed::Closed), Mixed::CONTENT_TYPE);
    let json = Envelope::builder("sample.taken").content_type("application/json").data(json).build().unwrap();
    assert!(json.decode::<Mixed>().unwrap_err().reason.contains("reads application/vnd.msgpack"));
}
