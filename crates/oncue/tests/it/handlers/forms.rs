//! Every form of handler is registered, gets its arguments, and stays callable.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use oncue::handler::extract::Attempt;

use super::*;

type Fallible<T> = Result<T, HandlerError>;
type Of<T> = State<T>;

#[derive(Clone)]
struct Bank(u64);

trait Ledger: Clone + Send + Sync + 'static {
    fn limit(&self) -> u64;
}

impl Ledger for Bank {
    fn limit(&self) -> u64 {
        self.0
    }
}

#[handler(id = "charge-card", retry = policy::exponential(), concurrency = 8)]
async fn charge(order: OrderCreated, State(bank): Of<Bank>) -> Fallible<OrderPaid> {
    if order.cents > bank.0 {
        return Err(HandlerError::permanent("over the limit"));
    }
    Ok(OrderPaid { order_id: order.order_id })
}

#[handler]
async fn charge_generic<L: Ledger>(order: &OrderCreated, State(ledger): State<L>) -> Option<OrderPaid> {
    (order.cents <= ledger.limit()).then(|| OrderPaid { order_id: order.order_id.clone() })
}

#[handler]
async fn borrowed_and_awaited(order: &OrderCreated, context: Context) -> OrderPaid {
    std::future::ready(()).await;
    assert_eq!(context.envelope().event_type(), "order.created");
    OrderPaid { order_id: order.order_id.clone() }
}

#[handler]
async fn delivered(order: Delivery<OrderCreated>, position: Position, Attempt(attempt): Attempt, headers: Headers) {
    assert_eq!((order.cents, order.attempt, attempt), (42, 2, 2));
    assert_eq!((order.position, position), (position, Position::new(3, 7, 0)));
    assert_eq!(headers.get("partitionkey").as_deref(), Some("o-1"));
    assert_eq!(headers.get("id").as_deref(), Some(order.envelope.id()));
    assert_eq!(headers.get("nothing"), None);
}

#[handler(on = ["order.created", "order.paid"])]
async fn raw(event: Envelope, context: Context) {
    assert_eq!(event.id(), context.envelope().id());
    assert_eq!((context.subscription(), context.correlation_id()), ("raw", event.id()));
}

/// Plain: runs on the blocking pool.
#[handler]
fn plain(order: OrderCreated) -> Option<OrderPaid> {
    if order.cents == 0 {
        return None;
    }
    Some(OrderPaid { order_id: order.order_id })
}

#[handler(inline)]
fn plain_borrowed(order: &OrderCreated, mut total: Keyed<u64>) {
    *total += order.cents;
}

#[handler]
async fn six(_: OrderCreated, a: Context, _: Headers, c: Position, mut d: Keyed<u64>, e: Attempt, _: Envelope) {
    *d = u64::from(e.0) + u64::from(a.attempt()) + c.offset();
}

/// A module of the same name stands beside it.
mod charge {
    pub(super) const LIMIT: u64 = 50;
}

async fn bare(order: OrderCreated, State(bank): State<Bank>) -> Option<OrderPaid> {
    (order.cents <= bank.0).then(paid)
}

async fn bare_borrowed(order: &OrderCreated, State(bank): State<Bank>) -> Option<OrderPaid> {
    (order.cents <= bank.0).then(paid)
}

fn bare_plain(order: OrderCreated) -> Result<OrderPaid, std::num::ParseIntError> {
    order.order_id.trim_start_matches("o-").parse::<u64>().map(|_| paid())
}

fn bare_plain_borrowed(order: &OrderCreated) -> (OrderPaid, Option<OrderPaid>) {
    (paid(), (order.cents > 1).then(paid))
}

struct Till {
    takings: AtomicU64,
}

impl Handle<OrderCreated, Fallible<OrderPaid>> for Till {
    async fn handle(&self, order: OrderCreated, context: Context) -> Fallible<OrderPaid> {
        self.takings.fetch_add(order.cents, Relaxed);
        assert_eq!(context.attempt(), 2);
        Ok(paid())
    }
}

#[test]
fn every_form_is_called_with_its_arguments() {
    let bank = || Bank(charge::LIMIT);
    let ack = |emits: &[&str], (outcome, effects): (Outcome, Effects)| {
        assert_eq!(outcome, Outcome::Ack);
        assert_eq!(types(&effects), emits);
    };
    ack(&["order.paid"], Caller::of(charge).state(bank()).call(&order(42)));
    ack(&["order.paid"], Caller::of(charge_generic::<Bank>).state(bank()).call(&order(42)));
    ack(&[], Caller::of(charge_generic::<Bank>).state(bank()).call(&order(51)));
    ack(&["order.paid"], Caller::of(borrowed_and_awaited).call(&order(1)));
    ack(&[], Caller::of(delivered).call(&order(42)));
    ack(&[], Caller::of(raw).call(&order(1)));
    ack(&["order.paid"], Caller::of(plain).call(&order(1)));
    ack(&[], Caller::of(plain).call(&order(0)));
    ack(&["order.paid"], Caller::of(bare).state(bank()).call(&order(42)));
    ack(&["order.paid"], Caller::of(bare_borrowed).state(bank()).call(&order(42)));
    ack(&["order.paid"], Caller::of(bare_plain).call(&order(1)));
    ack(&["order.paid", "order.paid"], Caller::of(bare_plain_borrowed).call(&order(2)));
    ack(&["order.paid"], Caller::of(Till { takings: AtomicU64::new(0) }).call(&order(1)));
    ack(&["order.paid"], Caller::of((|_: OrderCreated| async { paid() }).named("c")).call(&order(1)));
    ack(&["order.paid"], Caller::of((|_: OrderCreated, _: Context| paid()).named("c")).call(&order(1)));
    let raw = |event: &Envelope| assert_eq!(event.event_type(), "a");
    let a = Envelope::builder("a").build().unwrap();
    ack(&[], Caller::of(raw.named("c").types(["a"]).inline()).call_envelope(a));
}

#[test]
fn six_arguments_after_the_event() {
    let (outcome, effects) = Caller::of(six).call(&order(1));
    assert_eq!(outcome, Outcome::Ack);
    assert_eq!(effects.state, Some(oncue::handler::StateChange::Set("11".into())));
}

#[test]
fn an_annotated_handler_stays_a_function() {
    let charge = charge(order(42), State(Bank(50)));
    let result = async { charge.await }.now_or_never().unwrap();
    assert_eq!(result.unwrap(), paid());
    let result = charge_generic(&order(51), State(Bank(50))).into_inner().now_or_never().unwrap();
    assert_eq!(result, None);
    assert_eq!(plain(order(1)).into_inner(), Some(paid()));
    let total = Keyed::for_test(40);
    let after = total.probe();
    plain_borrowed(&order(2), total).into_inner();
    assert_eq!(after.value(), Some(42));
}

#[test]
fn plain_functions_block_unless_inline() {
    let call = |registration: Registration| {
        let binding = Arc::new(registration.binding(&Arc::default(), &Clock::system()));
        let event = Envelope::of(&order(1)).unwrap();
        registration.handler.call(&Invocation::new(binding, event, Position::new(0, 0, 0), 1, None))
    };
    assert!(matches!(call(plain.into_registration()), Call::Blocking(_)));
    assert!(matches!(call(plain.inline()), Call::Done(Outcome::Ack)));
    let mut registration = plain.into_registration();
    registration.options.inline = true;
    assert!(matches!(call(registration), Call::Done(Outcome::Ack)));
}

#[handler]
async fn waits(order: &OrderCreated, mut seen: Keyed<Vec<String>>) -> OrderPaid {
    let id = &order.order_id;
    tokio::task::yield_now().await;
    seen.push(id.clone());
    tokio::task::yield_now().await;
    OrderPaid { order_id: id.clone() }
}

#[test]
fn a_handler_that_waits_keeps_the_event_it_borrows() {
    let envelope = Envelope::of(&order(1)).unwrap();
    let invocation = Invocation::for_test(envelope);
    let Call::Future(future) = waits.into_registration().handler.call(&invocation) else { panic!("it is async") };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(future), Outcome::Ack);
    let effects = invocation.take_effects();
    assert_eq!(types(&effects), ["order.paid"]);
    assert_eq!(effects.state, Some(oncue::handler::StateChange::Set("[\"o-1\"]".into())));
}
