//! The table of messages, read from the crate's data.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use orlop_core::resource::GroupVersionKind;

/// The type of a field's value, or of the items of a list or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Int32,
    Int64,
    Bool,
    Bytes,
    Double,
    /// A message with a JSON form of its own.
    Special(Special),
    /// A message of the table, by its place.
    Message(usize),
}

/// Messages whose JSON form is no object of their fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// Whole seconds, RFC 3339.
    Time,
    /// Microseconds, RFC 3339.
    MicroTime,
    Quantity,
    IntOrString,
    /// Bytes that are JSON, or an envelope.
    Raw,
    /// A list of strings in a message of its own.
    Strings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Single,
    Repeated,
    Map,
    /// The fields of the message stand in the parent's JSON object.
    Inline,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) ty: Type,
    pub(super) shape: Shape,
    /// The zero value on the wire means that the field is absent: Go's plain values with `omitempty`.
    pub(super) zero_is_absent: bool,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) name: &'static str,
    /// Sorted by number.
    pub(super) fields: Vec<Field>,
}

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        let at = self
            .fields
            .binary_search_by_key(&number, |field| field.number)
            .ok()?;
        Some(&self.fields[at])
    }
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) messages: Vec<Message>,
    names: BTreeMap<&'static str, usize>,
}

impl Table {
    pub(super) fn named(&self, name: &str) -> Option<&Message> {
        self.names.get(name).map(|at| &self.messages[*at])
    }

    /// The message of a kind. Options and `Status` are the same in every group.
    pub(super) fn kind(&self, kind: &GroupVersionKind) -> Option<&Message> {
        let GroupVersionKind {
            group,
            version,
            kind,
        } = kind;
        let package = match &**group {
            "" => "core",
            "meta.k8s.io" => "meta",
            group => group.split('.').next().unwrap_or(group),
        };
        self.named(&format!("{package}.{version}.{kind}"))
            .or_else(|| {
                META.contains(&&**kind)
                    .then(|| self.named(&format!("meta.v1.{kind}")))
                    .flatten()
            })
    }
}

/// Kinds of the meta package that are known in every group.
const META: &[&str] = &[
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "CreateOptions",
    "DeleteOptions",
    "GetOptions",
    "ListOptions",
    "PatchOptions",
    "Status",
    "UpdateOptions",
    "WatchEvent",
];

pub(super) fn get() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| parse(include_str!("../../data/protobuf.txt")))
}

fn parse(text: &'static str) -> Table {
    let lines = || {
        text.lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
    };
    let names: BTreeMap<&'static str, usize> = lines()
        .filter(|line| !line.starts_with(' '))
        .enumerate()
        .map(|(at, name)| (name, at))
        .collect();
    let mut messages: Vec<Message> = Vec::with_capacity(names.len());
    for line in lines() {
        if !line.starts_with(' ') {
            messages.push(Message {
                name: line,
                fields: Vec::new(),
            });
            continue;
        }
        let Some(message) = messages.last_mut() else {
            continue;
        };
        let package = message
            .name
            .rsplit_once('.')
            .map_or("", |(package, _)| package);
        let mut words = line.split_whitespace();
        let (Some(number), Some(name), Some(ty)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let (shape, ty) = match ty.as_bytes()[0] {
            b'[' => (Shape::Repeated, &ty[1..ty.len() - 1]),
            b'{' => (Shape::Map, &ty[1..ty.len() - 1]),
            b'&' => (Shape::Inline, &ty[1..]),
            _ => (Shape::Single, ty),
        };
        let Some(ty) = scalar(ty).or_else(|| {
            let at = names
                .get(ty)
                .or_else(|| names.get(format!("{package}.{ty}").as_str()));
            at.copied().map(Type::Message)
        }) else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        message.fields.push(Field {
            number,
            name: name.trim_end_matches('?'),
            ty,
            shape,
            zero_is_absent: name.ends_with('?'),
        });
    }
    Table { messages, names }
}

fn scalar(word: &str) -> Option<Type> {
    Some(match word {
        "string" => Type::String,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "time" => Type::Special(Special::Time),
        "microtime" => Type::Special(Special::MicroTime),
        "quantity" => Type::Special(Special::Quantity),
        "int-or-string" => Type::Special(Special::IntOrString),
        "raw" => Type::Special(Special::Raw),
        "strings" => Type::Special(Special::Strings),
        _ => return None,
    })
}
