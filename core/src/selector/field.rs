//! Field selectors.

use std::fmt;
use std::str::FromStr;

use super::SelectorError;

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// The field, such as `metadata.name`.
    pub field: String,
    /// Whether the field must have another value.
    pub negated: bool,
    /// The value.
    pub value: String,
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        f.write_str(if self.negated { "!=" } else { "=" })?;
        f.write_str(&escape(&self.value))
    }
}

/// Conditions on fields that must all be met.
///
/// ```
/// use orlop_core::selector::field::Selector;
/// let selector: Selector = "status.phase!=Failed,metadata.name==web-0".parse()?;
/// assert!(selector.matches(|field| match field {
///     "metadata.name" => Some("web-0"),
///     _ => None, // not there: as if it were empty
/// }));
/// assert_eq!(selector.to_string(), "metadata.name=web-0,status.phase!=Failed");
/// # Ok::<(), orlop_core::selector::SelectorError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    terms: Vec<Term>,
}

impl Selector {
    /// Selects everything.
    #[must_use]
    pub const fn everything() -> Self {
        Self { terms: Vec::new() }
    }

    /// Selects what meets all of some conditions.
    #[must_use]
    pub const fn new(terms: Vec<Term>) -> Self {
        Self { terms }
    }

    /// Selects what has one value in one field.
    #[must_use]
    pub fn equals(field: &str, value: &str) -> Self {
        Self::new(vec![Term {
            field: field.to_owned(),
            negated: false,
            value: value.to_owned(),
        }])
    }

    /// Reads a selector's text. In values, `\`, `,` and `=` are written with a backslash before them.
    ///
    /// # Errors
    /// [`SelectorError`] with the text that Kubernetes answers with.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parts = split_unescaped(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let Some((field, negated, value)) = split_term(part) else {
                return Err(SelectorError::new(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            terms.push(Term {
                field: field.to_owned(),
                negated,
                value: unescape(value)?,
            });
        }
        Ok(Self { terms })
    }

    /// The conditions.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether it selects everything.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether all conditions are met by what `lookup` says of the fields. A field that is not there counts as empty.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms
            .iter()
            .all(|term| (lookup(&term.field).unwrap_or_default() == term.value) != term.negated)
    }

    /// The only value that a field may have, if the selector says one.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.field == field && !term.negated)
            .map(|term| term.value.as_str())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            term.fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

/// A value as it stands in a selector's text.
#[must_use]
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let invalid = |sequence: &str| {
        SelectorError::new(format!(
            "invalid field selector: invalid escape sequence: {sequence}"
        ))
    };
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                Some(other) => return Err(invalid(&format!("\\{other}"))),
                None => return Err(invalid("\\")),
            },
            // Kubernetes shows the character's number.
            ',' | '=' => {
                return Err(SelectorError::new(format!(
                    "invalid field selector: unescaped character in value: {}",
                    c as u32
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Splits at commas that have no backslash before them.
fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        if c == ',' && !escaped {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term
        .char_indices()
        .map(|(at, _)| at)
        .find(|at| term[*at..].starts_with('=') || term[*at..].starts_with("!="))?;
    let (field, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, true, value));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((field, false, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts() {
        for (text, canonical) in [
            ("", ""),
            ("metadata.name=p1", "metadata.name=p1"),
            (
                "metadata.name==p1,metadata.namespace=pr",
                "metadata.name=p1,metadata.namespace=pr",
            ),
            ("b!=2,,a=1", "a=1,b!=2"),
            ("a=\\,\\=\\\\", "a=\\,\\=\\\\"),
            ("a=", "a="),
            ("=a", "=a"),
        ] {
            assert_eq!(
                Selector::parse(text).unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
        for (text, message) in [
            ("x", "invalid selector: 'x'; can't understand 'x'"),
            ("a=1,x", "invalid selector: 'a=1,x'; can't understand 'x'"),
            (
                "a=b=c",
                "invalid field selector: unescaped character in value: 61",
            ),
            (
                "a=\\x",
                "invalid field selector: invalid escape sequence: \\x",
            ),
            (
                "a=\\",
                "invalid field selector: invalid escape sequence: \\",
            ),
        ] {
            assert_eq!(
                Selector::parse(text).unwrap_err().to_string(),
                message,
                "{text}"
            );
        }
    }

    #[test]
    fn matching() {
        let selector = Selector::parse("a=1,b!=2").unwrap();
        let with = |a: &'static str, b: Option<&'static str>| {
            selector.matches(move |field| match field {
                "a" => Some(a),
                _ => b,
            })
        };
        assert!(with("1", None));
        assert!(with("1", Some("3")));
        assert!(!with("1", Some("2")));
        assert!(!with("2", None));
        assert_eq!(selector.exact("a"), Some("1"));
        assert_eq!(selector.exact("b"), None);
    }

    proptest! {
        #[test]
        fn printing_and_reading_are_inverse(
            terms in prop::collection::btree_map("[a-z.]{1,4}", ("[a-z,=\\\\!]{0,4}", any::<bool>()), 0..4)
        ) {
            let terms = terms.into_iter().map(|(field, (value, negated))| Term { field, negated, value }).collect();
            let selector = Selector::new(terms);
            let again = Selector::parse(&selector.to_string()).unwrap();
            let (mut a, mut b) = (again.terms().to_vec(), selector.terms().to_vec());
            a.sort();
            b.sort();
            prop_assert_eq!(a, b);
        }
    }
}
