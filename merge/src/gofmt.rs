//! JSON as Go prints it, which is part of some of Kubernetes' error texts.

use std::fmt;

use serde_json::Value;

use crate::value::sorted;

/// A value as `%v` prints it: `map[a:1 b:[x y]]`.
pub(crate) struct Go<'a> {
    value: &'a Value,
    interface: bool,
}

impl<'a> Go<'a> {
    /// As `%v` of the decoded JSON.
    pub(crate) fn plain(value: &'a Value) -> Self {
        Self {
            value,
            interface: false,
        }
    }

    /// As server-side apply's own values print themselves: wrapped in `&{}`.
    pub(crate) fn interface(value: &'a Value) -> Self {
        Self {
            value,
            interface: true,
        }
    }
}

impl fmt::Display for Go<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.interface {
            f.write_str("&value.valueUnstructured{Value:")?;
            literal(self.value, f)?;
            return f.write_str("}");
        }
        plain(self.value, f)
    }
}

fn plain(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Null => f.write_str("<nil>"),
        Value::Bool(b) => write!(f, "{b}"),
        Value::Number(n) => write!(f, "{n}"),
        Value::String(s) => f.write_str(s),
        Value::Array(items) => {
            f.write_str("[")?;
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    f.write_str(" ")?;
                }
                plain(item, f)?;
            }
            f.write_str("]")
        }
        Value::Object(map) => {
            f.write_str("map[")?;
            for (i, (key, value)) in sorted(map).into_iter().enumerate() {
                if i > 0 {
                    f.write_str(" ")?;
                }
                write!(f, "{key}:")?;
                plain(value, f)?;
            }
            f.write_str("]")
        }
    }
}

/// As `%#v` prints it: Go syntax.
fn literal(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Null => f.write_str("interface {}(nil)"),
        Value::Bool(b) => write!(f, "{b}"),
        Value::Number(n) => write!(f, "{n}"),
        Value::String(s) => write!(f, "{s:?}"),
        Value::Array(items) => {
            f.write_str("[]interface {}{")?;
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                literal(item, f)?;
            }
            f.write_str("}")
        }
        Value::Object(map) => {
            f.write_str("map[string]interface {}{")?;
            for (i, (key, value)) in sorted(map).into_iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{key:?}:")?;
                literal(value, f)?;
            }
            f.write_str("}")
        }
    }
}

/// The Go type of decoded JSON.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
