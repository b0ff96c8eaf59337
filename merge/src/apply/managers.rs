//! `metadata.managedFields`: who owns what.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::codec::CodecError;
use super::set::FieldSet;

/// The operation by which a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Anything else that writes.
    Update,
}

impl Operation {
    /// The word in `managedFields`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What tells managers apart. The same name is another manager for another operation or subresource, and for updates
/// in another version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManagerId {
    /// The name.
    pub manager: String,
    /// The operation.
    pub operation: Operation,
    /// The version of an update; `None` for an applier, who stays the same in every version.
    pub api_version: Option<String>,
    /// The subresource written through, or empty.
    pub subresource: String,
}

impl ManagerId {
    /// The identity of a writer; without a name it is `unknown`.
    #[must_use]
    pub fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let manager = if manager.is_empty() {
            "unknown"
        } else {
            manager
        };
        Self {
            manager: manager.to_owned(),
            operation,
            api_version: (operation == Operation::Update).then(|| api_version.to_owned()),
            subresource: subresource.to_owned(),
        }
    }
}

impl fmt::Display for ManagerId {
    /// As it stands in a conflict: `"m1"`, `"kubectl-edit" with subresource "status" using apps/v1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if let Some(version) = &self.api_version {
            write!(f, " using {version}")?;
        }
        Ok(())
    }
}

/// What a manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The fields.
    pub set: FieldSet,
    /// The version in which they are named.
    pub api_version: String,
    /// When it last changed the object, RFC 3339. Missing where a manager came in without changing anything.
    pub time: Option<String>,
}

/// All managers of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managers {
    pub(super) entries: BTreeMap<ManagerId, Ownership>,
}

/// Why `metadata.managedFields` could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManagersError {
    /// It is no list of objects.
    #[error("managedFields must be a list of objects")]
    NotAList,
    /// An entry has another operation.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// An entry has no version.
    #[error("apiVersion must not be empty")]
    NoApiVersion,
    /// An entry has no type of fields.
    #[error("missing fieldsType in managed fields entry {0}")]
    NoFieldsType(usize),
    /// An entry has a type of fields that is not `FieldsV1`.
    #[error("invalid fieldsType {fields_type:?} in managed fields entry {index}")]
    FieldsType {
        /// What it says.
        fields_type: String,
        /// The place of the entry.
        index: usize,
    },
    /// The fields of an entry cannot be read.
    #[error("error decoding set: {0}")]
    Fields(#[from] CodecError),
}

impl Managers {
    /// Nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nobody owns anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What a manager owns.
    #[must_use]
    pub fn get(&self, id: &ManagerId) -> Option<&Ownership> {
        self.entries.get(id)
    }

    /// All of them, sorted by identity.
    pub fn iter(&self) -> impl Iterator<Item = (&ManagerId, &Ownership)> {
        self.entries.iter()
    }

    /// Adds or replaces a manager. One that owns nothing is removed.
    pub fn insert(&mut self, id: ManagerId, ownership: Ownership) {
        if ownership.set.is_empty() {
            self.entries.remove(&id);
        } else {
            self.entries.insert(id, ownership);
        }
    }

    /// Removes a manager.
    pub fn remove(&mut self, id: &ManagerId) -> Option<Ownership> {
        self.entries.remove(id)
    }

    /// Reads the value of `metadata.managedFields`; null is nobody.
    ///
    /// # Errors
    /// In the words of Kubernetes, when an entry cannot be read.
    pub fn decode(managed_fields: &Value) -> Result<Self, ManagersError> {
        let entries = match managed_fields {
            Value::Null => return Ok(Self::new()),
            Value::Array(entries) => entries,
            _ => return Err(ManagersError::NotAList),
        };
        let mut managers = Self::new();
        for (index, entry) in entries.iter().enumerate() {
            let entry = entry.as_object().ok_or(ManagersError::NotAList)?;
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(ManagersError::Operation),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err(ManagersError::NoApiVersion);
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(ManagersError::NoFieldsType(index)),
                other => {
                    return Err(ManagersError::FieldsType {
                        fields_type: other.to_owned(),
                        index,
                    });
                }
            }
            let id = ManagerId {
                manager: text("manager").to_owned(),
                operation,
                api_version: (operation == Operation::Update).then(|| api_version.to_owned()),
                subresource: text("subresource").to_owned(),
            };
            let set = FieldSet::from_fields_v1(entry.get("fieldsV1").unwrap_or(&Value::Null))?;
            let time = entry.get("time").and_then(Value::as_str);
            managers.entries.insert(
                id,
                Ownership {
                    set,
                    api_version: api_version.to_owned(),
                    time: time.map(str::to_owned),
                },
            );
        }
        Ok(managers)
    }

    /// The managers as the value of `metadata.managedFields`, in Kubernetes' order: operation, time (none first), name,
    /// version, subresource. `None` when there are none.
    #[must_use]
    pub fn encode(&self) -> Option<Value> {
        if self.is_empty() {
            return None;
        }
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by(|(a, x), (b, y)| {
            (
                a.operation.as_str(),
                seconds(x),
                &a.manager,
                &x.api_version,
                &a.subresource,
            )
                .cmp(&(
                    b.operation.as_str(),
                    seconds(y),
                    &b.manager,
                    &y.api_version,
                    &b.subresource,
                ))
        });
        Some(Value::Array(
            entries
                .into_iter()
                .map(|(id, ownership)| encode(id, ownership))
                .collect(),
        ))
    }

    /// The managers of an object, read from its metadata.
    ///
    /// # Errors
    /// As [`Managers::decode`].
    pub fn of(object: &Value) -> Result<Self, ManagersError> {
        Self::decode(managed_fields(object))
    }

    /// The managers to start from when `new` is to replace `live`. A request may write `managedFields` itself: an empty
    /// list or a list of one empty entry resets them; nothing, or something that cannot be read, leaves those of the
    /// live object. Through a subresource they are never taken from the request.
    #[must_use]
    pub fn for_update(live: &Value, new: &Value, is_subresource: bool) -> Self {
        let of_live = || Self::of(live).unwrap_or_default();
        if is_subresource {
            return of_live();
        }
        let requested = managed_fields(new);
        if is_reset(requested) {
            return Self::new();
        }
        match Self::decode(requested) {
            Ok(managers) if !managers.is_empty() => managers,
            _ => of_live(),
        }
    }

    /// Writes the managers into the metadata of an object, or removes the field when there are none.
    pub fn write_to(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else {
            return;
        };
        match self.encode() {
            None => {
                if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
                    metadata.remove("managedFields");
                }
            }
            Some(encoded) => {
                let metadata = object
                    .entry("metadata")
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(metadata) = metadata {
                    metadata.insert("managedFields".to_owned(), encoded);
                }
            }
        }
    }
}

fn managed_fields(object: &Value) -> &Value {
    object
        .get("metadata")
        .and_then(|metadata| metadata.get("managedFields"))
        .unwrap_or(&Value::Null)
}

fn is_reset(managed_fields: &Value) -> bool {
    match managed_fields.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(only)]) => only.is_empty(),
        _ => false,
    }
}

/// Removes `metadata.managedFields`.
pub(super) fn strip_managed_fields(object: &mut Value) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("managedFields");
    }
}

fn encode(id: &ManagerId, ownership: &Ownership) -> Value {
    let mut entry = Map::new();
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            entry.insert(key.to_owned(), Value::from(value));
        }
    };
    text("manager", &id.manager);
    text("operation", id.operation.as_str());
    text("apiVersion", &ownership.api_version);
    text("time", ownership.time.as_deref().unwrap_or_default());
    text("fieldsType", "FieldsV1");
    text("subresource", &id.subresource);
    entry.insert("fieldsV1".to_owned(), ownership.set.to_fields_v1());
    Value::Object(entry)
}

/// The time of an entry in seconds since 1970; none and nonsense are the beginning of time.
pub(super) fn seconds(ownership: &Ownership) -> i64 {
    ownership
        .time
        .as_deref()
        .and_then(rfc3339_seconds)
        .unwrap_or(0)
}

fn rfc3339_seconds(time: &str) -> Option<i64> {
    let number = |from: usize, to: usize| time.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // Days since 1970 in the proleptic Gregorian calendar, counting years from March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let zone = time
        .get(19..)?
        .trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = match zone.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
        }
    };
    Some(days * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

#[cfg(test)]
mod tests {
    use super::rfc3339_seconds;

    #[test]
    fn times_are_read_in_every_zone() {
        assert_eq!(rfc3339_seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(rfc3339_seconds("2024-02-29T12:00:00Z"), Some(1_709_208_000));
        assert_eq!(
            rfc3339_seconds("2024-02-29T14:00:00.25+02:00"),
            Some(1_709_208_000)
        );
        assert_eq!(rfc3339_seconds("yesterday"), None);
    }
}
