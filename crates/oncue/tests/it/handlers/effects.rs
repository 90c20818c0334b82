//! What a handler leaves behind: emitted events and keyed state.

use oncue::handler::{StateChange, extract::EmitError};

use super::*;

#[handler(emits(OrderPaid))]
async fn emitting(_: OrderCreated, context: Context) -> Fallible {
    context.emit(paid())?;
    context.emit_with(paid(), |event| event.extension("urgent", "yes"))?;
    Ok(Some(paid()))
}

type Fallible = Result<Option<OrderPaid>, EmitError>;

#[handler]
async fn undeclared(_: OrderCreated, context: Context) -> Result<(), EmitError> {
    context.emit(paid())
}

#[derive(Default, Serialize, Deserialize)]
struct Total {
    cents: u64,
}

#[handler]
async fn count(order: OrderCreated, mut total: Keyed<Total>) -> Result<(), HandlerError> {
    assert_eq!(total.is_new(), total.get().cents == 0);
    match order.cents {
        0 => {}
        1 => total.clear(),
        2 => total.set(Total { cents: 2 }),
        3 => {
            total.cents = 3;
            return Err(HandlerError::transient("no"));
        }
        cents => total.cents += cents,
    }
    Ok(())
}

#[test]
fn emitted_events_come_before_returned_ones_and_know_their_topic() {
    let (outcome, effects) = Caller::of(emitting).call(&order(1));
    assert_eq!(outcome, Outcome::Ack);
    assert_eq!(types(&effects), ["order.paid"; 3]);
    assert!(effects.emits.iter().all(|emitted| emitted.topic == "payments"));
    assert_eq!(effects.emits[1].envelope.extension("urgent"), Some("yes"));
    assert_eq!(emitting.into_registration().emits, ["order.paid"], "declared and returned is one");
}

#[test]
fn an_undeclared_event_is_refused_with_the_fix() {
    let (outcome, effects) = Caller::of(undeclared).call(&order(1));
    let Outcome::Fail { error, .. } = outcome else { panic!("{outcome:?}") };
    assert!(error.contains("`undeclared`") && error.contains("`order.paid`") && error.contains("emits(…)"), "{error}");
    assert!(effects.emits.is_empty());
    let declared = |_: OrderCreated, context: Context| context.emit(paid());
    let (outcome, _) = Caller::of(declared.named("declared").emits::<OrderPaid>().inline()).call(&order(1));
    assert_eq!(outcome, Outcome::Ack);
}

#[test]
fn keyed_state_is_written_if_it_changed() {
    let state = |cents| {
        let (outcome, effects) = Caller::of(count).keyed("{\"cents\":40}").call(&order(cents));
        (outcome == Outcome::Ack).then_some(effects.state).flatten()
    };
    assert_eq!(state(0), None, "only read");
    assert_eq!(state(1), Some(StateChange::Clear));
    assert_eq!(state(2), Some(StateChange::Set("{\"cents\":2}".into())));
    assert_eq!(state(3), None, "failed");
    assert_eq!(state(5), Some(StateChange::Set("{\"cents\":45}".into())));
    let (_, effects) = Caller::of(count).call(&order(5));
    assert_eq!(effects.state, Some(StateChange::Set("{\"cents\":5}".into())), "begins as the default");
}

#[test]
fn keyed_state_needs_a_key_and_readable_state() {
    let keyless = Envelope::builder("order.created").data(r#"{"order_id":"o","cents":1}"#).build().unwrap();
    let (outcome, _) = Caller::of(count).call_envelope(keyless);
    let Outcome::Reject { class: oncue::policy::ErrorClass::Permanent, error } = outcome else { panic!("{outcome:?}") };
    assert!(error.contains("`count`") && error.contains("has no key") && error.contains("key = …"), "{error}");
    let (outcome, _) = Caller::of(count).keyed("[]").call(&order(1));
    assert!(matches!(&outcome, Outcome::Reject { error, .. } if error.contains("Total")), "{outcome:?}");
}

#[test]
fn state_that_cannot_be_encoded_fails_the_attempt() {
    /// JSON has no maps with such keys.
    #[derive(Default, Serialize, Deserialize)]
    struct Unwritable(std::collections::BTreeMap<(u8, u8), u8>);

    let handler = |_: OrderCreated, mut state: Keyed<Unwritable>| {
        state.0.insert((1, 2), 3);
    };
    let (outcome, effects) = Caller::of(handler.named("unwritable")).call(&order(1));
    assert!(matches!(&outcome, Outcome::Reject { error, .. } if error.contains("Unwritable")), "{outcome:?}");
    assert!(effects.state.is_none() && effects.error.is_some());
}

#[test]
fn a_context_for_tests_shows_what_was_emitted() {
    let context = Context::for_test(Envelope::of(&order(1)).unwrap());
    let returned = emitting(order(1), context.clone()).into_inner().now_or_never().unwrap();
    assert!(returned.is_ok());
    assert_eq!(context.emitted().len(), 2);
}
