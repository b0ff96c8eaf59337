//! Label selectors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::SelectorError;
use super::syntax::{label_key_errors, label_value_errors};
use crate::field::quote;

/// Something with labels.
pub trait Labels {
    /// The value of a label, if there is one.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

/// How a requirement relates a label to its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// `key in (a,b)`: the label is there and has one of the values.
    In,
    /// `key notin (a,b)`: the label is not there or has none of the values.
    NotIn,
    /// `key=a`.
    Equals,
    /// `key==a`, which means the same but prints as it was written.
    DoubleEquals,
    /// `key!=a`: the label is not there or has another value.
    NotEquals,
    /// `key`: the label is there.
    Exists,
    /// `!key`: the label is not there.
    DoesNotExist,
    /// `key>1`: the label is an integer above the value.
    GreaterThan,
    /// `key<1`: the label is an integer below the value.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// A condition.
    ///
    /// # Errors
    /// [`SelectorError`] when the key or a value is malformed, or when the operator takes another number of values.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, SelectorError> {
        let mut errors = Vec::new();
        let key_errors = label_key_errors(key);
        if !key_errors.is_empty() {
            errors.push(format!(
                "key: Invalid value: {}: {}",
                quote(key),
                key_errors.join("; ")
            ));
        }
        let wrong = match operator {
            Operator::In | Operator::NotIn => values
                .is_empty()
                .then_some("for 'in', 'notin' operators, values set can't be empty"),
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals => {
                (values.len() != 1).then_some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist => (!values.is_empty())
                .then_some("values set must be empty for exists and does not exist"),
            Operator::GreaterThan | Operator::LessThan => (values.len() != 1)
                .then_some("for 'Gt', 'Lt' operators, exactly one value is required"),
        };
        if let Some(wrong) = wrong {
            let list: Vec<_> = values.iter().map(|value| quote(value)).collect();
            errors.push(format!(
                "values: Invalid value: [{}]: {wrong}",
                list.join(",")
            ));
        }
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) {
            for (index, value) in values.iter().enumerate() {
                if value.parse::<i64>().is_err() {
                    errors.push(format!(
                        "values[{index}]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                        quote(value)
                    ));
                }
            }
        }
        for (index, value) in values.iter().enumerate() {
            let value_errors = label_value_errors(value);
            if !value_errors.is_empty() {
                errors.push(format!(
                    "values[{index}][{key}]: Invalid value: {}: {}",
                    quote(value),
                    value_errors.join("; ")
                ));
            }
        }
        match errors.as_slice() {
            [] => Ok(Self {
                key: key.to_owned(),
                operator,
                values,
            }),
            [only] => Err(SelectorError::new(only.as_str())),
            many => Err(SelectorError::new(format!("[{}]", many.join(", ")))),
        }
    }

    /// The label.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The operator.
    #[must_use]
    pub const fn operator(&self) -> Operator {
        self.operator
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether the labels meet the condition.
    #[must_use]
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let value = labels.label(&self.key);
        let listed = |value: &str| self.values.iter().any(|known| known == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value, |label, limit| label > limit),
            Operator::LessThan => self.compare(value, |label, limit| label < limit),
        }
    }

    fn compare(&self, label: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        let limit = self.values.first().and_then(|value| number(value));
        label
            .and_then(number)
            .zip(limit)
            .is_some_and(|(label, limit)| holds(label, limit))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        values.sort_unstable();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// Conditions on labels that must all be met.
///
/// ```
/// use std::collections::BTreeMap;
/// use orlop_core::selector::label::Selector;
/// let selector: Selector = "tier in (b,a),app=web,!canary".parse()?;
/// let labels = BTreeMap::from([("app", "web"), ("tier", "a")].map(|(k, v)| (k.to_owned(), v.to_owned())));
/// assert!(selector.matches(&labels));
/// assert_eq!(selector.to_string(), "app=web,!canary,tier in (a,b)");
/// # Ok::<(), orlop_core::selector::SelectorError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// In the order of their keys.
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Selects everything.
    #[must_use]
    pub const fn everything() -> Self {
        Self {
            requirements: Vec::new(),
            nothing: false,
        }
    }

    /// Selects nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// Selects what meets all of some conditions.
    #[must_use]
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self {
            requirements,
            nothing: false,
        }
    }

    /// Selects what has all of some labels, whose form is not looked at (a Service's `selector`, for one).
    #[must_use]
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        Self::new(
            labels
                .into_iter()
                .map(|(key, value)| Requirement {
                    key: key.clone(),
                    operator: Operator::Equals,
                    values: vec![value.clone()],
                })
                .collect(),
        )
    }

    /// Reads a selector's text.
    ///
    /// # Errors
    /// [`SelectorError`] with the text that Kubernetes answers with.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser::new(text).selector()
    }

    /// The conditions, in the order of their keys.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether it was made to select nothing.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Whether the labels meet all the conditions.
    #[must_use]
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|requirement| requirement.matches(labels))
    }

    /// The only value that a label may have, if the selector says one.
    #[must_use]
    pub fn exact(&self, key: &str) -> Option<&str> {
        let requirement = self
            .requirements
            .iter()
            .find(|requirement| requirement.key == key)?;
        match (requirement.operator, requirement.values.as_slice()) {
            (Operator::In | Operator::Equals | Operator::DoubleEquals, [only]) => Some(only),
            _ => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
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

/// A label selector as objects carry it: `matchLabels` and `matchExpressions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Further conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub match_expressions: Option<Vec<Expression>>,
}

/// A condition of a [`LabelSelector`], or of a [node selector](super::node).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Expression {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`; for nodes also `Gt` and `Lt`.
    pub operator: String,
    /// The values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
}

impl LabelSelector {
    /// The selector. An empty one selects everything; where there is no `LabelSelector` at all, Kubernetes selects nothing.
    ///
    /// # Errors
    /// [`SelectorError`] for an unknown operator and for malformed keys and values.
    pub fn selector(&self) -> Result<Selector, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in self.match_labels.iter().flatten() {
            requirements.push(Requirement::new(
                key,
                Operator::Equals,
                vec![value.clone()],
            )?);
        }
        for expression in self.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError::new(format!(
                        "{} is not a valid label selector operator",
                        quote(other)
                    )));
                }
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        Ok(Selector::new(requirements))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    End,
    Close,
    Open,
    Comma,
    Not,
    Word,
    Operator(Operator),
}

/// A recursive descent over the tokens of a selector's text.
struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    position: usize,
}

const SPECIAL: &[char] = &['=', '!', '(', ')', ',', '>', '<'];
const BLANK: &[char] = &[' ', '\t', '\r', '\n'];

/// The token of special characters at the start of a text, and its length.
fn special_token(text: &str) -> Option<(Token, usize)> {
    const TOKENS: [(&str, Token); 9] = [
        // The longer ones first.
        ("==", Token::Operator(Operator::DoubleEquals)),
        ("!=", Token::Operator(Operator::NotEquals)),
        ("=", Token::Operator(Operator::Equals)),
        (">", Token::Operator(Operator::GreaterThan)),
        ("<", Token::Operator(Operator::LessThan)),
        ("!", Token::Not),
        ("(", Token::Open),
        (")", Token::Close),
        (",", Token::Comma),
    ];
    TOKENS
        .into_iter()
        .find(|(known, _)| text.starts_with(known))
        .map(|(known, token)| (token, known.len()))
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text.trim_start_matches(BLANK);
        // A zero byte ends the text for Kubernetes.
        rest = rest.split('\0').next().unwrap_or_default();
        while !rest.is_empty() {
            let (token, length) = special_token(rest).unwrap_or_else(|| {
                let length = rest
                    .find(|c| SPECIAL.contains(&c) || BLANK.contains(&c))
                    .unwrap_or(rest.len());
                let token = match &rest[..length] {
                    "in" => Token::Operator(Operator::In),
                    "notin" => Token::Operator(Operator::NotIn),
                    _ => Token::Word,
                };
                (token, length)
            });
            tokens.push((token, &rest[..length]));
            rest = rest[length..].trim_start_matches(BLANK);
        }
        tokens.push((Token::End, ""));
        Self {
            tokens,
            position: 0,
        }
    }

    /// The next token. Where a name or a value may stand, `in` and `notin` are words.
    fn peek(&self, operator_expected: bool) -> Token {
        match self
            .tokens
            .get(self.position)
            .map_or(Token::End, |(token, _)| *token)
        {
            Token::Operator(Operator::In | Operator::NotIn) if !operator_expected => Token::Word,
            token => token,
        }
    }

    fn text(&self) -> &str {
        self.tokens.get(self.position).map_or("", |(_, text)| text)
    }

    fn next(&mut self, operator_expected: bool) -> (Token, String) {
        let found = (self.peek(operator_expected), self.text().to_owned());
        self.position += 1;
        found
    }

    fn selector(mut self) -> Result<Selector, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek(false) {
                Token::End => break,
                Token::Word | Token::Not => {}
                _ => return Err(self.found("expected: !, identifier, or 'end of string'")),
            }
            let requirement = self.requirement().map_err(|error| {
                SelectorError::new(format!("unable to parse requirement: {error}"))
            })?;
            requirements.push(requirement);
            match self.peek(false) {
                Token::End => break,
                Token::Comma => self.position += 1,
                _ => return Err(self.found("expected: ',' or 'end of string'")),
            }
            if !matches!(self.peek(false), Token::Word | Token::Not) {
                return Err(self.found("expected: identifier after ','"));
            }
        }
        Ok(Selector::new(requirements))
    }

    fn found(&self, expected: &str) -> SelectorError {
        SelectorError::new(format!("found '{}', {expected}", self.text()))
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek(false) == Token::Not;
        if negated {
            self.position += 1;
        }
        if self.peek(false) != Token::Word {
            return Err(self.found("expected: identifier"));
        }
        let (_, key) = self.next(false);
        let key_errors = label_key_errors(&key);
        if !key_errors.is_empty() {
            let key = quote(&key);
            return Err(SelectorError::new(format!(
                "<nil>: Invalid value: {key}: {}",
                key_errors.join("; ")
            )));
        }
        if matches!(self.peek(false), Token::End | Token::Comma) {
            let operator = if negated {
                Operator::DoesNotExist
            } else {
                Operator::Exists
            };
            return Requirement::new(&key, operator, Vec::new());
        }
        // As in Kubernetes, what follows "!key" is looked at no further than the end of the condition.
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        let Token::Operator(operator) = self.peek(true) else {
            return Err(self.found("expected: in, notin, =, ==, !=, gt, lt"));
        };
        self.position += 1;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        Requirement::new(&key, operator, values.into_iter().collect())
    }

    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        if self.peek(false) != Token::Open {
            return Err(SelectorError::new(format!(
                "found '{}' expected: '('",
                self.text()
            )));
        }
        self.position += 1;
        let mut values = BTreeSet::new();
        match self.peek(false) {
            Token::Close => {
                values.insert(String::new());
            }
            Token::Word | Token::Comma => loop {
                match self.next(false) {
                    (Token::Word, value) => {
                        values.insert(value);
                        match self.peek(false) {
                            Token::Comma => {}
                            Token::Close => break,
                            _ => return Err(self.found("expected: ',' or ')'")),
                        }
                    }
                    (Token::Comma, _) => {
                        // Nothing before, between or after commas is the empty value.
                        let after = self.peek(false);
                        if values.is_empty() || matches!(after, Token::Comma | Token::Close) {
                            values.insert(String::new());
                        }
                        if after == Token::Close {
                            break;
                        }
                    }
                    (_, text) => {
                        return Err(SelectorError::new(format!(
                            "found '{text}', expected: ',', or identifier"
                        )));
                    }
                }
            },
            _ => return Err(self.found("expected: ',', ')' or identifier")),
        }
        self.position += 1;
        Ok(values)
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.peek(false) {
            Token::End | Token::Comma => Ok(BTreeSet::from([String::new()])),
            Token::Word => Ok(BTreeSet::from([self.next(false).1])),
            _ => Err(self.found("expected: identifier")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn texts() {
        for (text, canonical) in [
            ("", ""),
            ("  ", ""),
            ("a", "a"),
            ("!a", "!a"),
            ("! a", "!a"),
            ("a = b", "a=b"),
            ("a==b,c!=d", "a==b,c!=d"),
            ("b=,a", "a,b="),
            ("x in (b,a,,c)", "x in (,a,b,c)"),
            ("x notin ()", "x notin ()"),
            ("x in (in,notin)", "x in (in,notin)"),
            ("in", "in"),
            ("x in (,a)", "x in (,a)"),
            ("x in (a,)", "x in (,a)"),
            ("x>1,y<-2", "x>1,y<-2"),
        ] {
            // A negative number is no value of a label.
            if text.contains("-2") {
                assert!(Selector::parse(text).is_err());
                continue;
            }
            assert_eq!(
                Selector::parse(text).unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
    }

    #[test]
    fn refusals() {
        for (text, message) in [
            (
                "i gt 2",
                "unable to parse requirement: found 'gt', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                ",",
                "found ',', expected: !, identifier, or 'end of string'",
            ),
            ("a,", "found '', expected: identifier after ','"),
            ("a,,b", "found ',', expected: identifier after ','"),
            (
                "!",
                "unable to parse requirement: found '', expected: identifier",
            ),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            (
                "a in b",
                "unable to parse requirement: found 'b' expected: '('",
            ),
            (
                "a in (b",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            (
                "a in (b c)",
                "unable to parse requirement: found 'c', expected: ',' or ')'",
            ),
            (
                "a in (=)",
                "unable to parse requirement: found '=', expected: ',', ')' or identifier",
            ),
            (
                "a=(",
                "unable to parse requirement: found '(', expected: identifier",
            ),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(
                Selector::parse(text).unwrap_err().to_string(),
                message,
                "{text}"
            );
        }
        let key = Selector::parse("-a=b").unwrap_err().to_string();
        assert!(
            key.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of"),
            "{key}"
        );
        let value = Selector::parse("a=b%").unwrap_err().to_string();
        assert!(
            value.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"b%\": a valid label must be"),
            "{value}"
        );
    }

    #[test]
    fn matching() {
        let set = labels(&[("app", "web"), ("n", "5")]);
        for (text, expected) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("app=web", true),
            ("app!=web", false),
            ("other!=x", true),
            ("other notin (x)", true),
            ("other in (x)", false),
            ("app in (web,db),n", true),
            ("n>4", true),
            ("n<5", false),
            ("app>1", false),
            ("other<1", false),
        ] {
            assert_eq!(
                Selector::parse(text).unwrap().matches(&set),
                expected,
                "{text}"
            );
        }
        assert!(!Selector::nothing().matches(&set));
        assert!(Selector::from_labels(&set).matches(&set));
        assert_eq!(
            Selector::parse("app in (web)").unwrap().exact("app"),
            Some("web")
        );
    }

    #[test]
    fn documents() {
        let read = |value| {
            serde_json::from_value::<LabelSelector>(value)
                .unwrap()
                .selector()
        };
        let selector = read(json!({
            "matchLabels": {"b": "1"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "Exists"}],
        }));
        assert_eq!(selector.unwrap().to_string(), "a in (x,y),b=1,c");
        assert!(read(json!({})).unwrap().is_everything());
        let refused =
            read(json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "\"Gt\" is not a valid label selector operator"
        );
        let refused = read(json!({"matchExpressions": [{"key": "a", "operator": "In"}]}));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
        );
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        let word = "[a-c]{1,2}";
        (
            word,
            0..9u8,
            prop::collection::btree_set("[a-c]{0,2}", 1..4),
            0..9u32,
        )
            .prop_map(|(key, op, values, number)| {
                let mut values: Vec<String> = values.into_iter().collect();
                let operator = match op {
                    0 => Operator::In,
                    1 => Operator::NotIn,
                    2 => Operator::Equals,
                    3 => Operator::DoubleEquals,
                    4 => Operator::NotEquals,
                    5 => Operator::Exists,
                    6 => Operator::DoesNotExist,
                    7 => Operator::GreaterThan,
                    _ => Operator::LessThan,
                };
                match operator {
                    Operator::In | Operator::NotIn => {}
                    Operator::Exists | Operator::DoesNotExist => values.clear(),
                    Operator::GreaterThan | Operator::LessThan => values = vec![number.to_string()],
                    _ => values.truncate(1),
                }
                Requirement::new(&key, operator, values).unwrap()
            })
    }

    proptest! {
        #[test]
        fn printing_and_reading_are_inverse(requirements in prop::collection::vec(requirement(), 0..5)) {
            let selector = Selector::new(requirements);
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn a_selector_is_the_conjunction_of_its_requirements(
            requirements in prop::collection::vec(requirement(), 0..4),
            set in prop::collection::btree_map("[a-c]{1,2}", "[a-c0-9]{0,2}", 0..4),
        ) {
            let all = requirements.iter().all(|requirement| requirement.matches(&set));
            prop_assert_eq!(Selector::new(requirements).matches(&set), all);
        }

        #[test]
        fn nothing_panics(text in "[a-c!=<>(), \\PC]{0,16}") {
            let _ = Selector::parse(&text);
        }
    }
}
