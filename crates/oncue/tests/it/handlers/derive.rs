//! `#[derive(Event)]`.

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
