//! Field paths and validation errors, in the form that Kubernetes gives them.
//!
//! A validation collects [`FieldError`]s; at the API's edge they become one `Invalid` [`Status`](crate::status::Status)
//! with a cause for each.

use std::fmt;

use serde_json::Value;

/// The path of a field in an object, as error messages write it: `spec.containers[0].name`, `data[key]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(String);

impl Path {
    /// A path that starts at a field of the object.
    #[must_use]
    pub fn new(field: &str) -> Self {
        Self(field.to_owned())
    }

    /// The object itself.
    #[must_use]
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// A field below this one.
    #[must_use]
    pub fn child(&self, field: &str) -> Self {
        if self.0.is_empty() {
            Self(field.to_owned())
        } else {
            Self(format!("{}.{field}", self.0))
        }
    }

    /// An element of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// An entry of the map at this path.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The path's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field. The names are the `reason`s of a `Status` cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FieldErrorKind {
    /// A required value is missing.
    Required,
    /// A value that must be unique stands twice.
    Duplicate,
    /// The value is malformed or out of range.
    Invalid,
    /// The value is none of the supported ones.
    NotSupported,
    /// The field may not be set in this situation.
    Forbidden,
    /// The value names something that is not there.
    NotFound,
    /// The text is too long.
    TooLong,
    /// The list or map has too many entries.
    TooMany,
    /// The value has the wrong JSON type.
    TypeInvalid,
    /// Something went wrong while the field was checked.
    Internal,
}

impl FieldErrorKind {
    /// The `reason` of the cause.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    /// The words that open the message.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not found",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub path: Path,
    /// What.
    pub kind: FieldErrorKind,
    /// The value as messages show it (already quoted where it is text); `None` where messages show none.
    pub value: Option<String>,
    /// What to know about it.
    pub detail: String,
}

impl FieldError {
    fn of(
        path: &Path,
        kind: FieldErrorKind,
        value: Option<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            path: path.clone(),
            kind,
            value,
            detail: detail.into(),
        }
    }

    /// `Required value`.
    #[must_use]
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::of(path, FieldErrorKind::Required, None, detail)
    }

    /// `Invalid value: <value>: <detail>`.
    #[must_use]
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::of(
            path,
            FieldErrorKind::Invalid,
            Some(show(&value.into())),
            detail,
        )
    }

    /// `Invalid value` of the wrong JSON type.
    #[must_use]
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::of(
            path,
            FieldErrorKind::TypeInvalid,
            Some(show(&value.into())),
            detail,
        )
    }

    /// `Duplicate value: <value>`.
    #[must_use]
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::of(
            path,
            FieldErrorKind::Duplicate,
            Some(show(&value.into())),
            "",
        )
    }

    /// `Not found: <value>`.
    #[must_use]
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::of(
            path,
            FieldErrorKind::NotFound,
            Some(show(&value.into())),
            "",
        )
    }

    /// `Forbidden: <detail>`.
    #[must_use]
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::of(path, FieldErrorKind::Forbidden, None, detail)
    }

    /// `Unsupported value: <value>: supported values: "a", "b"`. Messages list the values in the order given here.
    #[must_use]
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = supported.iter().map(|s| quote(s)).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::of(
            path,
            FieldErrorKind::NotSupported,
            Some(show(&value.into())),
            detail,
        )
    }

    /// `Too long: may not be more than <max> bytes`.
    #[must_use]
    pub fn too_long(path: &Path, max: usize) -> Self {
        Self::of(
            path,
            FieldErrorKind::TooLong,
            None,
            format!("may not be more than {max} bytes"),
        )
    }

    /// `Too many: <actual>: must have at most <max> items`.
    #[must_use]
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        Self::of(
            path,
            FieldErrorKind::TooMany,
            Some(actual.to_string()),
            format!("must have at most {max} items"),
        )
    }

    /// `Internal error: <detail>`.
    #[must_use]
    pub fn internal(path: &Path, detail: impl Into<String>) -> Self {
        Self::of(path, FieldErrorKind::Internal, None, detail)
    }

    /// The message without the path: what a `Status` cause carries.
    #[must_use]
    pub fn message(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if let Some(value) = &self.value {
            text.push_str(": ");
            text.push_str(value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message())
    }
}

/// A value as messages show it: text quoted, null as `null`, everything else as compact JSON.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

/// Text in double quotes, escaped the way messages escape it.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", c as u32))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_as_kubernetes_writes_them() {
        let path = Path::new("spec").child("containers").index(0).child("name");
        assert_eq!(
            FieldError::invalid(&path, "C_", "must be lower case").to_string(),
            "spec.containers[0].name: Invalid value: \"C_\": must be lower case"
        );
        assert_eq!(
            FieldError::required(&path, "").to_string(),
            "spec.containers[0].name: Required value"
        );
        assert_eq!(
            FieldError::not_supported(&Path::new("a").key("k"), "x", &["B", "A"]).to_string(),
            "a[k]: Unsupported value: \"x\": supported values: \"B\", \"A\""
        );
        assert_eq!(
            FieldError::invalid(&path, 3, "bad").message(),
            "Invalid value: 3: bad"
        );
        assert_eq!(quote("a\"\n\u{1}"), "\"a\\\"\\n\\x01\"");
    }
}
