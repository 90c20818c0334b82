//! Errors: their text, their class, and what cannot be decoded.

use std::{error::Error, fmt, time::Duration};

use oncue::policy::ErrorClass;

use super::*;

#[derive(Debug)]
enum BankError {
    Closed(std::io::Error),
    Blocked,
}

impl BankError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Closed(_) => ErrorClass::Throttled,
            Self::Blocked => ErrorClass::Permanent,
        }
    }
}

impl fmt::Display for BankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bank said no")
    }
}

impl Error for BankError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Closed(cause) => Some(cause),
            Self::Blocked => None,
        }
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

#[handler(classify = BankError::class)]
async fn classed(order: OrderCreated) -> Result<(), BankError> {
    match order.cents {
        0 => Err(BankError::Blocked),
        _ => Err(BankError::Closed(std::io::Error::other("closed on sundays"))),
    }
}

fn error_of(error: HandlerError) -> Outcome {
    let error = std::sync::Mutex::new(Some(error));
    let error: &'static _ = Box::leak(Box::new(error));
    let handler = move |_: OrderCreated| Err::<(), _>(error.lock().unwrap().take().unwrap());
    Caller::of(handler.named("failing").inline()).call(&order(1)).0
}

fn fail(class: ErrorClass, error: &str) -> Outcome {
    Outcome::Fail { class, error: error.to_owned() }
}

#[test]
fn a_classified_error_has_its_class_and_its_causes() {
    let outcome = |cents| Caller::of(classed).call(&order(cents)).0;
    assert_eq!(outcome(0), fail(ErrorClass::Permanent, "the bank said no"));
    assert_eq!(outcome(1), fail(ErrorClass::Throttled, "the bank said no: closed on sundays"));
}

#[test]
fn an_unclassified_error_is_transient() {
    let handler = async |_: OrderCreated| Err::<(), BankError>(BankError::Blocked);
    let (outcome, _) = Caller::of(handler.named("h")).call(&order(1));
    assert_eq!(outcome, fail(ErrorClass::Transient, "the bank said no"));
    let handler = |_: OrderCreated| -> Result<OrderPaid, BoxError> { Err("text".into()) };
    let (outcome, effects) = Caller::of(handler.named("h")).call(&order(1));
    assert_eq!((outcome, effects.emits.len()), (fail(ErrorClass::Transient, "text"), 0));
}

#[test]
fn a_handler_error_says_its_class() {
    assert_eq!(error_of(HandlerError::permanent("p")), fail(ErrorClass::Permanent, "p"));
    assert_eq!(error_of(HandlerError::transient("t")), fail(ErrorClass::Transient, "t"));
    assert_eq!(error_of(HandlerError::throttled("w")), fail(ErrorClass::Throttled, "w"));
    assert_eq!(error_of(HandlerError::defer(Duration::from_secs(3))), Outcome::Defer(Duration::from_secs(3)));
    let rejected = Outcome::Reject { class: ErrorClass::Permanent, error: "r".to_owned() };
    assert_eq!(error_of(HandlerError::reject("r")), rejected);
    let converted = HandlerError::from(BankError::Closed(std::io::Error::other("closed")));
    assert_eq!(error_of(converted), fail(ErrorClass::Transient, "the bank said no: closed"));
}

#[test]
fn a_payload_that_does_not_fit_is_malformed_and_names_the_place() {
    let wrong = Envelope::builder("order.created").data(r#"{"order_id":"o","cents":"many"}"#).build().unwrap();
    let (outcome, _) = Caller::of(classed).call_envelope(wrong);
    let Outcome::Reject { class: ErrorClass::Malformed, error } = outcome else { panic!("{outcome:?}") };
    assert!(error.contains("OrderCreated") && error.contains("`order.created`") && error.contains("column"), "{error}");
}

#[test]
fn an_outcome_can_be_returned_itself() {
    let handler = |_: OrderCreated| Outcome::Defer(Duration::from_secs(1));
    assert_eq!(Caller::of(handler.named("h")).call(&order(1)).0, Outcome::Defer(Duration::from_secs(1)));
}

#[test]
fn the_first_failure_of_several_values_counts() {
    let handler = |_: OrderCreated| vec![Ok(paid()), Err(HandlerError::permanent("second")), Ok(paid())];
    let (outcome, effects) = Caller::of(handler.named("h")).call(&order(1));
    assert_eq!((outcome, effects.emits.len()), (fail(ErrorClass::Permanent, "second"), 0));
}
