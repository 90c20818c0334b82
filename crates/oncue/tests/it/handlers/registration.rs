//! What a registration knows, and what it says of itself.

use std::time::Duration;

use oncue::{
    handler::{OnDeadLetter, Ordered, Retry, Start},
    policy,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(3);

/// With every option.
#[handler(
    id = "all-options", retry = policy::never(), concurrency = 2 + 1, timeout = PATIENCE, on = "order.created.v2",
    topic = "orders", emits(OrderPaid), on_dead_letter = "hold", start = "latest",
    ordered = "relaxed", pipelined,
)]
async fn configured(order: OrderCreated) {
    drop(order);
}
const CONFIGURED_ENDS: u32 = line!() - 1;

#[handler(retry = "bank", timeout = "500ms", ordered = Ordered::Strict)]
async fn named_policy(_: OrderCreated, _: Keyed<u64>) -> Option<OrderPaid> {
    None
}

async fn bare(_: OrderCreated) {}

#[test]
fn an_annotation_says_it_all() {
    let registration = configured.into_registration();
    assert_eq!(registration.id, "all-options");
    assert_eq!(
        (registration.types.as_slice(), registration.topic.as_str()),
        (["order.created.v2".to_owned()].as_slice(), "orders")
    );
    assert_eq!(registration.emits, ["order.paid"]);
    let options = &registration.options;
    assert!(matches!(&options.retry, Some(Retry::Policy(policy)) if format!("{policy:?}") == "Never"), "{options:?}");
    assert_eq!((options.concurrency, options.timeout), (3, Some(PATIENCE)));
    assert_eq!(options.on_dead_letter, OnDeadLetter::Hold);
    assert_eq!((options.start, options.ordered, options.pipelined), (Start::Latest, Ordered::Relaxed, true));
    assert!(registration.location.file.ends_with("registration.rs"), "{}", registration.location);
    assert_eq!(registration.location.line, CONFIGURED_ENDS - 2, "the function's line");
}

#[test]
fn code_wins_over_the_annotation() {
    let registration = named_policy.into_registration();
    assert!(matches!(&registration.options.retry, Some(Retry::Named(name)) if name == "bank"));
    assert_eq!(registration.options.timeout, Some(Duration::from_millis(500)));
    assert_eq!((registration.id.as_str(), registration.keyed), ("named_policy", true));
    let registration = named_policy
        .named("again")
        .retry(policy::fixed(PATIENCE))
        .concurrency(1)
        .timeout(PATIENCE)
        .topic("other")
        .start(Start::Latest)
        .ordered(Ordered::Relaxed)
        .on_dead_letter(OnDeadLetter::Hold);
    assert_eq!((registration.id.as_str(), registration.topic.as_str()), ("again", "other"));
    assert_eq!((registration.options.concurrency, registration.options.timeout), (1, Some(PATIENCE)));
    assert!(matches!(registration.options.retry, Some(Retry::Policy(_))));
    let problems = registration.problems();
    assert!(
        problems.len() == 1 && problems[0].contains("choose one"),
        "held and relaxed contradict each other: {problems:?}"
    );
    assert_eq!(registration.ordered(Ordered::Strict).problems(), [""; 0]);
}

#[test]
fn handlers_come_after_others() {
    let registration = bare.after(configured).after(named_policy).after_id("other").after(configured);
    assert_eq!(registration.after, ["all-options", "named_policy", "other"]);
    assert_eq!(registration.problems(), [""; 0]);
}

#[test]
fn a_bare_function_has_its_own_name_and_the_callers_line() {
    let registration = bare.into_registration();
    assert_eq!(registration.id, "bare");
    let (registration, line) = (bare.concurrency(2).named("x"), line!());
    assert!(registration.location.file.ends_with("registration.rs"), "{}", registration.location);
    assert_eq!(registration.location.line, line);
}

#[test]
fn each_problem_names_the_handler_the_place_and_the_fix() {
    let problem = |registration: Registration| {
        let problems = registration.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("registration.rs:"), "{problems:?}");
        problems[0].clone()
    };
    let closure = |_: OrderCreated| {};
    assert!(problem(closure.into_registration()).contains(".named(\"…\")"));
    assert!(problem((|_: Envelope| {}).named("raw")).contains("on = \"…\""));
    assert!(problem(bare.concurrency(0)).contains("handler `bare`"));
    assert!(problem(bare.timeout(Duration::ZERO)).contains("timeout = 0"));
    assert!(problem(bare.after(closure)).contains("after a handler without a name"));
    assert!(problem(bare.after(bare)).contains("after itself"));
    assert!(problem(bare.named("a b")).contains("' '"));
    assert!(problem(bare.types(["a", "a"])).contains("`a` stands twice in what it takes"));
    assert!(problem(bare.topic("")).contains("topic"));
    assert!(problem(named_policy.pipelined()).contains("`Keyed` state"));
    let twice = bare.emits::<OrderPaid>().emits::<OrderPaid>();
    assert!(problem(twice).contains("`order.paid` stands twice in what it emits"));
}

#[test]
fn a_missing_state_is_told_at_start_with_its_type() {
    let handler = async |_: OrderCreated, _: State<u8>, _: State<String>| {};
    let registration = handler.named("stateful");
    let error = registration.check(&StateMap::default()).unwrap_err();
    assert!(error.contains("`stateful`") && error.contains("registration.rs:"), "{error}");
    assert!(error.contains("State<u8>") && error.contains("State<alloc::string::String>"), "{error}");
    let mut states = StateMap::default();
    states.insert(1_u8);
    states.insert(String::new());
    assert_eq!(registration.check(&states), Ok(()));
}
