//! `oncue policy report --routes`.

use oncue::{Envelope, prelude::*, route};
use serde_json::Value;

use crate::program::{Ended, Scratch, oncue};

/// A gateway that takes the orders of its banks.
async fn take(order: Envelope, bank: &'static str) -> Result<(), HandlerError> {
    let suits = order.data().windows(bank.len()).any(|part| part == bank.as_bytes());
    if suits { Ok(()) } else { Err(HandlerError::transient("unknown bank")) }
}

/// A log of an app whose gateways take what `banks` says: parts of `bank-north` and `bank-south`.
async fn recorded(data: &str, banks: [&'static str; 2]) {
    let arm =
        |name: &'static str, bank| (move |order: Envelope| take(order, bank)).named(name).types(["order.created"]);
    let charge = route::learned("charge").arm(arm("first", banks[0])).arm(arm("second", banks[1])).features(["bank"]);
    let charge = charge.explore(0.3).delay_per_s(0.0).concurrency(1).retry(policy::never());
    let app = App::open(&format!("file:{data}")).await.unwrap().on(charge).start().await.unwrap();
    for number in 0..400 {
        let bank = ["north", "south"][number / 2 % 2];
        let order = Envelope::builder("order.created").id(format!("e-{number}"));
        app.publish(order.data(format!(r#"{{"bank": "bank-{bank}"}}"#)).build().unwrap()).await.unwrap();
    }
    app.idle().await.unwrap();
    app.shutdown().await.unwrap();
}

fn report(data: &str, arguments: &[&str]) -> Ended {
    oncue(&[&["policy", "report", "charge", "--data", data, "--routes"], arguments].concat())
}

#[tokio::test]
async fn a_route_that_is_worth_it_is_told_with_what_its_handlers_alone_would_bring() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    recorded(&data, ["north", "south"]).await;
    let told = report(&data, &["--json"]).report();
    assert_eq!((&told["verdict"], &told["compared"], &told["explore"]), (&"better".into(), &400.0.into(), &0.3.into()));
    let handlers = told["handlers"].as_array().unwrap();
    assert_eq!(handlers.iter().map(|arm| arm["tried"].as_f64().unwrap()).sum::<f64>(), 400.0);
    for arm in handlers {
        let (alone, width) = (arm["alone"]["mean"].as_f64().unwrap(), arm["alone"]["width_95"].as_f64().unwrap());
        assert!((alone - 0.5).abs() < 2.0 * width && width < 0.2, "{told}");
    }
    let explored: u64 = handlers.iter().map(|arm| arm["explored"].as_u64().unwrap()).sum();
    assert!((80..160).contains(&explored), "{explored}");
    let human = report(&data, &[]);
    for word in ["400 first attempts", "MEAN REWARD", "± 95 %", "first alone", "any, each as likely", "is better than"]
    {
        assert!(human.stdout.contains(word), "{word:?} is not in {}", human.stdout);
    }
    let dump = oncue(&["log", "dump", "--kind", "trial", "--data", &data]).stdout;
    let trials: Vec<Value> = dump.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(trials.len(), 400, "each can be read in the log");
    let (first, choice) = (&trials[0], &trials[0]["choice"]);
    assert!(first["worked"].is_boolean() && choice["arm"].is_u64() && choice["among"] == 2, "{first}");
    assert_eq!(oncue(&["log", "verify", "--data", &data]).code, Some(0));
    report(&data, &["--priorities"]).refused(&["cannot be used with"]);
}

#[tokio::test]
async fn a_route_that_is_not_better_says_so_and_what_to_say_instead() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    // The first one takes all.
    recorded(&data, ["bank", "south"]).await;
    let told = report(&data, &["--json"]).report();
    assert_eq!((&told["verdict"], &told["best_alone"]), (&"worse".into(), &"first".into()), "exploring costs: {told}");
    let human = report(&data, &[]).stdout;
    assert!(human.contains("the learned route is WORSE than `first` alone: say route = \"first\""), "{human}");
}

#[tokio::test]
async fn a_subscription_without_a_route_says_so() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    let charge = (|_: Envelope| async {}).named("charge").types(["order.created"]);
    let app = App::open(&format!("file:{data}")).await.unwrap().on(charge).start().await.unwrap();
    app.shutdown().await.unwrap();
    let told = report(&data, &["--json"]).report();
    assert_eq!(told["handlers"], Value::Null);
    assert!(report(&data, &[]).stdout.contains("it has no learned route"));
}
