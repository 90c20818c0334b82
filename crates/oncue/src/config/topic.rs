//! What a file says of a topic.

use serde::Serialize;
use serde_json::Value;

use super::{
    problem::{Findings, KeyPath},
    reader::{self, Table},
};
use crate::transport::{Retention, retention_age, retention_bytes};

/// What a topic keeps: `retention`, `retain` and `retain_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TopicConfig {
    /// Nothing if the section says nothing.
    pub retention: Option<Retention>,
}

/// The values of `retention`.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Keep {
    Forever,
    Settled,
}

impl TopicConfig {
    pub(super) fn read(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<Self> {
        let mut table = Table::of(value, path, findings)?;
        let keep = table.read("retention", |value, path, findings| {
            reader::choice(value, path, findings, &[Keep::Forever, Keep::Settled])
        });
        let age = table.read("retain", |value, path, findings| {
            let text = value.as_str().map_or_else(|| reader::shown(value), str::to_owned);
            retention_age(&text).map_err(|what| findings.value(path, what)).ok()
        });
        let bytes = table.read("retain_bytes", |value, path, findings| {
            let text = value.as_str().map_or_else(|| reader::shown(value), str::to_owned);
            retention_bytes(&text).map_err(|what| findings.value(path, what)).ok()
        });
        table.finish();
        Some(Self { retention: Retention::said(keep.map(|keep| matches!(keep, Keep::Settled)), age, bytes) })
    }
}
