mod laws;
mod managing;
mod ownership;
mod sets;
mod walking;

use serde_json::{Value, json};

use super::{ApplyError, FieldManager};
use crate::schema::Schema;
use crate::testing::schema;

pub(super) const NOW: &str = "2026-01-01T00:00:00Z";
pub(super) const LATER: &str = "2026-01-01T00:00:05Z";

/// An object and the requests that are made to it.
pub(super) struct World {
    schema: Schema,
    version: &'static str,
    kind: &'static str,
    pub(super) live: Value,
}

impl World {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            schema: schema(&format!("io.test.v1.{kind}")),
            version: "v1",
            kind,
            live: json!({}),
        }
    }

    fn whole(&self, part: Value) -> Value {
        let mut object = json!({"apiVersion": self.version, "kind": self.kind, "metadata": {"name": "x", "namespace": "n"}});
        crate::merge_patch::apply(&mut object, &part);
        object
    }

    pub(super) fn apply(&mut self, manager: &str, part: Value) -> Result<(), ApplyError> {
        self.apply_at(manager, part, false, NOW)
    }

    pub(super) fn force(&mut self, manager: &str, part: Value) {
        self.apply_at(manager, part, true, NOW).unwrap();
    }

    pub(super) fn apply_at(
        &mut self,
        manager: &str,
        part: Value,
        force: bool,
        now: &str,
    ) -> Result<(), ApplyError> {
        let config = self.whole(part);
        self.live = FieldManager::new(&self.schema, self.version)
            .apply(&self.live, &config, manager, force, now)?;
        self.live["metadata"]["uid"] = json!("u");
        Ok(())
    }

    /// A merge patch.
    pub(super) fn patch(&mut self, manager: &str, part: Value, now: &str) {
        let mut new = self.whole(self.live.clone());
        crate::merge_patch::apply(&mut new, &part);
        FieldManager::new(&self.schema, self.version)
            .update(&self.live, &mut new, manager, now)
            .unwrap();
        self.live = new;
        self.live["metadata"]["uid"] = json!("u");
    }

    /// What a manager owns, by name and operation.
    pub(super) fn owned(&self, manager: &str, operation: &str) -> Value {
        self.entry(manager, operation)["fieldsV1"].clone()
    }

    pub(super) fn entry(&self, manager: &str, operation: &str) -> Value {
        let entries = self.live["metadata"]["managedFields"].as_array();
        entries
            .into_iter()
            .flatten()
            .find(|e| e["manager"] == manager && e["operation"] == operation)
            .cloned()
            .unwrap_or(Value::Null)
    }

    pub(super) fn names(&self) -> Vec<&str> {
        let entries = self.live["metadata"]["managedFields"].as_array();
        entries
            .into_iter()
            .flatten()
            .map(|e| e["manager"].as_str().unwrap())
            .collect()
    }
}
