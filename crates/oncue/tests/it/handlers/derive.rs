//! `#[derive(Event)]`.

use oncue::event::{
    CodecError,
    codec::{Codec, Json, MessagePack},
};

use super::*;

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(type = "customer.moved", key = customer.number)]
struct CustomerMoved {
    customer: Customer,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Customer {
    number: u32,
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(type = "pair", key = format!("{}/{}", self.0, self.1))]
struct Pair(u8, u8);

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(type = "single", key = 0)]
struct Single(String);

#[derive(Event, Debug, PartialEq)]
#[event(type = "tick")]
struct Tick;

#[derive(Event, Debug, PartialEq)]
#[event(topic = "all-orders")]
enum OrderEvent {
    Created(OrderCreated),
    #[event(type = "orders.paid")]
    Paid(OrderPaid),
    #[event(type = "orders.closed")]
    Closed,
}

fn round_trip<E: Event + PartialEq + std::fmt::Debug>(event: &E) -> Envelope {
    let envelope = Envelope::of(event).unwrap();
    assert_eq!(&envelope.decode::<E>().unwrap(), event);
    assert!(E::TYPES.contains(&envelope.event_type()));
    envelope
}

#[test]
fn a_struct_has_its_type_key_and_json() {
    let envelope = round_trip(&order(7));
    assert_eq!((envelope.event_type(), envelope.key()), ("order.created", Some("o-1")));
    assert_eq!(envelope.data(), r#"{"order_id":"o-1","cents":7}"#);
    assert_eq!(envelope.content_type(), Some("application/json"));
    assert_eq!((OrderCreated::TOPIC, OrderPaid::TOPIC), (oncue::event::DEFAULT_TOPIC, "payments"));
}

#[test]
fn a_key_is_any_expression_of_the_fields() {
    assert_eq!(round_trip(&CustomerMoved { customer: Customer { number: 7 } }).key(), Some("7"));
    assert_eq!(round_trip(&Pair(1, 2)).key(), Some("1/2"));
    assert_eq!(round_trip(&Single("one".into())).key(), Some("one"));
}

#[test]
fn a_struct_without_fields_is_its_type_alone() {
    assert!(round_trip(&Tick).data().is_empty());
    assert_eq!(Envelope::builder("tick").data("null").build().unwrap().decode(), Ok(Tick));
}

#[test]
fn an_enum_is_the_events_that_it_wraps() {
    assert_eq!(OrderEvent::TYPES, ["order.created", "orders.paid", "orders.closed"]);
    assert_eq!(OrderEvent::TOPIC, "all-orders");
    let created = round_trip(&OrderEvent::Created(order(7)));
    assert_eq!((created.data(), created.key()), (&order(7).encode().unwrap(), Some("o-1")));
    let paid = round_trip(&OrderEvent::Paid(paid()));
    assert_eq!((paid.event_type(), paid.key()), ("orders.paid", Some("o-1")));
    let closed = round_trip(&OrderEvent::Closed);
    assert_eq!((closed.data().len(), closed.key()), (0, None));
    let error = Envelope::builder("orders.lost").build().unwrap().decode::<OrderEvent>().unwrap_err();
    assert!(error.to_string().contains("orders.lost") && error.to_string().contains("orders.closed"), "{error}");
}

/// A codec around another one.
struct Reversed<C>(C);

impl<T, C: Codec<T>> Codec<T> for Reversed<C> {
    const CONTENT_TYPE: &'static str = "application/x-reversed";

    fn encode(event_type: &str, value: &T) -> Result<Bytes, CodecError> {
        let mut bytes = C::encode(event_type, value)?.to_vec();
        bytes.reverse();
        Ok(bytes.into())
    }

    fn decode(event_type: &str, data: &[u8]) -> Result<T, CodecError> {
        let bytes: Vec<u8> = data.iter().rev().copied().collect();
        C::decode(event_type, &bytes)
    }
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "sensor.read", key = 0, codec = Reversed::<Json>)]
struct Backwards(u32);

type Packed = MessagePack;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "order.created", codec = Packed, content_type = "application/msgpack")]
struct PackedOrder {
    order_id: String,
    cents: u64,
}

/// The field needs nothing of its own, nor has the struct serde.
#[derive(Event, Clone, Debug, PartialEq)]
#[event(type = "image.stored", codec = raw, key = 0.len(), topic = "images")]
struct ImageStored(Bytes);

#[test]
fn an_event_may_name_its_codec() {
    let backwards = round_trip(&Backwards(123));
    assert_eq!((backwards.data().as_ref(), backwards.key()), (b"321".as_slice(), Some("123")));
    assert_eq!(backwards.content_type(), Some("application/x-reversed"));
    let packed = round_trip(&PackedOrder { order_id: "o-1".into(), cents: 7 });
    assert_eq!(packed.content_type(), Some("application/msgpack"));
    let image = ImageStored(Bytes::from_static(b"PNG"));
    let envelope = round_trip(&image);
    assert_eq!((envelope.content_type(), envelope.key()), (Some("application/octet-stream"), Some("3")));
    assert_eq!(envelope.data().as_ptr(), image.0.as_ptr(), "shared, not copied");
}

#[test]
fn a_handler_refuses_data_of_a_codec_that_it_does_not_read() {
    let handler = |_: OrderCreated| ();
    let packed = Envelope::of(&PackedOrder { order_id: "o-1".into(), cents: 7 }).unwrap();
    let (outcome, _) = Caller::of(handler.named("charge").inline()).call_envelope(packed);
    let Outcome::Reject { class: oncue::policy::ErrorClass::Malformed, error } = outcome else { panic!("{outcome:?}") };
    assert!(error.ends_with("content type is application/msgpack, `OrderCreated` reads application/json"), "{error}");
    let both = |order: PackedOrder| assert_eq!(order.cents, 7);
    let (outcome, _) = Caller::of(both.named("both").inline()).call(&PackedOrder { order_id: "o-1".into(), cents: 7 });
    assert_eq!(outcome, Outcome::Ack);
}
