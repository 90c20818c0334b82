//! The handler graph `G = (V, E)` as data: what can be listed, drawn and checked before anything runs.
//!
//! V = handlers. An edge is labelled with the event type that one emits and the other consumes, or with `after`: both
//! handle the same event, one first.

mod component;
mod error;
mod loops;
mod render;

use std::collections::HashMap;

use crate::event::takes;

pub use component::{Component, Member};
pub use error::GraphError;
pub use loops::Loop;

/// A handler as the graph sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vertex {
    /// Its id, unique in the graph.
    pub id: String,
    /// The event types that it consumes; empty = every type.
    pub consumes: Vec<String>,
    /// The event types that it may emit.
    pub emits: Vec<String>,
}

impl Vertex {
    /// A handler of these types.
    #[must_use]
    pub fn new(id: &str, consumes: &[&str], emits: &[&str]) -> Self {
        let own = |types: &[&str]| types.iter().map(|name| (*name).to_owned()).collect();
        Self { id: id.to_owned(), consumes: own(consumes), emits: own(emits) }
    }

    /// Whether it consumes events of this type.
    #[must_use]
    pub fn takes(&self, event_type: &str) -> bool {
        takes(&self.consumes, event_type)
    }

    fn shares_a_type_with(&self, other: &Self) -> bool {
        other.consumes.is_empty() || other.consumes.iter().any(|event_type| self.takes(event_type))
    }
}

/// An `after` edge: `handler` handles an event only once `first` is through with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// The one that waits.
    pub handler: String,
    /// The one that it waits for.
    pub first: String,
}

impl After {
    /// `handler.after(first)`.
    #[must_use]
    pub fn new(handler: &str, first: &str) -> Self {
        Self { handler: handler.to_owned(), first: first.to_owned() }
    }
}

/// What an edge stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label<'a> {
    /// One emits this event type, the other consumes it.
    Event(&'a str),
    /// Both handle the same event, one first.
    After,
}

/// An edge between two vertices, by their indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge<'a> {
    /// The one that emits, or goes first.
    pub from: usize,
    /// The one that consumes, or follows.
    pub to: usize,
    /// Which of the two.
    pub label: Label<'a>,
}

/// The handlers and what connects them. Checked: ids are unique and `after` edges have no cycle.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    vertices: Vec<Vertex>,
    /// (first, then), each once.
    after: Vec<(usize, usize)>,
    components: Vec<Component>,
}

impl Graph {
    /// The graph of these handlers.
    ///
    /// # Errors
    /// Two handlers with one id; an `after` edge to nothing, to itself, in a cycle, between handlers that never see the
    /// same event, or that would join more than [`MAX_MEMBERS`](crate::transport::MAX_MEMBERS) handlers.
    pub fn new(
        vertices: impl IntoIterator<Item = Vertex>,
        after: impl IntoIterator<Item = After>,
    ) -> Result<Self, GraphError> {
        let vertices: Vec<Vertex> = vertices.into_iter().collect();
        let mut index_of = HashMap::with_capacity(vertices.len());
        for (index, vertex) in vertices.iter().enumerate() {
            if index_of.insert(vertex.id.as_str(), index).is_some() {
                return Err(GraphError::DuplicateId { id: vertex.id.clone() });
            }
        }
        let mut edges = Vec::new();
        for After { handler, first } in after {
            if handler == first {
                return Err(GraphError::AfterItself { handler });
            }
            let Some(then) = index_of.get(handler.as_str()) else {
                return Err(GraphError::UnknownHandler { handler, first });
            };
            let Some(before) = index_of.get(first.as_str()) else {
                return Err(GraphError::UnknownAfter { handler, first });
            };
            if !vertices[*before].shares_a_type_with(&vertices[*then]) {
                return Err(GraphError::NothingInCommon { handler, first });
            }
            edges.push((*before, *then));
        }
        edges.sort_unstable();
        edges.dedup();
        let components = component::components(&vertices, &edges)?;
        Ok(Self { vertices, after: edges, components })
    }

    /// V: the handlers, in the order given.
    #[must_use]
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// The index of a handler.
    #[must_use]
    pub fn index_of(&self, id: &str) -> Option<usize> {
        self.vertices.iter().position(|vertex| vertex.id == id)
    }

    /// E: `after` edges first, then those of event types. A handler without types consumes every type, so every
    /// emitted one leads to it.
    #[must_use]
    pub fn edges(&self) -> Vec<Edge<'_>> {
        let after = self.after.iter().map(|&(from, to)| Edge { from, to, label: Label::After });
        let events = self.vertices.iter().enumerate().flat_map(|(from, emitter)| {
            emitter.emits.iter().flat_map(move |event_type| {
                let consumers = self.vertices.iter().enumerate().filter(|(_, vertex)| vertex.takes(event_type));
                consumers.map(move |(to, _)| Edge { from, to, label: Label::Event(event_type) })
            })
        });
        after.chain(events).collect()
    }

    /// Handlers that `after` edges connect, each of which runs as one subscription; a handler without such edges is a
    /// component alone. In the order of their first handlers.
    #[must_use]
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// Loops of event types: handlers whose events come back to them. Allowed (a saga may well go round), bounded by
    /// [`MAX_HOPS`](crate::event::MAX_HOPS), and worth knowing of.
    #[must_use]
    pub fn loops(&self) -> Vec<Loop> {
        loops::find(&self.vertices)
    }
}

#[cfg(test)]
mod tests;
