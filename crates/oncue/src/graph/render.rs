//! The graph for eyes (Graphviz) and for programs (JSON).

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Graph, Label};

impl Graph {
    /// Graphviz text: handlers as boxes, event types on the edges, `after` edges dashed. Handlers that `after` joins
    /// stand together in a frame.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph oncue {\n  rankdir=LR;\n  node [shape=box];\n");
        // Writing to a String does not fail.
        for (number, component) in self.components().iter().enumerate() {
            let handlers = component.members().iter().map(|member| quoted(&self.vertices()[member.vertex].id));
            let handlers: Vec<_> = handlers.collect();
            let _ = if handlers.len() > 1 {
                writeln!(dot, "  subgraph cluster_{number} {{ {}; }}", handlers.join("; "))
            } else {
                writeln!(dot, "  {};", handlers.join("; "))
            };
        }
        for edge in self.edges() {
            let [from, to] = [edge.from, edge.to].map(|vertex| quoted(&self.vertices()[vertex].id));
            let _ = match edge.label {
                Label::After => writeln!(dot, "  {from} -> {to} [label=\"after\", style=dashed];"),
                Label::Event(event_type) => writeln!(dot, "  {from} -> {to} [label={}];", quoted(event_type)),
            };
        }
        dot.push_str("}\n");
        dot
    }

    /// `{"handlers": [{"id", "consumes", "emits"}], "edges": [{"from", "to", "event" | "after"}], "components":
    /// [[id, …]], "loops": [{"handlers", "types"}]}`, handlers by their ids; components in topological order.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let id = |vertex: usize| self.vertices()[vertex].id.as_str();
        let handlers: Vec<_> = self
            .vertices()
            .iter()
            .map(|vertex| json!({"id": vertex.id, "consumes": vertex.consumes, "emits": vertex.emits}))
            .collect();
        let edges: Vec<_> = self
            .edges()
            .iter()
            .map(|edge| match edge.label {
                Label::After => json!({"from": id(edge.from), "to": id(edge.to), "after": true}),
                Label::Event(event_type) => json!({"from": id(edge.from), "to": id(edge.to), "event": event_type}),
            })
            .collect();
        let components: Vec<Vec<_>> = self
            .components()
            .iter()
            .map(|component| component.members().iter().map(|member| id(member.vertex)).collect())
            .collect();
        let loops: Vec<_> = self
            .loops()
            .iter()
            .map(|one| {
                let handlers: Vec<_> = one.handlers.iter().map(|vertex| id(*vertex)).collect();
                json!({"handlers": handlers, "types": one.types})
            })
            .collect();
        json!({"handlers": handlers, "edges": edges, "components": components, "loops": loops})
    }
}

/// A Graphviz string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
