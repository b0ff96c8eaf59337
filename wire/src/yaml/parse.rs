//! From text to a document.

use std::borrow::Cow;
use std::collections::BTreeMap;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Tag};
use serde_json::{Map, Value};

use super::resolve::{CORE, Resolved, float, go_float, resolve};
use super::{Document, DuplicateKey, YamlError};

/// Up to this many nodes a document may consist of aliases almost wholly; that is not enough to hurt.
const ALIAS_FREE: usize = 400_000;
/// From this many nodes on, a tenth of them may come from aliases.
const ALIAS_STRICT: usize = 4_000_000;

pub(super) fn document(text: &[u8]) -> Result<Document, YamlError> {
    let text = decode(text)?;
    let mut builder = Builder::default();
    for event in Parser::new_from_str(&text) {
        let (event, span) = event.map_err(|error| scan_error(&error, &text))?;
        if builder.event(event, span.start.line())? {
            break;
        }
    }
    Ok(Document {
        value: builder.root.map_or(Value::Null, |node| node.value),
        duplicates: builder.duplicates,
    })
}

/// UTF-8, or UTF-16 with a byte order mark.
fn decode(text: &[u8]) -> Result<Cow<'_, str>, YamlError> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes
            .chunks(2)
            .map(|pair| unit([pair[0], pair.get(1).copied().unwrap_or_default()]));
        let text: Result<String, _> = char::decode_utf16(units).collect();
        text.map(Cow::Owned)
            .map_err(|_| YamlError::yaml("incomplete UTF-16 surrogate pair"))
    };
    let text = match text {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        _ => Cow::Borrowed(std::str::from_utf8(text).map_err(|error| {
            let what = match text.get(error.valid_up_to()) {
                Some(0x80..=0xc1 | 0xf5..) => "invalid leading UTF-8 octet",
                _ if error.error_len().is_none() => "incomplete UTF-8 octet sequence",
                _ => "invalid trailing UTF-8 octet",
            };
            YamlError::yaml(what)
        })?),
    };
    if text.chars().any(|c| matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\x7f' | '\u{fffe}' | '\u{ffff}')) {
        return Err(YamlError::yaml("control characters are not allowed"));
    }
    Ok(text)
}

/// A node and how many nodes it is made of, aliases counted in full.
#[derive(Clone)]
struct Node {
    value: Value,
    weight: usize,
    /// What the node is as a key of a mapping.
    key: Key,
}

#[derive(Clone)]
enum Key {
    /// The key as text, and as Go shows it.
    Text(String, String),
    /// `<<`, unquoted.
    Merge,
    /// None that JSON could have: the type that Go names, and the value.
    Unsupported(&'static str, String),
    /// A mapping or a sequence.
    Collection,
}

enum Open {
    Sequence {
        items: Vec<Value>,
        weight: usize,
        anchor: usize,
    },
    Mapping {
        map: Map<String, Value>,
        merges: Vec<Value>,
        key: Option<(Key, usize)>,
        weight: usize,
        anchor: usize,
    },
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    root: Option<Node>,
    duplicates: Vec<DuplicateKey>,
    decoded: usize,
    from_aliases: usize,
}

impl Builder {
    /// Takes one event; true when the first document is complete.
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<bool, YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = scalar(&text, style, tag.as_deref())?;
                self.decoded += 1;
                self.close(node, anchor, line)?;
            }
            Event::SequenceStart(_, anchor, _) => self.stack.push(Open::Sequence {
                items: Vec::new(),
                weight: 1,
                anchor,
            }),
            Event::MappingStart(_, anchor, _) => self.stack.push(Open::Mapping {
                map: Map::new(),
                merges: Vec::new(),
                key: None,
                weight: 1,
                anchor,
            }),
            Event::SequenceEnd => {
                if let Some(Open::Sequence {
                    items,
                    weight,
                    anchor,
                }) = self.stack.pop()
                {
                    self.decoded += 1;
                    self.close(
                        Node {
                            value: Value::Array(items),
                            weight,
                            key: Key::Collection,
                        },
                        anchor,
                        line,
                    )?;
                }
            }
            Event::MappingEnd => {
                if let Some(Open::Mapping {
                    mut map,
                    merges,
                    weight,
                    anchor,
                    ..
                }) = self.stack.pop()
                {
                    self.decoded += 1;
                    // What the mapping says itself counts more than what it merges, and what it merges first more than what it
                    // merges later.
                    for (key, value) in merges.into_iter().filter_map(into_map).flatten() {
                        map.entry(key).or_insert(value);
                    }
                    self.close(
                        Node {
                            value: Value::Object(map),
                            weight,
                            key: Key::Collection,
                        },
                        anchor,
                        line,
                    )?;
                }
            }
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id) else {
                    return Err(YamlError::yaml("anchor value contains itself"));
                };
                self.decoded += node.weight;
                self.from_aliases += node.weight;
                // Before the copy is made: the copies are what hurts.
                if excessive(self.from_aliases, self.decoded) {
                    return Err(YamlError::yaml("document contains excessive aliasing"));
                }
                let node = node.clone();
                self.close(node, 0, line)?;
            }
            Event::DocumentEnd | Event::StreamEnd => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    /// Puts a complete node where it belongs.
    fn close(&mut self, node: Node, anchor: usize, line: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::Sequence { items, weight, .. }) => {
                *weight += node.weight;
                items.push(node.value);
            }
            Some(Open::Mapping {
                map,
                merges,
                key,
                weight,
                ..
            }) => {
                *weight += node.weight;
                match key.take() {
                    None => {
                        if matches!(node.key, Key::Collection) {
                            return Err(YamlError::yaml(format!(
                                "invalid map key: {}",
                                node.value
                            )));
                        }
                        *key = Some((node.key, line));
                    }
                    Some((Key::Text(name, shown), key_line)) => {
                        if map.insert(name, node.value).is_some() {
                            self.duplicates.push(DuplicateKey {
                                line: key_line,
                                key: shown,
                            });
                        }
                    }
                    Some((Key::Merge, _)) => match node.value {
                        value @ Value::Object(_) => merges.push(value),
                        Value::Array(all) if all.iter().all(Value::is_object) => merges.extend(all),
                        _ => {
                            return Err(YamlError::yaml(
                                "map merge requires map or sequence of maps as the value",
                            ));
                        }
                    },
                    Some((Key::Unsupported(kind, shown), _)) => {
                        let value = &node.value;
                        return Err(YamlError::json(format!(
                            "unsupported map key of type: {kind}, key: {shown}, value: {value}"
                        )));
                    }
                    // Refused when it came.
                    Some((Key::Collection, _)) => {}
                }
            }
        }
        Ok(())
    }
}

fn into_map(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// Whether aliases multiply a document too much: the larger it is, the less of it may come from them.
fn excessive(from_aliases: usize, decoded: usize) -> bool {
    let allowed = match decoded {
        0..=ALIAS_FREE => 0.99,
        ALIAS_STRICT.. => 0.10,
        _ => 0.99 - 0.89 * (decoded - ALIAS_FREE) as f64 / (ALIAS_STRICT - ALIAS_FREE) as f64,
    };
    from_aliases > 100 && decoded > 1000 && from_aliases as f64 / decoded as f64 > allowed
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Node, YamlError> {
    let tag = tag.map(|tag| {
        (tag.handle() == CORE)
            .then(|| tag.suffix())
            .or(tag.core_suffix())
            .unwrap_or("!")
    });
    let resolved = match tag {
        None if style == ScalarStyle::Plain => resolve(text),
        None | Some("str") => Resolved::Text,
        Some("binary") => return binary(text),
        Some(wanted @ ("bool" | "int" | "float" | "null" | "timestamp")) => {
            let found = match (wanted, resolve(text)) {
                ("float", Resolved::Int(value)) => Resolved::Float(value as f64),
                (_, found) => found,
            };
            if found.tag().strip_prefix("!!") != Some(wanted) {
                return Err(YamlError::yaml(format!(
                    "cannot decode {} `{text}` as a !!{wanted}",
                    found.tag()
                )));
            }
            found
        }
        Some(_) => Resolved::Text,
    };
    let text_key = |text: String| Key::Text(text.clone(), text);
    let (value, key) = match resolved {
        Resolved::Null => (
            Value::Null,
            Key::Unsupported("%!s(<nil>)", "<nil>".to_owned()),
        ),
        Resolved::Bool(value) => (Value::Bool(value), text_key(value.to_string())),
        Resolved::Int(value) => (Value::from(value), text_key(value.to_string())),
        Resolved::Unsigned(value) => (
            Value::from(value),
            Key::Unsupported("uint64", format!("{value:#x}")),
        ),
        Resolved::Float(value) => {
            let Some(json) = float(value) else {
                let name = match value {
                    value if value.is_nan() => "NaN",
                    value if value > 0.0 => "+Inf",
                    _ => "-Inf",
                };
                return Err(YamlError::json(format!("json: unsupported value: {name}")));
            };
            // Keys have the precision of a float of 32 bits: so does Go's library.
            (json, text_key(go_float(&format!("{:e}", value as f32))))
        }
        Resolved::Merge => (Value::String(text.to_owned()), Key::Merge),
        Resolved::Timestamp | Resolved::Text => string(text),
    };
    Ok(Node {
        value,
        weight: 1,
        key,
    })
}

fn string(text: &str) -> (Value, Key) {
    (
        Value::String(text.to_owned()),
        Key::Text(text.to_owned(), format!("{text:?}")),
    )
}

fn binary(text: &str) -> Result<Node, YamlError> {
    use base64::Engine as _;
    let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map_err(|_| YamlError::yaml("!!binary value contains invalid base64 data"))?;
    let (value, key) = string(&String::from_utf8_lossy(&bytes));
    Ok(Node {
        value,
        weight: 1,
        key,
    })
}

/// The parser's error in the words, and with the line, that libyaml has for it.
fn scan_error(error: &ScanError, text: &str) -> YamlError {
    use ErrorKind as K;
    // libyaml's parser counts lines from zero, its scanner from one.
    let (problem, by_parser) = match error.kind() {
        K::UnknownAnchor => {
            let name: String = {
                let from = text
                    .chars()
                    .skip(error.marker().index())
                    .skip_while(|c| *c != '*')
                    .skip(1);
                from.take_while(|c| !c.is_whitespace() && !matches!(c, ',' | ']' | '}' | '[' | '{'))
                    .collect()
            };
            return YamlError::yaml(format!("unknown anchor '{name}' referenced"));
        }
        K::ExpectedBlockMappingKey | K::InvalidIndentation | K::UnexpectedEofBlockMapping => {
            ("did not find expected key", true)
        }
        K::ExpectedBlockSequenceEntry | K::UnexpectedEofBlockSequence => {
            ("did not find expected '-' indicator", true)
        }
        K::ExpectedFlowMappingSeparator
        | K::UnexpectedEofFlowMapping
        | K::UnexpectedEofImplicitFlowMapping => ("did not find expected ',' or '}'", true),
        K::ExpectedFlowSequenceSeparator | K::UnexpectedEofFlowSequence => {
            ("did not find expected ',' or ']'", true)
        }
        K::UnclosedFlowCollection { open } | K::MismatchedFlowCollectionEnd { open, .. } => {
            match open {
                '{' => ("did not find expected ',' or '}'", true),
                _ => ("did not find expected ',' or ']'", true),
            }
        }
        K::ExpectedNodeContent | K::MisplacedFlowCollectionEnd => {
            ("did not find expected node content", true)
        }
        K::ExpectedDocumentStart => ("did not find expected <document start>", true),
        K::UndeclaredTagHandle => ("found undefined tag handle", true),
        K::DuplicateVersionDirective => ("found duplicate %YAML directive", true),
        K::DuplicateTagDirective => ("found duplicate %TAG directive", true),
        K::UnsupportedYamlMajorVersion => ("found incompatible YAML document", true),
        K::RecursionLimitExceeded => ("exceeded max depth of 255", false),
        K::SimpleKeyExpected | K::InvalidSimpleKey => ("could not find expected ':'", false),
        K::UnclosedQuotedScalar | K::UnexpectedEof => ("found unexpected end of stream", false),
        K::DocumentIndicatorInQuotedScalar => ("found unexpected document indicator", false),
        K::MappingValueNotAllowed | K::InvalidColonPlacement => {
            ("mapping values are not allowed in this context", false)
        }
        K::MappingKeyNotAllowed => ("mapping keys are not allowed in this context", false),
        K::BlockSequenceEntryNotAllowed | K::BlockEntryInFlowCollection => (
            "block sequence entries are not allowed in this context",
            false,
        ),
        K::UnexpectedCharacter { .. }
        | K::TabNotAllowed
        | K::TabInBlockIndentation
        | K::TabInIndentation
        | K::TabInPlainScalar => ("found character that cannot start any token", false),
        K::TabAtBlockScalarStart => (
            "found a tab character where an indentation space is expected",
            false,
        ),
        K::UnknownQuotedScalarEscape => ("found unknown escape character", false),
        K::InvalidQuotedScalarHexEscape | K::InvalidLowSurrogateHexEscape => {
            ("did not find expected hexdecimal number", false)
        }
        K::InvalidUnicodeEscape
        | K::InvalidLowSurrogate
        | K::MissingLowSurrogate
        | K::UnpairedLowSurrogate => ("found invalid Unicode character escape code", false),
        K::InvalidTrailingSingleQuotedScalar | K::InvalidTrailingDoubleQuotedScalar => {
            ("did not find expected key", true)
        }
        _ => {
            // libyaml's words without what it was doing when it found the problem.
            let info = error.info();
            let problem = info
                .strip_prefix("while ")
                .and_then(|rest| rest.split_once(", "))
                .map_or(&*info, |(_, p)| p);
            return at_line(problem, error.marker().line());
        }
    };
    at_line(
        problem,
        error.marker().line().saturating_sub(usize::from(by_parser)),
    )
}

fn at_line(problem: &str, line: usize) -> YamlError {
    match line {
        0 => YamlError::yaml(problem),
        line => YamlError::yaml(format!("line {line}: {problem}")),
    }
}
