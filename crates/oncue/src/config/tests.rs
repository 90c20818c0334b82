//! Whole files: what they say, what is wrong with them, and that they go there and back.

use std::time::Duration;

use proptest::{collection::btree_map, option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;
use crate::{
    filter::{self, Filter, Label, LearnedFilter},
    handler::{OnDeadLetter, Order, Ordered},
    policy::{LearnedPriority, learned_priority},
};

const WHOLE: &str = r#"
[policies.bank]
kind = "exponential"
initial = "200ms"
factor = 2.0
max_delay = "1m"
max_attempts = 8
jitter = 0.5
deadline = "1h"

[defaults]
retry = "bank"
timeout = "30s"
concurrency = 16

[handlers.charge]
concurrency = 32
timeout = "5s"
retry = { kind = "fixed", delay = "1s", max_attempts = 3 }
ordered = "relaxed"
pipelined = true
order = "priority"
on_dead_letter = "continue"
paused = true
filter = { prefix = { type = "order." } }
learned_filter = { features = ["bank"], label = { feedback = ["order.canceled"], within = "24h", expected = true }, threshold = 0.9, explore = 0.1 }
priority = { cost = "weight", costs = { "order.created" = 2.5 }, features = ["pages"] }
route = "north"

[handlers."order.mail"]
on_dead_letter = "hold"

[groups.billing]
concurrency = 4
"#;

fn problems(text: &str) -> Vec<String> {
    match Config::parse(text, "oncue.toml") {
        Ok(config) => panic!("nothing is wrong with {config:?}"),
        Err(ConfigError::Invalid { problems }) => problems.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_key_is_read() {
    let config = Config::parse(WHOLE, "oncue.toml").unwrap();
    let bank = PolicyConfig::Exponential {
        initial: Some(Duration::from_millis(200)),
        factor: Some(2.0),
        max_delay: Some(Duration::from_secs(60)),
        limits: PolicyLimits { max_attempts: Some(8), jitter: Some(0.5), deadline: Some(Duration::from_secs(3_600)) },
    };
    assert_eq!(config.policies, BTreeMap::from([("bank".to_owned(), bank)]));
    let limits = PolicyLimits { max_attempts: Some(3), ..PolicyLimits::default() };
    let charge = HandlerConfig {
        retry: Some(RetryConfig::Policy(PolicyConfig::Fixed { delay: Duration::from_secs(1), limits })),
        timeout: Some(Duration::from_secs(5)),
        concurrency: Some(32),
        ordered: Some(Ordered::Relaxed),
        pipelined: Some(true),
        order: Some(Order::Priority),
        on_dead_letter: Some(OnDeadLetter::Continue),
        paused: Some(true),
        filter: Some(Filter::prefix("type", "order.")),
        learned_filter: Some(
            filter::learned()
                .features(["bank"])
                .label(filter::feedback(["order.canceled"], Duration::from_secs(86_400)).expected())
                .threshold(0.9)
                .explore(0.1),
        ),
        priority: Some(learned_priority().cost("weight").cost_of("order.created", 2.5).features(["pages"])),
        route: Some(RouteConfig::Fixed("north".to_owned())),
    };
    assert_eq!(config.handlers["charge"], charge);
    assert_eq!(config.handlers["order.mail"].on_dead_letter, Some(OnDeadLetter::Hold));
}

#[test]
fn a_handler_comes_before_its_group() {
    let config = Config::parse(WHOLE, "oncue.toml").unwrap();
    let concurrency = |id, group| config.handler(id, group).concurrency;
    assert_eq!(concurrency("charge", Some("billing")), Some(32));
    assert_eq!(concurrency("refund", Some("billing")), Some(4));
    assert_eq!(concurrency("refund", Some("shipping")), None);
    assert_eq!(config.defaults.retry, Some(RetryConfig::Named("bank".to_owned())));
    assert_eq!(Config::default().handler("charge", None), HandlerConfig::default());
}

#[test]
fn all_problems_are_found_at_once_each_with_its_place_and_what_would_be_right() {
    let text = r#"
[defaults]
concurency = 4
timeout = "5 sek"

[handler.charge]
paused = true

[handlers.charge]
concurrency = 0
timeout = 30
ordered = "relax"
retry = { kind = "expo", delay = "1s" }
on_dead_letter = 1

[handlers.order.mail]
paused = "yes"

[groups]
billing = { ordered = "relaxed", on_dead_letter = "hold", order = "lifo" }
shipping = { ordered = "strict", order = "lifo", timeout = "0s" }

[policies.bank]
kind = "fixed"
"#;
    let expected = [
        "oncue.toml:3:1: defaults.concurency: unknown key `concurency`: did you mean `concurrency`?",
        "oncue.toml:4:11: defaults.timeout: \"5 sek\" is not a duration such as \"200ms\", \"5s\" or \"1m30s\": `sek` is no \
         unit; the units are h, m, s, ms, us and ns",
        "oncue.toml:6:2: handler: unknown key `handler`: did you mean `handlers`?",
        "oncue.toml:10:15: handlers.charge.concurrency: 0 would never handle anything: give 1 or more, or say paused = true",
        "oncue.toml:11:11: handlers.charge.timeout: 30 has no unit: write a duration as text, as \"30s\"",
        "oncue.toml:12:11: handlers.charge.ordered: \"relax\" is no value of this key: did you mean `relaxed`?",
        "oncue.toml:13:18: handlers.charge.retry.kind: \"expo\" is no kind of retry policy: did you mean `exponential`?",
        "oncue.toml:14:18: handlers.charge.on_dead_letter: 1 is no value of this key: the values are continue, hold",
        "oncue.toml:16:17: handlers.order.mail: unknown key `mail`: the keys are retry, timeout, concurrency, ordered, \
         pipelined, order, on_dead_letter, paused, filter, learned_filter, priority, route; a name with a dot needs quotes, as [handlers.\"order.mail\"]",
        "oncue.toml:20:51: groups.billing.on_dead_letter: \"hold\" makes later events of a key wait, and ordered = \
         \"relaxed\" lets them pass: choose one",
        "oncue.toml:21:42: groups.shipping.order: \"lifo\" gives later events of a key first, and ordered = \"strict\" \
         never does: choose one",
        "oncue.toml:21:60: groups.shipping.timeout: 0 would fail every attempt: give a longer one, or none",
        "oncue.toml:23:1: policies.bank: `delay` is missing: add delay = \"1s\"",
    ];
    assert_eq!(problems(text), expected);
}

#[test]
fn errors_of_the_syntax_come_alone() {
    let found = problems("[defaults\nconcurency = 4\n[handlers.charge]\ntimeout = 5s\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0], "oncue.toml:1:10: unclosed table, expected `]`");
    assert_eq!(found[1], "oncue.toml:4:11: `5s`: string values must be quoted, expected literal string");
}

#[test]
fn what_only_the_program_knows_is_checked_with_it() {
    let text = "[handlers.chrage]\nretry = 'bnak'\n[groups.billing]\n[handlers.mail]\nretry = 'mail'\n\
                [defaults]\nretry = 'other'\n[policies.bank]\nkind = 'never'\n";
    let config = Config::parse(text, "oncue.toml").unwrap();
    let known = Known {
        policies: BTreeSet::from(["mail"]),
        handlers: BTreeSet::from(["charge", "mail"]),
        groups: BTreeSet::new(),
    };
    let found: Vec<_> = config.check(&known).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "oncue.toml:1:11: warning: handlers.chrage: the program has no handler \"chrage\": did you mean `charge`?",
            "oncue.toml:2:9: handlers.chrage.retry: there is no retry policy \"bnak\", in the file or in code: did you \
             mean `bank`?",
            "oncue.toml:3:9: warning: groups.billing: the program has no group \"billing\": there are no groups",
            "oncue.toml:7:9: defaults.retry: there is no retry policy \"other\", in the file or in code: the policies are \
             bank, mail",
        ]
    );
    let all = Known { policies: BTreeSet::from(["mail", "bnak", "other"]), ..known };
    assert!(config.check(&all).iter().all(|problem| problem.severity == Severity::Warning));
}

#[test]
fn a_configuration_made_in_code_is_checked_without_places() {
    let retry = Some(RetryConfig::Named("bank".to_owned()));
    let config = Config { defaults: HandlerConfig { retry, ..HandlerConfig::default() }, ..Config::default() };
    let found = config.check(&Known::default());
    assert_eq!(found.len(), 1);
    assert!(found[0].place.is_none() && found[0].to_string().starts_with("defaults.retry: there is no retry policy"));
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("oncue.toml");
    let error = |path: &Path| Config::read(path).unwrap_err().to_string();
    assert!(error(&path).contains("oncue.toml` cannot be read: "), "{}", error(&path));
    assert!(error(directory.path()).contains("cannot be read"));
    std::fs::write(&path, b"[defaults]\n# \xff\n").unwrap();
    assert!(
        error(&path).ends_with("oncue.toml:2:1: the line is not UTF-8: save the file as UTF-8"),
        "{}",
        error(&path)
    );
    std::fs::write(&path, "#".repeat(usize::try_from(MAX_BYTES).unwrap() + 1)).unwrap();
    assert!(error(&path).ends_with("the file is larger than 4194304 bytes: is it the right one?"));
    std::fs::write(&path, WHOLE).unwrap();
    assert_eq!(Config::read(&path).unwrap(), Config::parse(WHOLE, "another name").unwrap());
}

#[test]
fn an_override_reads_json_as_strictly_as_a_file() {
    let wrong = |value: Value| serde_json::from_value::<HandlerConfig>(value).unwrap_err().to_string();
    assert_eq!(
        wrong(json!({"concurrency": -1, "retry": {"kind": "fixed", "delay": 5}})),
        "retry.delay: 5 has no unit: write a duration as text, as \"5s\"; concurrency: -1 is not a whole number of 1 or \
         more, without quotes"
    );
    assert_eq!(wrong(json!([])), "a list is not a table");
    assert!(serde_json::from_value::<RetryConfig>(json!({"kind": "list", "delays": []})).is_err());
    let nothing: HandlerConfig = serde_json::from_value(json!({"timeout": null})).unwrap();
    assert!(nothing.is_empty());
}

#[test]
fn what_is_wrong_with_a_learned_filter_is_told_with_its_place() {
    let found = problems(
        "[handlers.a]\nlearned_filter = { threshold = 2, label = 'ded', features = 'bank', explor = 1 }\n\
         [handlers.b]\nlearned_filter = { label = { within = '5s' } }\n\
         [handlers.c]\nlearned_filter = { label = { feedback = [], within = '0s' } }",
    );
    let all = found.join("\n");
    for told in [
        "oncue.toml:2",
        "threshold = 2 is no probability",
        "`dead`",
        "is not a list of texts",
        "unknown key `explor`",
        "`feedback` is missing: add feedback = [\"order.canceled\"]",
        "its feedback names no type",
        "would have to come at once",
    ] {
        assert!(all.contains(told), "{told}\n{all}");
    }
}

#[test]
fn the_documentation_names_every_key_and_its_examples_are_right() {
    let page = include_str!("../../../../docs/configuration.md");
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    assert!(blocks.len() >= 3, "{blocks:?}");
    for block in blocks {
        if let Err(error) = Config::parse(block, "docs/configuration.md") {
            panic!("{error}\n{block}");
        }
    }
    let sections = [
        "handlers.a]",
        "policies.a]\nkind = 'exponential'",
        "policies.a]\nkind = 'fixed'",
        "policies.a]\nkind = 'list'",
    ];
    for section in sections {
        let found = problems(&format!("[{section}\nx = 1"));
        let keys = found.iter().find_map(|problem| problem.split_once("the keys are ")).unwrap().1;
        for key in keys.split(", ") {
            assert!(page.contains(&format!("| `{key}` |")), "[{section}: `{key}` is not in docs/configuration.md");
        }
    }
}

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1_u64..100_000).prop_map(Duration::from_millis),
        (1_u64..=u64::MAX, 0_u32..1_000_000_000).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
    ]
}

/// Numbers as people write them: of others, `serde_json` may read the last bit back wrong.
fn thousandths(range: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = f64> {
    range.prop_map(|thousandths| f64::from(thousandths) / 1_000.0)
}

fn limits() -> impl Strategy<Value = PolicyLimits> {
    (option::of(1_u32..), option::of(thousandths(0..=1_000)), option::of(durations()))
        .prop_map(|(max_attempts, jitter, deadline)| PolicyLimits { max_attempts, jitter, deadline })
}

fn policies() -> impl Strategy<Value = PolicyConfig> {
    let growing =
        (option::of((1_u64..1_000).prop_map(Duration::from_nanos)), option::of(thousandths(1_000..=9_000)), limits());
    prop_oneof![
        (growing, option::of((1_u64..).prop_map(Duration::from_secs))).prop_map(
            |((initial, factor, limits), max_delay)| {
                PolicyConfig::Exponential { initial, factor, max_delay, limits }
            }
        ),
        (durations(), limits()).prop_map(|(delay, limits)| PolicyConfig::Fixed { delay, limits }),
        (proptest::collection::vec(durations(), 1..4), limits())
            .prop_map(|(delays, limits)| PolicyConfig::List { delays, limits }),
        Just(PolicyConfig::Never),
    ]
}

fn filters() -> impl Strategy<Value = Filter> {
    let leaf = ("[a-z]{1,8}", "[a-z.]{1,8}").prop_map(|(attribute, value)| Filter::prefix(&attribute, value));
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(Filter::negate),
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Filter::all),
            proptest::collection::vec(inner, 1..3).prop_map(Filter::any),
        ]
    })
}

fn learned_filters() -> impl Strategy<Value = LearnedFilter> {
    let within = (1_u64..1_000_000_000).prop_map(Duration::from_micros);
    let feedback = (proptest::collection::vec("[a-z.]{1,8}", 1..3), within, any::<bool>()).prop_map(
        |(types, within, expected)| {
            let feedback = filter::feedback(types, within);
            Label::from(if expected { feedback.expected() } else { feedback })
        },
    );
    let label = prop_oneof![Just(Label::Dead), Just(Label::Failed), feedback];
    let features = proptest::collection::vec("[a-z]{1,8}", 0..3);
    (label, features, option::of(thousandths(1..=999)), thousandths(1..=999)).prop_map(
        |(label, features, threshold, explore)| {
            let filter = filter::learned().label(label).features(features).explore(explore);
            threshold.into_iter().fold(filter, LearnedFilter::threshold)
        },
    )
}

fn priorities() -> impl Strategy<Value = LearnedPriority> {
    let costs = btree_map("[a-z.]{1,8}", thousandths(0..=9_000), 0..3);
    (option::of("[a-z]{1,8}"), any::<bool>(), costs, proptest::collection::vec("[a-z]{1,8}", 0..3)).prop_map(
        |(cost, is_attribute, costs, features)| {
            let priority = learned_priority().features(features);
            let priority = match cost {
                Some(name) if is_attribute => priority.cost_attribute(name),
                Some(path) => priority.cost(path),
                None => priority,
            };
            costs.into_iter().fold(priority, |priority, (event_type, cost)| priority.cost_of(event_type, cost))
        },
    )
}

fn handlers() -> impl Strategy<Value = HandlerConfig> {
    let retry = prop_oneof![any::<String>().prop_map(RetryConfig::Named), policies().prop_map(RetryConfig::Policy),];
    let order = prop_oneof![
        Just((None, None, None)),
        Just((Some(Ordered::Relaxed), Some(Order::Lifo), Some(OnDeadLetter::Continue))),
        Just((Some(Ordered::Strict), Some(Order::Priority), Some(OnDeadLetter::Hold))),
        Just((None, Some(Order::Fifo), None)),
    ];
    let flags = (option::of(any::<bool>()), option::of(any::<bool>()));
    let numbers = (option::of(durations()), option::of(1_usize..1 << 40), flags);
    let learned = (option::of(learned_filters()), option::of(priorities()));
    (option::of(retry), numbers, order, option::of(filters()), learned).prop_map(
        |(
            retry,
            (timeout, concurrency, (paused, pipelined)),
            (ordered, order, on_dead_letter),
            filter,
            (learned_filter, priority),
        )| HandlerConfig {
            retry,
            timeout,
            concurrency,
            ordered,
            pipelined,
            order,
            on_dead_letter,
            paused,
            filter,
            learned_filter,
            priority,
            route: None,
        },
    )
}

fn configs() -> impl Strategy<Value = Config> {
    let name = || prop_oneof!["[a-z_.]{0,9}", any::<String>()];
    (
        btree_map(name(), policies(), 0..3),
        handlers(),
        btree_map(name(), handlers(), 0..3),
        btree_map(name(), handlers(), 0..3),
    )
        .prop_map(|(policies, defaults, groups, handlers)| Config {
            policies,
            defaults,
            groups,
            handlers,
            ..Config::default()
        })
}

/// Words and signs that stand in configuration files, so that text of them often comes far.
fn soup() -> impl Strategy<Value = String> {
    let parts = vec![
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\n",
        "\n",
        "\"",
        "'",
        "\"\"\"",
        "#",
        " ",
        "\r\n",
        "é",
        "\u{feff}",
        "policies",
        "defaults",
        "handlers",
        "groups",
        "a",
        "kind",
        "delays",
        "retry",
        "timeout",
        "concurrency",
        "ordered",
        "filter",
        "= 0",
        "= 1e999",
        "= -5",
        "= nan",
        "= true",
        "= \"5s\"",
        "= \"fixed\"",
        "= \"exponential\"",
        "= [\"1s\", 2]",
        "= 1979-05-27",
        "\\u12",
        "[handlers.a]\n",
        "[policies.a]\n",
        "[defaults]\n",
    ];
    proptest::collection::vec(select(parts), 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn a_valid_configuration_goes_there_and_back(config in configs()) {
        let text = toml::to_string(&config).unwrap();
        let back = Config::parse(&text, "oncue.toml");
        prop_assert!(back.is_ok(), "{}\n{text}", back.unwrap_err());
        prop_assert_eq!(back.unwrap(), config);
    }

    #[test]
    fn an_override_goes_there_and_back_through_json(config in handlers()) {
        let text = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(serde_json::from_str::<HandlerConfig>(&text).unwrap(), config.clone());
        prop_assert!(config.problems().is_empty());
    }

    #[test]
    fn what_is_said_first_counts_and_nothing_is_lost(one in handlers(), two in handlers()) {
        let both = one.clone().or(two.clone());
        prop_assert_eq!(both.timeout, one.timeout.or(two.timeout));
        prop_assert_eq!(both.clone().or(one.clone()), both.clone());
        prop_assert_eq!(one.clone().or(HandlerConfig::default()), one.clone());
        prop_assert_eq!(HandlerConfig::default().or(two.clone()), two);
    }

    #[test]
    fn no_text_panics_and_every_problem_has_a_place(text in prop_oneof![any::<String>(), soup()]) {
        match Config::parse(&text, "oncue.toml") {
            Ok(config) => {
                let sections = config.handlers.len() + config.groups.len();
                prop_assert!(config.check(&Known::default()).len() >= sections, "each is unknown to this program");
            }
            Err(ConfigError::Invalid { problems }) => {
                prop_assert!(!problems.is_empty());
                let lines = u32::try_from(text.matches('\n').count()).unwrap() + 1;
                for problem in problems {
                    let place = problem.place;
                    prop_assert!(place.is_some_and(|place| (1..=lines).contains(&place.line)), "{problem:?}");
                }
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn a_file_with_a_slip_never_panics(at in 0..WHOLE.len(), put in any::<char>(), cut in 0_usize..4) {
        let mut text: Vec<char> = WHOLE.chars().collect();
        let end = (at + cut).min(text.len());
        text.splice(at.min(end)..end, [put]);
        let text: String = text.into_iter().collect();
        if let Err(error) = Config::parse(&text, "oncue.toml") {
            prop_assert!(error.to_string().starts_with("oncue.toml:"), "{error}");
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Config::of_bytes(&bytes, "oncue.toml");
    }
}
