//! Taints of nodes and the tolerations of pods.

use std::sync::Arc;

use serde::Deserialize;

/// What a taint does to pods that don't tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[allow(missing_docs)] // Kubernetes' own names
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
    /// An effect of a newer Kubernetes, which changes nothing here.
    #[serde(other)]
    Unknown,
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Taint {
    /// The key.
    pub key: Arc<str>,
    /// The value; may be empty.
    #[serde(default)]
    pub value: Arc<str>,
    /// What it does.
    pub effect: Effect,
}

/// How a toleration compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[allow(missing_docs)] // Kubernetes' own names
pub enum TolerationOperator {
    #[default]
    Equal,
    Exists,
    /// An operator of a newer Kubernetes, which tolerates nothing here.
    #[serde(other)]
    Unknown,
}

/// A toleration of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct Toleration {
    /// The key; empty, with [`TolerationOperator::Exists`], for every taint.
    pub key: Arc<str>,
    /// How it compares.
    pub operator: TolerationOperator,
    /// The value that [`TolerationOperator::Equal`] wants.
    pub value: Arc<str>,
    /// The effect that is tolerated; `None` for all.
    #[serde(deserialize_with = "effect_or_empty")]
    pub effect: Option<Effect>,
}

fn effect_or_empty<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Effect>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text
        .filter(|text| !text.is_empty())
        .map(|text| match text.as_str() {
            "NoSchedule" => Effect::NoSchedule,
            "PreferNoSchedule" => Effect::PreferNoSchedule,
            "NoExecute" => Effect::NoExecute,
            _ => Effect::Unknown,
        }))
}

impl Toleration {
    /// Whether it tolerates a taint.
    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && match self.operator {
                TolerationOperator::Equal => !self.key.is_empty() && self.value == taint.value,
                TolerationOperator::Exists => true,
                TolerationOperator::Unknown => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn toleration() {
        let taint = |key: &str, value: &str, effect| Taint {
            key: key.into(),
            value: value.into(),
            effect,
        };
        let read = |value| serde_json::from_value::<Toleration>(value).unwrap();
        let gpu = taint("gpu", "yes", Effect::NoSchedule);
        for (toleration, expected) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "gpu", "operator": "Exists"}), true),
            (
                json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}),
                false,
            ),
            (json!({"key": "gpu", "value": "yes"}), true),
            (
                json!({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}),
                true,
            ),
            (
                json!({"key": "gpu", "operator": "Equal", "value": "no"}),
                false,
            ),
            (
                json!({"key": "other", "operator": "Exists", "effect": ""}),
                false,
            ),
            (json!({"key": "gpu", "operator": "Gt", "value": "1"}), false),
        ] {
            assert_eq!(
                read(toleration.clone()).tolerates(&gpu),
                expected,
                "{toleration}"
            );
        }
    }
}
