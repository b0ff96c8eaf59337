//! The structural schema that every algorithm of this crate walks.
//!
//! A [`Definitions`] is a whole OpenAPI document compiled once into one arena; a [`Schema`] is one of its definitions
//! (a shared pointer and a number, so cloning is free), and a [`Type`] is a `Copy` reference to a node of it.
//! Definitions refer to each other by index, so recursive types such as `JSONSchemaProps` cost nothing.
//!
//! ```
//! use orlop_merge::schema::{Kind, Schema};
//!
//! let document = serde_json::json!({
//!     "Tree": {"type": "object", "properties": {
//!         "name": {"type": "string"},
//!         "children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}},
//!     }},
//! });
//! let schema = Schema::from_openapi(document.as_object().unwrap(), "Tree")?;
//! let Kind::Struct(tree) = schema.ty().kind() else { panic!() };
//! let Kind::List(children) = tree.field("children").unwrap().ty().kind() else { panic!() };
//! assert_eq!(children.item().name(), Some("Tree"));
//! # Ok::<(), orlop_merge::schema::SchemaError>(())
//! ```

mod openapi;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

/// What is wrong with an OpenAPI document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The requested definition is not in the document.
    #[error("no definition named {0:?}")]
    UnknownDefinition(String),
    /// A `$ref` points outside the document.
    #[error("{at}: $ref to the unknown definition {to:?}")]
    UnknownReference {
        /// The definition that holds the reference.
        at: String,
        /// The name it points to.
        to: String,
    },
    /// Definitions that are nothing but references to each other.
    #[error("the definition {0:?} refers to nothing but itself")]
    Circular(String),
    /// A keyword has a value that it may not have.
    #[error("{at}: invalid {keyword}: {reason}")]
    Invalid {
        /// The definition in which it stands.
        at: String,
        /// The keyword of OpenAPI or Kubernetes.
        keyword: &'static str,
        /// What was expected.
        reason: String,
    },
}

/// A compiled OpenAPI document: all its definitions, ready to be handed out as [`Schema`]s.
#[derive(Clone)]
pub struct Definitions {
    arena: Arc<Arena>,
}

/// One definition of a compiled document.
#[derive(Clone)]
pub struct Schema {
    arena: Arc<Arena>,
    root: NodeId,
}

/// A node of a schema, by reference.
#[derive(Clone, Copy)]
pub struct Type<'a> {
    arena: &'a Arena,
    id: NodeId,
}

pub(crate) type NodeId = u32;

/// The node for values of which nothing is known; always the first of an arena.
pub(crate) const ANY: NodeId = 0;

#[derive(Debug, Default)]
pub(crate) struct Arena {
    nodes: Vec<Node>,
    names: BTreeMap<Arc<str>, NodeId>,
}

#[derive(Debug, Clone)]
pub(crate) enum Node {
    Any,
    Scalar(Scalar),
    List {
        item: NodeId,
        relation: Relation,
    },
    Map {
        value: NodeId,
        atomic: bool,
    },
    Struct {
        name: Option<Arc<str>>,
        fields: Arc<[FieldNode]>,
        rest: Option<NodeId>,
        atomic: bool,
        embedded: bool,
    },
    Ref(NodeId),
}

#[derive(Debug, Clone)]
pub(crate) enum Relation {
    Atomic,
    Set,
    Map(Arc<[Box<str>]>),
}

#[derive(Debug)]
pub(crate) struct FieldNode {
    name: Box<str>,
    ty: NodeId,
    required: bool,
    nullable: bool,
    default: Option<Value>,
    patch: PatchStrategy,
    merge_key: Option<Box<str>>,
}

/// What a node is.
#[derive(Clone, Copy)]
pub enum Kind<'a> {
    /// A string, number or boolean.
    Scalar(Scalar),
    /// An array.
    List(ListType<'a>),
    /// An object with free keys and values of one type.
    Map(MapType<'a>),
    /// An object with declared fields.
    Struct(StructType<'a>),
    /// Anything: JSON of which the schema says nothing.
    Any,
}

/// A scalar: its JSON type and its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scalar {
    /// The JSON type.
    pub kind: ScalarKind,
    /// The format, which narrows it.
    pub format: Format,
}

/// The JSON type of a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarKind {
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A whole number or a string: ports, percentages.
    IntOrString,
    /// A resource quantity: a string or a number.
    Quantity,
}

/// The format of a scalar, as far as it changes what is accepted or how it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// None given.
    #[default]
    Unspecified,
    /// A 32-bit signed integer.
    Int32,
    /// A 64-bit signed integer.
    Int64,
    /// A floating point number of 32 or 64 bits.
    Double,
    /// Base64.
    Byte,
    /// RFC 3339.
    DateTime,
    /// Some other format, which this crate does not look at.
    Other,
}

/// How a field is merged by a strategic merge patch (`x-kubernetes-patch-strategy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// Lists are merged by the merge key, or as a set when their items are scalars.
    pub merge: bool,
    /// The whole value is replaced.
    pub replace: bool,
    /// Patches may carry `$retainKeys`.
    pub retain_keys: bool,
}

/// How the items of a list belong together (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind<'a> {
    /// One value, replaced as a whole.
    Atomic,
    /// Scalars without duplicates.
    Set,
    /// Objects told apart by these fields (`x-kubernetes-list-map-keys`).
    Map(&'a [Box<str>]),
}

/// A list node.
#[derive(Clone, Copy)]
pub struct ListType<'a> {
    arena: &'a Arena,
    item: NodeId,
    relation: &'a Relation,
}

/// A map node.
#[derive(Clone, Copy)]
pub struct MapType<'a> {
    arena: &'a Arena,
    value: NodeId,
    atomic: bool,
}

/// A struct node.
#[derive(Clone, Copy)]
pub struct StructType<'a> {
    arena: &'a Arena,
    name: Option<&'a str>,
    fields: &'a [FieldNode],
    rest: Option<NodeId>,
    atomic: bool,
    embedded: bool,
}

/// The zero values that are no constants.
struct Zeros {
    object: Value,
    string: Value,
    number: Value,
    quantity: Value,
}

static ZEROS: LazyLock<Zeros> = LazyLock::new(|| Zeros {
    object: Value::Object(serde_json::Map::new()),
    string: Value::String(String::new()),
    number: Value::from(0),
    quantity: Value::from("0"),
});

/// A declared field of a struct.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    arena: &'a Arena,
    node: &'a FieldNode,
}

impl Definitions {
    /// Compiles a map of OpenAPI v3 schemas (`components.schemas`) or JSON Schemas (`$defs`) in one pass.
    ///
    /// # Errors
    /// When a reference leads nowhere or a Kubernetes extension has a value that it may not have.
    pub fn from_openapi(definitions: &serde_json::Map<String, Value>) -> Result<Self, SchemaError> {
        Ok(Self {
            arena: Arc::new(openapi::compile(definitions)?),
        })
    }

    /// The definition of that name.
    #[must_use]
    pub fn schema(&self, name: &str) -> Option<Schema> {
        let root = *self.arena.names.get(name)?;
        Some(Schema {
            arena: Arc::clone(&self.arena),
            root,
        })
    }

    /// The names of all definitions, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.arena.names.keys().map(AsRef::as_ref)
    }
}

impl Schema {
    /// Compiles a document and takes one definition of it. Use [`Definitions`] when several are needed.
    ///
    /// # Errors
    /// As [`Definitions::from_openapi`], and when there is no definition named `root`.
    pub fn from_openapi(
        definitions: &serde_json::Map<String, Value>,
        root: &str,
    ) -> Result<Self, SchemaError> {
        Definitions::from_openapi(definitions)?
            .schema(root)
            .ok_or_else(|| SchemaError::UnknownDefinition(root.to_owned()))
    }

    /// A schema that knows nothing: objects are merged key by key, lists replaced as a whole. What Kubernetes uses for
    /// custom resources without a schema.
    #[must_use]
    pub fn untyped() -> Self {
        Self {
            arena: Arc::new(Arena {
                nodes: vec![Node::Any],
                names: BTreeMap::new(),
            }),
            root: ANY,
        }
    }

    /// The root node.
    #[must_use]
    pub fn ty(&self) -> Type<'_> {
        Type::new(&self.arena, self.root)
    }

    /// Another definition of the same document.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Self> {
        let root = *self.arena.names.get(name)?;
        Some(Self {
            arena: Arc::clone(&self.arena),
            root,
        })
    }
}

impl<'a> From<&'a Schema> for Type<'a> {
    fn from(schema: &'a Schema) -> Self {
        schema.ty()
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schema").field(&self.ty().name()).finish()
    }
}

impl fmt::Debug for Definitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl fmt::Debug for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.go_name())
    }
}

impl<'a> Type<'a> {
    fn new(arena: &'a Arena, mut id: NodeId) -> Self {
        // Compilation refuses circles of bare references, so this ends.
        while let Node::Ref(to) = arena.nodes[id as usize] {
            id = to;
        }
        Self { arena, id }
    }

    /// What this node is.
    #[must_use]
    pub fn kind(self) -> Kind<'a> {
        let arena = self.arena;
        match &arena.nodes[self.id as usize] {
            // `new` has followed every reference.
            Node::Any | Node::Ref(_) => Kind::Any,
            Node::Scalar(scalar) => Kind::Scalar(*scalar),
            Node::List { item, relation } => Kind::List(ListType {
                arena,
                item: *item,
                relation,
            }),
            Node::Map { value, atomic } => Kind::Map(MapType {
                arena,
                value: *value,
                atomic: *atomic,
            }),
            Node::Struct {
                name,
                fields,
                rest,
                atomic,
                embedded,
            } => Kind::Struct(StructType {
                arena,
                name: name.as_deref(),
                fields,
                rest: *rest,
                atomic: *atomic,
                embedded: *embedded,
            }),
        }
    }

    /// The name of the definition that this node is, when it is a struct with a name.
    #[must_use]
    pub fn name(self) -> Option<&'a str> {
        match &self.arena.nodes[self.id as usize] {
            Node::Struct { name, .. } => name.as_deref(),
            _ => None,
        }
    }

    /// The type of the value under `key`, for a struct, a map or anything. `None` for an undeclared field and for nodes
    /// that have no keys.
    #[must_use]
    pub fn child(self, key: &str) -> Option<Type<'a>> {
        match self.kind() {
            Kind::Struct(s) => s.child(key),
            Kind::Map(m) => Some(m.value()),
            Kind::Any => Some(self),
            Kind::Scalar(_) | Kind::List(_) => None,
        }
    }

    /// The type of this node as Kubernetes' decoder names it in an error: `int32`, `[]v1.Container`, `map[string]string`.
    #[must_use]
    pub fn go_name(self) -> String {
        match self.kind() {
            Kind::Any => "interface {}".to_owned(),
            Kind::Scalar(s) => s.go_name().to_owned(),
            Kind::List(l) => format!("[]{}", l.item().go_name()),
            Kind::Map(m) => format!("map[string]{}", m.value().go_name()),
            Kind::Struct(s) => s.go_name(),
        }
    }
}

impl Scalar {
    /// The name of the Go type that Kubernetes' decoder gives in an error.
    #[must_use]
    pub fn go_name(self) -> &'static str {
        match (self.kind, self.format) {
            (ScalarKind::String, Format::DateTime) => "v1.Time",
            (ScalarKind::String, Format::Byte) => "[]uint8",
            (ScalarKind::String, _) => "string",
            (ScalarKind::Integer, Format::Int32) => "int32",
            (ScalarKind::Integer, _) => "int64",
            (ScalarKind::Number, _) => "float64",
            (ScalarKind::Boolean, _) => "bool",
            (ScalarKind::IntOrString, _) => "intstr.IntOrString",
            (ScalarKind::Quantity, _) => "resource.Quantity",
        }
    }

    /// Whether a value is of this type. Null is never; callers treat it as absent.
    #[must_use]
    pub fn accepts(self, value: &Value) -> bool {
        match (self.kind, value) {
            (
                ScalarKind::String | ScalarKind::IntOrString | ScalarKind::Quantity,
                Value::String(_),
            )
            | (ScalarKind::Boolean, Value::Bool(_))
            | (ScalarKind::Number | ScalarKind::Quantity, Value::Number(_)) => true,
            (ScalarKind::Integer, Value::Number(n)) => match self.format {
                Format::Int32 => n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
                _ => n.as_i64().is_some(),
            },
            (ScalarKind::IntOrString, Value::Number(n)) => {
                n.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
            }
            _ => false,
        }
    }
}

impl<'a> ListType<'a> {
    /// The type of the items.
    #[must_use]
    pub fn item(self) -> Type<'a> {
        Type::new(self.arena, self.item)
    }

    /// How the items belong together.
    #[must_use]
    pub fn kind(self) -> ListKind<'a> {
        match self.relation {
            Relation::Atomic => ListKind::Atomic,
            Relation::Set => ListKind::Set,
            Relation::Map(keys) => ListKind::Map(keys),
        }
    }

    /// The default of a key field, which tells items apart that omit it (a port's protocol).
    #[must_use]
    pub fn key_default(self, key: &str) -> Option<&'a Value> {
        match self.item().kind() {
            Kind::Struct(s) => s.field(key).and_then(Field::default_value),
            _ => None,
        }
    }
}

impl<'a> MapType<'a> {
    /// The type of the values.
    #[must_use]
    pub fn value(self) -> Type<'a> {
        Type::new(self.arena, self.value)
    }

    /// Whether the map is one value for server-side apply (`x-kubernetes-map-type: atomic`).
    #[must_use]
    pub fn is_atomic(self) -> bool {
        self.atomic
    }
}

impl<'a> StructType<'a> {
    /// The name of the definition, such as `io.k8s.api.core.v1.PodSpec`.
    #[must_use]
    pub fn name(self) -> Option<&'a str> {
        self.name
    }

    /// The declared fields, sorted by name.
    pub fn fields(self) -> impl ExactSizeIterator<Item = Field<'a>> {
        let arena = self.arena;
        self.fields.iter().map(move |node| Field { arena, node })
    }

    /// The declared field of that name.
    #[must_use]
    pub fn field(self, name: &str) -> Option<Field<'a>> {
        let at = self
            .fields
            .binary_search_by(|field| (*field.name).cmp(name))
            .ok()?;
        Some(Field {
            arena: self.arena,
            node: &self.fields[at],
        })
    }

    /// The type under a key: of the declared field, or of the rest. `None` when the key is not declared.
    #[must_use]
    pub fn child(self, key: &str) -> Option<Type<'a>> {
        self.field(key).map(Field::ty).or_else(|| self.rest())
    }

    /// The type of undeclared keys, where they are allowed (`additionalProperties`, `x-kubernetes-preserve-unknown-fields`).
    #[must_use]
    pub fn rest(self) -> Option<Type<'a>> {
        self.rest.map(|id| Type::new(self.arena, id))
    }

    /// Whether the struct is one value for server-side apply (`x-kubernetes-map-type: atomic`).
    #[must_use]
    pub fn is_atomic(self) -> bool {
        self.atomic
    }

    /// Whether it is a whole Kubernetes object (`x-kubernetes-embedded-resource`).
    #[must_use]
    pub fn is_embedded_resource(self) -> bool {
        self.embedded
    }

    /// `PodSpec` of `io.k8s.api.core.v1.PodSpec`.
    #[must_use]
    pub fn short_name(self) -> &'a str {
        self.name
            .map_or("", |name| name.rsplit('.').next().unwrap_or(name))
    }

    fn go_name(self) -> String {
        let Some(name) = self.name else {
            return "struct {}".to_owned();
        };
        let mut parts = name.rsplitn(3, '.');
        match (parts.next(), parts.next()) {
            (Some(kind), Some(package)) => format!("{package}.{kind}"),
            _ => name.to_owned(),
        }
    }
}

impl<'a> Field<'a> {
    /// The name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'a str {
        &self.node.name
    }

    /// The type.
    #[must_use]
    pub fn ty(self) -> Type<'a> {
        Type::new(self.arena, self.node.ty)
    }

    /// Whether it is in `required`.
    #[must_use]
    pub fn is_required(self) -> bool {
        self.node.required
    }

    /// Whether null is a value of its own and not absence (`nullable`).
    #[must_use]
    pub fn is_nullable(self) -> bool {
        self.node.nullable
    }

    /// The structural default.
    #[must_use]
    pub fn default_value(self) -> Option<&'a Value> {
        self.node.default.as_ref()
    }

    /// The value of the field in an object of which Kubernetes' own server holds nothing but zero values: those fields are
    /// always there that are required, the structs whose default is `{}`, and the metadata, spec and status of objects
    /// and templates. `None` for all others.
    #[must_use]
    pub fn zero(self) -> Option<&'static Value> {
        let kind = self.ty().kind();
        let is_struct = matches!(kind, Kind::Struct(_));
        let has_empty_default = || {
            self.default_value()
                .and_then(Value::as_object)
                .is_some_and(serde_json::Map::is_empty)
        };
        let is_part = || matches!(self.name(), "metadata" | "spec" | "status");
        if !self.is_required() && !(is_struct && (is_part() || has_empty_default())) {
            return None;
        }
        Some(match kind {
            Kind::Struct(_) => &ZEROS.object,
            Kind::Scalar(scalar) => match (scalar.kind, scalar.format) {
                (ScalarKind::String, Format::DateTime | Format::Byte) => &Value::Null,
                (ScalarKind::String, _) => &ZEROS.string,
                (ScalarKind::Integer | ScalarKind::Number | ScalarKind::IntOrString, _) => {
                    &ZEROS.number
                }
                (ScalarKind::Boolean, _) => &Value::Bool(false),
                (ScalarKind::Quantity, _) => &ZEROS.quantity,
            },
            Kind::List(_) | Kind::Map(_) | Kind::Any => &Value::Null,
        })
    }

    /// How a strategic merge patch treats the field.
    #[must_use]
    pub fn patch_strategy(self) -> PatchStrategy {
        self.node.patch
    }

    /// The field by which a strategic merge patch tells the items of this list apart.
    #[must_use]
    pub fn patch_merge_key(self) -> Option<&'a str> {
        self.node.merge_key.as_deref()
    }
}
