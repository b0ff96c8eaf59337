//! What the rows of several kinds have in common.

use jiff::Timestamp;
use orlop_core::quantity::Quantity;
use orlop_core::selector::SelectorError;
use orlop_core::selector::label::{LabelSelector, Selector};
use serde::Deserialize;
use serde_json::Value;

use super::duration;
use crate::doc;

pub(super) const NONE: &str = "<none>";
pub(super) const UNSET: &str = "<unset>";
pub(super) const UNKNOWN: &str = "<unknown>";

/// The object of a row and the moment at which it is shown.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) object: &'a Value,
    pub(super) now: Timestamp,
}

impl<'a> Context<'a> {
    pub(super) fn at(&self, path: &[&str]) -> &'a Value {
        doc::at(self.object, path)
    }

    pub(super) fn text(&self, path: &[&str]) -> &'a str {
        self.at(path).as_str().unwrap_or_default()
    }

    /// A text, or what to show where there is none or an empty one.
    pub(super) fn text_or(&self, path: &[&str], otherwise: &'a str) -> &'a str {
        Some(self.text(path))
            .filter(|text| !text.is_empty())
            .unwrap_or(otherwise)
    }

    pub(super) fn int(&self, path: &[&str]) -> i64 {
        self.at(path).as_i64().unwrap_or_default()
    }

    pub(super) fn name(&self) -> Value {
        self.text(&["metadata", "name"]).into()
    }

    pub(super) fn age(&self) -> Value {
        self.since(&["metadata", "creationTimestamp"]).into()
    }

    pub(super) fn since(&self, path: &[&str]) -> String {
        duration::since(time(self.at(path)), self.now)
    }

    pub(super) fn created_at(&self) -> Value {
        let created = time(self.at(&["metadata", "creationTimestamp"]));
        // Go's zero time stands for none.
        created.map_or_else(
            || "0001-01-01T00:00:00Z".into(),
            |time| whole_seconds(time).into(),
        )
    }

    pub(super) fn is_deleted(&self) -> bool {
        !self.at(&["metadata", "deletionTimestamp"]).is_null()
    }

    /// Names and images of the containers of a pod's spec.
    pub(super) fn containers(&self, spec: &[&str]) -> [Value; 2] {
        let containers = doc::list(self.at(spec), "containers");
        ["name", "image"].map(|key| join(containers.iter().map(|c| doc::text(c, key))).into())
    }

    /// A label selector; nothing is selected where there is none, and that has no text.
    pub(super) fn selector(&self, path: &[&str]) -> Result<String, SelectorError> {
        let value = self.at(path);
        if value.is_null() {
            return Ok(Selector::nothing().to_string());
        }
        let Ok(selector) = LabelSelector::deserialize(value) else {
            return Ok(String::new());
        };
        selector.selector().map(|selector| selector.to_string())
    }

    /// A label selector as most tables show it.
    pub(super) fn selector_or_none(&self, path: &[&str]) -> Value {
        match self.selector(path) {
            Ok(text) if text.is_empty() => NONE.into(),
            Ok(text) => text.into(),
            Err(_) => "<error>".into(),
        }
    }

    /// A map of labels, sorted.
    pub(super) fn labels(&self, path: &[&str]) -> Value {
        let labels = self.at(path).as_object().into_iter().flatten();
        let text = join(
            labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())),
        );
        if text.is_empty() {
            NONE.into()
        } else {
            text.into()
        }
    }
}

/// A time of the API.
pub(super) fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}

/// Texts with commas between them.
pub(super) fn join<T: AsRef<str>>(parts: impl IntoIterator<Item = T>) -> String {
    join_with(parts, ",")
}

pub(super) fn join_with<T: AsRef<str>>(
    parts: impl IntoIterator<Item = T>,
    separator: &str,
) -> String {
    let mut out = String::new();
    for (at, part) in parts.into_iter().enumerate() {
        if at > 0 {
            out.push_str(separator);
        }
        out.push_str(part.as_ref());
    }
    out
}

/// The first three of a list, and how many more there are.
pub(super) fn first_three<T: AsRef<str>>(parts: &[T]) -> String {
    const SHOWN: usize = 3;
    let text = join(parts.iter().take(SHOWN));
    if parts.len() > SHOWN {
        format!("{text} + {} more...", parts.len() - SHOWN)
    } else {
        text
    }
}

/// A quantity in canonical form; an absent one is zero.
pub(super) fn quantity(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return "0".to_owned(),
    };
    Quantity::parse(&text).map_or(text, |quantity| quantity.to_string())
}

/// A number or a text, as text.
pub(super) fn int_or_string(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
