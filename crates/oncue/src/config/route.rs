//! Learned routes as data: the handlers themselves are in code.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{
    learned::{tell, told_by},
    problem::{Findings, KeyPath},
    reader::{self, Table},
};
use crate::policy::{DEFAULT_ROUTE_DELAY_PER_S, DEFAULT_ROUTE_EXPLORE, LearnedRoute};

/// Which of the handlers of a route is given an event.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteConfig {
    /// Always this one; nothing is learned meanwhile.
    Fixed(String),
    /// The one that is learned to be best, by these rules.
    Learned(LearnedRoute),
}

impl RouteConfig {
    /// What follows for a route, of which code says `code`.
    pub(crate) fn route(&self, code: Option<LearnedRoute>) -> LearnedRoute {
        let code = code.unwrap_or_default();
        match self {
            Self::Fixed(arm) => code.fixed(arm),
            Self::Learned(rules) => rules.clone().with_arms(code.arms().to_vec()),
        }
    }

    /// Reads a name or a table, and looks at its values.
    pub(super) fn read(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<Self> {
        match value {
            Value::String(arm) => Some(Self::Fixed(arm.clone())),
            Value::Object(_) => rules(value, path, findings).map(Self::Learned),
            other => {
                let what = "is neither the name of one of its handlers nor a table such as { explore = 0.1 }";
                findings.value(path, format!("{} {what}", reader::shown(other)));
                None
            }
        }
    }
}

fn rules(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<LearnedRoute> {
    let mut table = Table::of(value, path, findings)?;
    let mut rules = LearnedRoute::default();
    if let Some(paths) = table.read("features", reader::texts) {
        rules = rules.features(paths);
    }
    if let Some(share) = table.read("explore", reader::number) {
        rules = rules.explore(share);
    }
    if let Some(cost) = table.read("delay_per_s", reader::number) {
        rules = rules.delay_per_s(cost);
    }
    let types = table.read("feedback", reader::texts);
    let (within, expected) = (table.read("within", reader::duration), table.read("expected", reader::boolean));
    table.finish();
    match types {
        Some(types) => rules = rules.feedback(told_by(types, within, expected)),
        None if within.is_some() || expected.is_some() => {
            findings.value(path, "`within` and `expected` speak of feedback: add feedback = [\"order.canceled\"]");
        }
        None => {}
    }
    rules.problems().into_iter().for_each(|what| findings.value(path, what));
    Some(rules)
}

/// As it is read.
pub(super) fn serialize<S: Serializer>(route: &Option<RouteConfig>, serializer: S) -> Result<S::Ok, S::Error> {
    route.as_ref().map(value).serialize(serializer)
}

fn value(route: &RouteConfig) -> Value {
    let rules = match route {
        RouteConfig::Fixed(arm) => return json!(arm),
        RouteConfig::Learned(rules) => rules,
    };
    let mut value = json!({});
    if !rules.paths().is_empty() {
        value["features"] = json!(rules.paths());
    }
    if rules.explored() != DEFAULT_ROUTE_EXPLORE {
        value["explore"] = json!(rules.explored());
    }
    if rules.cost_per_s() != DEFAULT_ROUTE_DELAY_PER_S {
        value["delay_per_s"] = json!(rules.cost_per_s());
    }
    if let Some(feedback) = rules.told_by() {
        tell(feedback, &mut value);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, HandlerConfig};

    fn read(text: &str) -> HandlerConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn it_goes_there_and_back() {
        for text in [
            r#"{"route":"north"}"#,
            r#"{"route":{}}"#,
            r#"{"route":{"delay_per_s":0.5,"explore":0.2,"features":["bank","payments.0.method"]}}"#,
            r#"{"route":{"expected":true,"feedback":["order.paid"],"within":"1m30s"}}"#,
        ] {
            let config = read(text);
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(&config).unwrap(), value);
            assert_eq!(read(&serde_json::to_string(&config).unwrap()), config);
        }
    }

    #[test]
    fn the_handlers_are_those_of_the_code() {
        let code = LearnedRoute::default().with_arms(vec!["north".into(), "south".into()]).features(["bank"]);
        let fixed = read(r#"{"route": "south"}"#).route.unwrap().route(Some(code.clone()));
        assert_eq!(fixed, code.clone().fixed("south"));
        let learned = read(r#"{"route": {"explore": 0.2}}"#).route.unwrap().route(Some(code));
        assert_eq!((learned.arms().len(), learned.explored(), learned.paths().len()), (2, 0.2, 0));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let text = "[handlers.a]\nroute = 5\n[handlers.b]\nroute = { explore = 0, delay_per_s = -1, featurs = [] }\n\
                    [handlers.c]\nroute = { within = '5s' }\n[handlers.d]\nroute = { feedback = [] }\n[defaults]\nroute = {}";
        let all = Config::parse(text, "oncue.toml").unwrap_err().to_string();
        for told in [
            "oncue.toml:2",
            "5 is neither the name of one of its handlers nor a table such as { explore = 0.1 }",
            "explore = 0 is no share",
            "delay_per_s = -1 is no cost",
            "unknown key `featurs`",
            "`within` and `expected` speak of feedback",
            "its feedback names no type",
            "defaults.route: a route is one handler's: say it in its section, as [handlers.charge]",
        ] {
            assert!(all.contains(told), "{told}\n{all}");
        }
    }
}
