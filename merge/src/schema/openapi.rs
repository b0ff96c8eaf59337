//! OpenAPI v3 (or JSON Schema) into an arena.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    ANY, Arena, FieldNode, Format, Node, NodeId, PatchStrategy, Relation, Scalar, ScalarKind,
    SchemaError,
};

pub(super) fn compile(definitions: &Map<String, Value>) -> Result<Arena, SchemaError> {
    let mut names = BTreeMap::new();
    let mut nodes = vec![Node::Any];
    for name in definitions.keys() {
        names.insert(Arc::<str>::from(name.as_str()), to_id(nodes.len()));
        nodes.push(Node::Any);
    }
    let mut compiler = Compiler {
        nodes,
        names,
        overrides: Vec::new(),
        at: "",
    };
    for (name, schema) in definitions {
        compiler.at = name;
        let (name, id) = {
            let (name, id) = compiler
                .names
                .get_key_value(name.as_str())
                .ok_or_else(|| SchemaError::UnknownDefinition(name.clone()))?;
            (Arc::clone(name), *id)
        };
        let node = compiler.node(schema, Some(&name))?;
        compiler.nodes[id as usize] = node;
    }
    compiler.finish()
}

struct Compiler<'d> {
    nodes: Vec<Node>,
    names: BTreeMap<Arc<str>, NodeId>,
    /// Nodes that are a definition with another atomicity, filled in when all definitions are known.
    overrides: Vec<(NodeId, NodeId, bool)>,
    /// The definition being compiled, for errors.
    at: &'d str,
}

/// An arena of more than `u32::MAX` nodes would need a document of hundreds of gigabytes.
fn to_id(index: usize) -> NodeId {
    NodeId::try_from(index).unwrap_or(ANY)
}

impl<'d> Compiler<'d> {
    fn invalid(&self, keyword: &'static str, reason: impl Into<String>) -> SchemaError {
        SchemaError::Invalid {
            at: self.at.to_owned(),
            keyword,
            reason: reason.into(),
        }
    }

    fn push(&mut self, node: Node) -> NodeId {
        let id = to_id(self.nodes.len());
        self.nodes.push(node);
        id
    }

    fn finish(mut self) -> Result<Arena, SchemaError> {
        let ids: Vec<_> = self
            .names
            .iter()
            .map(|(name, id)| (Arc::clone(name), *id))
            .collect();
        for (name, id) in ids {
            self.resolve(id)
                .ok_or_else(|| SchemaError::Circular(name.to_string()))?;
        }
        for (id, target, atomic) in std::mem::take(&mut self.overrides) {
            // Definitions end somewhere, and an override points at a definition.
            let target = self.resolve(target).unwrap_or(ANY);
            let mut node = self.nodes[target as usize].clone();
            match &mut node {
                Node::Struct { atomic: a, .. } | Node::Map { atomic: a, .. } => *a = atomic,
                Node::Any => {
                    node = Node::Map { value: ANY, atomic };
                }
                Node::Scalar(_) | Node::List { .. } | Node::Ref(_) => {}
            }
            self.nodes[id as usize] = node;
        }
        Ok(Arena {
            nodes: self.nodes,
            names: self.names,
        })
    }

    fn resolve(&self, mut id: NodeId) -> Option<NodeId> {
        for _ in 0..=self.names.len() {
            match self.nodes[id as usize] {
                Node::Ref(to) => id = to,
                _ => return Some(id),
            }
        }
        None
    }

    /// The definition that a schema refers to, by `$ref` or by an `allOf` of one `$ref`.
    fn reference(&self, schema: &Value) -> Result<Option<NodeId>, SchemaError> {
        let target = schema.get("$ref").or_else(|| match schema.get("allOf") {
            Some(Value::Array(all)) if all.len() == 1 => all[0].get("$ref"),
            _ => None,
        });
        let Some(target) = target else {
            return Ok(None);
        };
        let Some(target) = target.as_str() else {
            return Err(self.invalid("$ref", "must be a string"));
        };
        let name = target.rsplit('/').next().unwrap_or(target);
        match self.names.get(name) {
            Some(id) => Ok(Some(*id)),
            None => Err(SchemaError::UnknownReference {
                at: self.at.to_owned(),
                to: name.to_owned(),
            }),
        }
    }

    /// A schema in the place of a child: a reference stays one, anything else becomes a new node.
    fn child(&mut self, schema: &Value) -> Result<NodeId, SchemaError> {
        if let Some(target) = self.reference(schema)? {
            return match self.atomic(schema)? {
                None => Ok(target),
                Some(atomic) => {
                    let id = self.push(Node::Any);
                    self.overrides.push((id, target, atomic));
                    Ok(id)
                }
            };
        }
        match self.node(schema, None)? {
            Node::Any => Ok(ANY),
            node => Ok(self.push(node)),
        }
    }

    fn node(&mut self, schema: &Value, name: Option<&Arc<str>>) -> Result<Node, SchemaError> {
        if let Some(target) = self.reference(schema)? {
            return Ok(Node::Ref(target));
        }
        let format = format(schema);
        let is_quantity = name.is_some_and(|name| name.rsplit('.').next() == Some("Quantity"));
        if flag(schema, "x-kubernetes-int-or-string")
            || text(schema, "format") == Some("int-or-string")
        {
            return Ok(Node::Scalar(Scalar {
                kind: if is_quantity {
                    ScalarKind::Quantity
                } else {
                    ScalarKind::IntOrString
                },
                format,
            }));
        }
        let scalar = |kind| Ok(Node::Scalar(Scalar { kind, format }));
        match type_of(schema) {
            Some("string") if is_quantity => scalar(ScalarKind::Quantity),
            Some("string") => scalar(ScalarKind::String),
            Some("integer") => scalar(ScalarKind::Integer),
            Some("number") => scalar(ScalarKind::Number),
            Some("boolean") => scalar(ScalarKind::Boolean),
            Some("array") => self.list(schema),
            Some("object") => self.object(schema, name),
            Some(other) => Err(self.invalid("type", format!("unknown type {other:?}"))),
            None if schema.get("properties").is_some() => self.object(schema, name),
            None if schema.get("items").is_some() => self.list(schema),
            None => Ok(alternatives(schema)
                .map_or(Node::Any, |kind| Node::Scalar(Scalar { kind, format }))),
        }
    }

    fn list(&mut self, schema: &Value) -> Result<Node, SchemaError> {
        let item = match schema.get("items") {
            Some(items) => self.child(items)?,
            None => ANY,
        };
        let relation = match text(schema, "x-kubernetes-list-type") {
            None | Some("atomic") => Relation::Atomic,
            Some("set") => Relation::Set,
            Some("map") => {
                let keys = match schema.get("x-kubernetes-list-map-keys") {
                    Some(Value::Array(keys)) => keys
                        .iter()
                        .map(|key| key.as_str().map(Box::<str>::from))
                        .collect::<Option<Vec<_>>>(),
                    _ => None,
                };
                match keys {
                    Some(keys) if !keys.is_empty() => Relation::Map(keys.into()),
                    _ => {
                        return Err(self.invalid(
                            "x-kubernetes-list-map-keys",
                            "a list of type map needs at least one key",
                        ));
                    }
                }
            }
            Some(other) => {
                return Err(self.invalid(
                    "x-kubernetes-list-type",
                    format!("{other:?} is none of atomic, set, map"),
                ));
            }
        };
        Ok(Node::List { item, relation })
    }

    fn object(&mut self, schema: &Value, name: Option<&Arc<str>>) -> Result<Node, SchemaError> {
        let atomic = self.atomic(schema)?.unwrap_or(false);
        let additional = match schema.get("additionalProperties") {
            None | Some(Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(ANY),
            Some(values) => Some(self.child(values)?),
        };
        let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
        let embedded = flag(schema, "x-kubernetes-embedded-resource");
        let properties = schema.get("properties").and_then(Value::as_object);
        let Some(properties) = properties.filter(|p| !p.is_empty() || embedded) else {
            // An object of which nothing is said (RawExtension, FieldsV1) keeps whatever it holds.
            return Ok(Node::Map {
                value: additional.unwrap_or(ANY),
                atomic,
            });
        };
        let required: BTreeSet<&str> = match schema.get("required") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => BTreeSet::new(),
        };
        let mut fields = Vec::with_capacity(properties.len());
        for (name, property) in properties {
            fields.push(self.field(name, property, required.contains(name.as_str()))?);
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Node::Struct {
            name: name.map(Arc::clone),
            fields: fields.into(),
            rest: additional.or_else(|| (preserve || embedded).then_some(ANY)),
            atomic,
            embedded,
        })
    }

    fn field(
        &mut self,
        name: &str,
        schema: &Value,
        required: bool,
    ) -> Result<FieldNode, SchemaError> {
        let mut patch = PatchStrategy::default();
        for word in text(schema, "x-kubernetes-patch-strategy")
            .into_iter()
            .flat_map(|words| words.split(','))
        {
            match word.trim() {
                "merge" => patch.merge = true,
                "replace" => patch.replace = true,
                "retainKeys" => patch.retain_keys = true,
                other => {
                    return Err(self.invalid(
                        "x-kubernetes-patch-strategy",
                        format!("{other:?} is none of merge, replace, retainKeys"),
                    ));
                }
            }
        }
        Ok(FieldNode {
            name: name.into(),
            ty: self.child(schema)?,
            required,
            nullable: flag(schema, "nullable"),
            default: schema.get("default").cloned(),
            patch,
            merge_key: text(schema, "x-kubernetes-patch-merge-key").map(Into::into),
        })
    }

    fn atomic(&self, schema: &Value) -> Result<Option<bool>, SchemaError> {
        match text(schema, "x-kubernetes-map-type") {
            None => Ok(None),
            Some("atomic") => Ok(Some(true)),
            Some("granular") => Ok(Some(false)),
            Some(other) => Err(self.invalid(
                "x-kubernetes-map-type",
                format!("{other:?} is none of atomic, granular"),
            )),
        }
    }
}

fn text<'v>(schema: &'v Value, keyword: &str) -> Option<&'v str> {
    schema.get(keyword).and_then(Value::as_str)
}

fn flag(schema: &Value, keyword: &str) -> bool {
    schema
        .get(keyword)
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

/// The type: a word, or the first word that is not `null` of a list (JSON Schema's way to say nullable).
fn type_of(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(word) => Some(word),
        Value::Array(words) => words
            .iter()
            .filter_map(Value::as_str)
            .find(|word| *word != "null"),
        _ => None,
    }
}

fn format(schema: &Value) -> Format {
    match text(schema, "format") {
        None => Format::Unspecified,
        Some("int32") => Format::Int32,
        Some("int64") => Format::Int64,
        Some("float" | "double") => Format::Double,
        Some("byte") => Format::Byte,
        Some("date-time") => Format::DateTime,
        Some(_) => Format::Other,
    }
}

/// OpenAPI v3 writes a quantity as "string or number" and an int-or-string as "integer or string".
fn alternatives(schema: &Value) -> Option<ScalarKind> {
    let Some(Value::Array(options)) = schema.get("oneOf").or_else(|| schema.get("anyOf")) else {
        return None;
    };
    let types: BTreeSet<&str> = options.iter().filter_map(type_of).collect();
    if types.len() != options.len() || !types.contains("string") {
        return None;
    }
    if types.contains("number") {
        Some(ScalarKind::Quantity)
    } else if types.contains("integer") {
        Some(ScalarKind::IntOrString)
    } else {
        None
    }
}
