//! `oncue graph`: the handlers that a log knows, and what connects them.

use std::io::{self, IsTerminal as _};

use clap::{Args, ValueEnum};
use oncue::{
    graph::{After, Graph, GraphError, Label, Vertex},
    transport::SubscriptionInfo,
};
use serde_json::{Value, json};

use super::{CommandError, print, view::View};
use crate::{
    columns::{Column, columns, plain},
    number::grouped,
};

/// Show the graph G = (V, E) of the handlers in a log
///
/// V: the handlers. E: one edge for each event type that one handler may emit and another takes, and one for each `after`.
/// All of it as the handlers were registered last; one that is not served any more is in it until it is removed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue graph --data ./data\n  \
                        oncue graph --data ./data --format dot | dot -Tsvg > handlers.svg\n  \
                        oncue graph --data ./data --json | jq '.edges[] | select(.after)'\n\n\
                        Exit codes: 0 all is done; 1 the log cannot be read, or its handlers are no graph; 2 there is no \
                        such directory or log.")]
pub(super) struct ShowGraph {
    #[command(flatten)]
    view: View,

    /// How to write it: for Graphviz, for programs, or for people. Without it, text on a terminal and dot elsewhere
    #[arg(long, value_enum, conflicts_with = "json")]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Dot,
    Json,
    Text,
}

/// The graph, and which `after` edges are not in it.
struct Drawn {
    graph: Graph,
    left_out: Vec<LeftOut>,
}

/// An `after` edge that is in no graph, and why.
struct LeftOut {
    edge: After,
    why: &'static str,
}

impl LeftOut {
    fn text(&self) -> String {
        format!("left out: `{}` after `{}`, as {}", plain(&self.edge.handler), plain(&self.edge.first), self.why)
    }
}

impl ShowGraph {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let drawn = Drawn::of(&self.view.look(|log| Ok(log.subscriptions()))?)?;
        let format = match self.format {
            Some(format) => format,
            None if self.view.json => Format::Json,
            None if io::stdout().is_terminal() => Format::Text,
            None => Format::Dot,
        };
        print(&match format {
            Format::Dot => drawn.dot(),
            Format::Json => format!("{:#}\n", drawn.json()),
            Format::Text => drawn.text(),
        })
    }
}

impl Drawn {
    /// Handlers that are not served any more stay in the log as they were last: an edge from or to one may not fit.
    fn of(known: &[SubscriptionInfo]) -> Result<Self, GraphError> {
        let vertices: Vec<_> = known
            .iter()
            .map(|known| Vertex { id: known.id.clone(), consumes: known.types.clone(), emits: known.emits.clone() })
            .collect();
        let edges = known.iter().flat_map(|known| known.after.iter().map(|first| After::new(&known.id, first)));
        let is_there = |edge: &After| known.iter().any(|known| known.id == edge.first);
        let (mut after, missing): (Vec<_>, Vec<_>) = edges.partition(is_there);
        let missing = missing.into_iter().map(|edge| LeftOut { edge, why: "that handler is not there any more" });
        let mut left_out: Vec<_> = missing.collect();
        loop {
            match Graph::new(vertices.clone(), after.clone()) {
                Err(GraphError::NothingInCommon { handler, first }) => {
                    let edge = After { handler, first };
                    after.retain(|known| *known != edge);
                    left_out.push(LeftOut { edge, why: "they take no event type in common any more" });
                }
                graph => return Ok(Self { graph: graph?, left_out }),
            }
        }
    }

    fn dot(&self) -> String {
        let notes = self.left_out.iter().map(|left_out| format!("// {}\n", left_out.text()));
        notes.collect::<String>() + &self.graph.to_dot()
    }

    fn json(&self) -> Value {
        let mut json = self.graph.to_json();
        json["vertex_count"] = self.graph.vertices().len().into();
        json["edge_count"] = self.graph.edges().len().into();
        let left_out = self.left_out.iter();
        json["left_out"] = left_out
            .map(|LeftOut { edge, why }| json!({"from": edge.first, "to": edge.handler, "after": true, "why": why}))
            .collect();
        json
    }

    fn text(&self) -> String {
        let (vertices, edges) = (self.graph.vertices(), self.graph.edges());
        let mut out = format!("|V| = {}, |E| = {}\n", grouped(vertices.len() as u64), grouped(edges.len() as u64));
        let types = |types: &[String], none: &str| if types.is_empty() { none.to_owned() } else { types.join(", ") };
        let handler =
            |vertex: &Vertex| vec![vertex.id.clone(), types(&vertex.consumes, "every type"), types(&vertex.emits, "–")];
        let heading = [Column::Text("HANDLER"), Column::Text("TAKES"), Column::Text("EMITS")];
        out += &format!("\n{}", columns(&heading, &vertices.iter().map(handler).collect::<Vec<_>>()));
        if !edges.is_empty() {
            let rows = edges.iter().map(|edge| {
                let label = match edge.label {
                    Label::Event(event_type) => event_type,
                    Label::After => "after",
                };
                vec![vertices[edge.from].id.clone(), vertices[edge.to].id.clone(), label.to_owned()]
            });
            let heading = [Column::Text("FROM"), Column::Text("TO"), Column::Text("LABEL")];
            out += &format!("\n{}", columns(&heading, &rows.collect::<Vec<_>>()));
        }
        let loops = self.graph.loops();
        if !loops.is_empty() {
            out.push('\n');
        }
        for one in loops {
            let handlers: Vec<_> = one.handlers.iter().map(|vertex| plain(&vertices[*vertex].id)).collect();
            out += &format!("loop: {} (by {})\n", handlers.join(", "), plain(&one.types.join(", ")));
        }
        let notes: String = self.left_out.iter().map(|left_out| left_out.text() + "\n").collect();
        if notes.is_empty() { out } else { format!("{out}\n{notes}") }
    }
}

#[cfg(test)]
mod tests {
    use oncue::metrics::HandlerStats;

    use super::*;

    fn known(id: &str, types: &[&str], emits: &[&str], after: &[&str]) -> SubscriptionInfo {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        SubscriptionInfo {
            id: id.to_owned(),
            topic: "events".to_owned(),
            types: own(types),
            filter: None,
            emits: own(emits),
            after: own(after),
            attached: false,
            lag: 0,
            retrying: 0,
            dead: 0,
            holding: 0,
            parked_keys: 0,
            full: false,
            oldest: None,
            missed: 0,
            in_flight: 0,
            stats: HandlerStats::default(),
            by_type: Vec::new(),
        }
    }

    #[test]
    fn each_form_has_every_edge() {
        let drawn = Drawn::of(&[
            known("a", &["x"], &["y"], &[]),
            known("b", &["x", "y"], &["x"], &["a"]),
            known("c", &[], &[], &[]),
        ]);
        let drawn = drawn.unwrap();
        let json = drawn.json();
        // a → b after; y to b and c; x to a, b and c.
        assert_eq!((&json["vertex_count"], &json["edge_count"], &json["left_out"]), (&3.into(), &6.into(), &json!([])));
        assert_eq!(json["edges"].as_array().unwrap().len(), 6);
        assert_eq!(drawn.dot().matches(" -> ").count(), 6);
        let text = drawn.text();
        assert!(text.starts_with("|V| = 3, |E| = 6\n\nHANDLER  TAKES       EMITS\n"), "{text}");
        assert!(text.contains("\na     b   after\n") && text.contains("\nb     c   x\n"), "{text}");
        assert!(text.contains("\nloop: "), "{text}");
    }

    #[test]
    fn edges_to_what_is_gone_are_left_out_and_told() {
        let drawn = Drawn::of(&[known("a", &["x"], &[], &["gone"]), known("b", &["y"], &[], &["a"])]).unwrap();
        assert_eq!(drawn.graph.edges(), []);
        let dot = drawn.dot();
        assert!(dot.starts_with("// left out: `a` after `gone`, as that handler is not there any more\n"), "{dot}");
        assert!(drawn.text().contains("left out: `b` after `a`, as they take no event type in common"));
        assert_eq!(drawn.json()["left_out"][0]["from"], "gone");
    }

    #[test]
    fn nothing_is_a_graph_too() {
        assert_eq!(Drawn::of(&[]).unwrap().json()["edge_count"], 0);
        assert!(Drawn::of(&[]).unwrap().text().starts_with("|V| = 0, |E| = 0\n"));
    }
}
