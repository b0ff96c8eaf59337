//! Reads an `EncryptionConfiguration`: strictly, and with the checks and messages of kube-apiserver.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orlop_core::field::{FieldError, Path};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::config::{Algorithm, ConfigError, GroupResource, Key, Provider, Rule};

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";
/// What providers hold that is shown in no message.
const REDACTED: &str = "REDACTED";

/// Reads a document field by field, and takes note of what it does not know.
#[derive(Default)]
struct Reader {
    unknown: Vec<String>,
    errors: Vec<FieldError>,
}

type Object = Map<String, Value>;

/// A field that is there and not null.
fn field<'a>(object: &'a Object, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

fn wrong(path: &Path, wanted: &'static str) -> ConfigError {
    ConfigError::Type {
        path: path.clone(),
        wanted,
    }
}

fn object<'a>(value: &'a Value, path: &Path) -> Result<&'a Object, ConfigError> {
    value.as_object().ok_or_else(|| wrong(path, "an object"))
}

fn list<'a>(object: &'a Object, name: &str, path: &Path) -> Result<&'a [Value], ConfigError> {
    match field(object, name) {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(wrong(&path.child(name), "a list")),
    }
}

fn text<'a>(object: &'a Object, name: &str, path: &Path) -> Result<&'a str, ConfigError> {
    match field(object, name) {
        None => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(wrong(&path.child(name), "a string")),
    }
}

fn at_least_one(path: &Path, what: impl std::fmt::Display) -> FieldError {
    FieldError::required(path, format!("at least one {what} is required"))
}

/// The rules of a document.
pub(super) fn rules(document: &Value) -> Result<Vec<Rule>, ConfigError> {
    let root = Path::root();
    let document = object(document, &root)?;
    let kind = text(document, "kind", &root)?;
    let version = text(document, "apiVersion", &root)?;
    if kind.is_empty() {
        return Err(ConfigError::Missing("Kind"));
    }
    if version.is_empty() {
        return Err(ConfigError::Missing("apiVersion"));
    }
    // The second was in the documentation once, and is accepted ever since.
    let known = [(API_VERSION, KIND), ("v1", "EncryptionConfig")];
    if !known.contains(&(version, kind)) {
        return Err(ConfigError::Kind {
            kind: kind.to_owned(),
            version: version.to_owned(),
        });
    }
    let mut reader = Reader::default();
    reader.only(document, &root, &["apiVersion", "kind", "resources"]);
    let path = Path::new("resources");
    let entries = list(document, "resources", &root)?;
    if entries.is_empty() {
        reader.errors.push(at_least_one(&path, &path));
    }
    let mut rules = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        rules.push(reader.rule(entry, &path.index(index))?);
    }
    if !reader.unknown.is_empty() {
        return Err(ConfigError::Unknown(reader.unknown));
    }
    if !reader.errors.is_empty() {
        return Err(ConfigError::Invalid(reader.errors));
    }
    Ok(rules)
}

impl Reader {
    fn only(&mut self, object: &Object, path: &Path, known: &[&str]) {
        let unknown = object
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
            .map(|name| path.child(name).as_str().to_owned());
        self.unknown.extend(unknown);
    }

    fn rule(&mut self, entry: &Value, path: &Path) -> Result<Rule, ConfigError> {
        let entry = object(entry, path)?;
        self.only(entry, path, &["resources", "providers"]);
        let names_at = path.child("resources");
        let mut names = Vec::new();
        for (index, name) in list(entry, "resources", path)?.iter().enumerate() {
            let name = name
                .as_str()
                .ok_or_else(|| wrong(&names_at.index(index), "a string"))?;
            names.push(name);
        }
        if names.is_empty() {
            self.errors.push(at_least_one(&names_at, &names_at));
        }
        let resources: Vec<_> = names
            .iter()
            .map(|name| GroupResource::parse(name))
            .collect();
        self.overlaps(&names, &resources, &names_at);
        for (index, (name, resource)) in names.iter().zip(&resources).enumerate() {
            if let Some(detail) = bad_name(name, resource) {
                self.errors
                    .push(FieldError::invalid(&names_at.index(index), *name, detail));
            }
        }
        let providers_at = path.child("providers");
        let entries = list(entry, "providers", path)?;
        if entries.is_empty() {
            self.errors.push(at_least_one(&providers_at, &providers_at));
        }
        let mut providers = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            providers.extend(self.provider(entry, &providers_at.index(index))?);
        }
        Ok(Rule {
            resources,
            providers,
        })
    }

    fn overlaps(&mut self, names: &[&str], resources: &[GroupResource], path: &Path) {
        let pairs = || {
            resources.iter().enumerate().flat_map(|(index, one)| {
                let others = resources.iter().enumerate();
                others
                    .filter(move |(other, _)| *other != index)
                    .map(move |(_, other)| (one, other))
            })
        };
        if pairs().any(|(one, other)| one == other) {
            self.errors.push(FieldError::invalid(
                path,
                names.to_vec(),
                "the same resource cannot be specified multiple times",
            ));
        }
        let masks = |(one, other): (&GroupResource, &GroupResource)| {
            one.is_everything()
                || one.group == other.group && (one.resource == "*" || other.resource == "*")
        };
        if pairs().any(masks) {
            self.errors.push(FieldError::invalid(
                path,
                names.to_vec(),
                "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked",
            ));
        }
    }

    fn provider(&mut self, entry: &Value, path: &Path) -> Result<Option<Provider>, ConfigError> {
        const FIELDS: [&str; 5] = ["aesgcm", "aescbc", "secretbox", "identity", "kms"];
        let entry = object(entry, path)?;
        self.only(entry, path, &FIELDS);
        let mut found = FIELDS
            .into_iter()
            .filter_map(|name| field(entry, name).map(|value| (name, value)));
        let Some((name, value)) = found.next() else {
            self.errors.push(FieldError::invalid(
                path,
                Value::Object(Map::new()),
                "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
            ));
            return Ok(None);
        };
        if found.next().is_some() {
            self.errors.push(FieldError::invalid(
                path,
                REDACTED,
                "more than one provider specified in a single element, should split into different list elements",
            ));
            return Ok(None);
        }
        let path = path.child(name);
        let inner = object(value, &path)?;
        let algorithm = match name {
            "aesgcm" => Algorithm::AesGcm,
            "aescbc" => Algorithm::AesCbc,
            "secretbox" => Algorithm::Secretbox,
            "identity" => {
                self.only(inner, &path, &[]);
                return Ok(Some(Provider::Identity));
            }
            _ => {
                let name = text(inner, "name", &path)?;
                self.errors.push(FieldError::forbidden(
                    &path,
                    format!(
                        "the KMS provider {name:?} cannot be used: providers are aesgcm, aescbc, secretbox and identity, with their keys in this file"
                    ),
                ));
                return Ok(None);
            }
        };
        self.only(inner, &path, &["keys"]);
        let keys_at = path.child("keys");
        let entries = list(inner, "keys", &path)?;
        if entries.is_empty() {
            self.errors.push(at_least_one(&keys_at, "keys"));
        }
        let mut keys = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            keys.push(self.key(entry, &keys_at.index(index), algorithm.key_lengths())?);
        }
        Ok(Some(Provider::Keys(algorithm, keys)))
    }

    fn key(&mut self, entry: &Value, path: &Path, lengths: &[usize]) -> Result<Key, ConfigError> {
        let entry = object(entry, path)?;
        self.only(entry, path, &["name", "secret"]);
        let mandatory = |field: &str| {
            FieldError::required(
                &path.child(field),
                format!("{field} is a mandatory field for a key"),
            )
        };
        let name = text(entry, "name", path)?.to_owned();
        if name.is_empty() {
            self.errors.push(mandatory("name"));
        }
        let secret_at = path.child("secret");
        let encoded = text(entry, "secret", path)?;
        let mut secret = Zeroizing::new(Vec::new());
        if encoded.is_empty() {
            self.errors.push(mandatory("secret"));
            return Ok(Key { name, secret });
        }
        // As Go's decoder does, which passes over line breaks.
        let encoded: Zeroizing<String> =
            Zeroizing::new(encoded.chars().filter(|c| !"\r\n".contains(*c)).collect());
        match STANDARD.decode_vec(encoded.as_bytes(), &mut secret) {
            Ok(()) if lengths.contains(&secret.len()) => {}
            Ok(()) => {
                let lengths: Vec<String> = lengths.iter().map(ToString::to_string).collect();
                self.errors.push(FieldError::invalid(
                    &secret_at,
                    REDACTED,
                    format!(
                        "secret is not of the expected length, got {}, expected one of [{}]",
                        secret.len(),
                        lengths.join(" ")
                    ),
                ));
            }
            Err(_) => self.errors.push(FieldError::invalid(
                &secret_at,
                REDACTED,
                "secrets must be base64 encoded",
            )),
        }
        Ok(Key { name, secret })
    }
}

/// What is wrong with the name of a resource.
fn bad_name(name: &str, resource: &GroupResource) -> Option<&'static str> {
    if name.to_lowercase() != name {
        return Some("resource name should not contain capital letters");
    }
    match name {
        "*" => {
            return Some(
                "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
            );
        }
        "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations" => {
            return Some("resources which do not have REST API/s cannot be encrypted");
        }
        _ => {}
    }
    match resource.group.as_str() {
        "events.k8s.io" => Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
        ),
        "extensions" => {
            Some("'extensions' group has been removed and cannot be used for encryption")
        }
        "*" if resource.resource != "*" => {
            Some("encrypting the same resource across groups is not supported")
        }
        _ => None,
    }
}
