//! A list of complaints that grows while a document is walked.

use orlop_core::field::{FieldError, Path};
use serde_json::Value;

use crate::doc;

/// The complaints about a document so far.
#[derive(Debug, Default)]
pub(crate) struct Errors(pub(crate) Vec<FieldError>);

impl Errors {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn required(&mut self, path: &Path, detail: impl Into<String>) {
        self.0.push(FieldError::required(path, detail));
    }

    pub(crate) fn invalid(
        &mut self,
        path: &Path,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        self.0.push(FieldError::invalid(path, value, detail));
    }

    /// `Invalid value: <detail>`, without the value, where Kubernetes leaves it out.
    pub(crate) fn invalid_whole(&mut self, path: &Path, detail: impl Into<String>) {
        let mut error = FieldError::invalid(path, Value::Null, detail);
        error.value = None;
        self.0.push(error);
    }

    pub(crate) fn forbidden(&mut self, path: &Path, detail: impl Into<String>) {
        self.0.push(FieldError::forbidden(path, detail));
    }

    pub(crate) fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.0.push(FieldError::duplicate(path, value));
    }

    pub(crate) fn not_found(&mut self, path: &Path, value: impl Into<Value>) {
        self.0.push(FieldError::not_found(path, value));
    }

    pub(crate) fn not_supported(
        &mut self,
        path: &Path,
        value: impl Into<Value>,
        supported: &[&str],
    ) {
        self.0
            .push(FieldError::not_supported(path, value, supported));
    }

    pub(crate) fn too_long(&mut self, path: &Path, max: usize) {
        self.0.push(FieldError::too_long(path, max));
    }

    pub(crate) fn too_many(&mut self, path: &Path, actual: usize, max: usize) {
        self.0.push(FieldError::too_many(path, actual, max));
    }

    /// The last complaint, to say more about it.
    pub(crate) fn explain(&mut self, detail: &str) {
        if let Some(last) = self.0.last_mut() {
            last.detail = detail.to_owned();
        }
    }

    /// The last complaint, to show a value that upstream writes in the form of its own structs.
    pub(crate) fn show(&mut self, value: String) {
        if let Some(last) = self.0.last_mut() {
            last.value = Some(value);
        }
    }

    /// One `Invalid` for each complaint about a value.
    pub(crate) fn all_invalid(&mut self, path: &Path, value: &str, complaints: Vec<String>) {
        for complaint in complaints {
            self.invalid(path, value, complaint);
        }
    }

    /// A number that must be there to matter, and then not below zero.
    pub(crate) fn nonnegative(&mut self, of: &Value, key: &str, path: &Path) {
        if let Some(number) = doc::int(of, key).filter(|number| *number < 0) {
            self.invalid(
                &path.child(key),
                number,
                "must be greater than or equal to 0",
            );
        }
    }

    /// A field that an update must leave as it was.
    pub(crate) fn immutable(&mut self, new: &Value, old: &Value, path: &Path) {
        if !doc::same(new, old) {
            self.invalid(path, new.clone(), "field is immutable");
        }
    }

    /// A text that is one of some; empty is `Required`.
    pub(crate) fn one_of(&mut self, of: &Value, key: &str, path: &Path, supported: &[&str]) {
        let value = doc::text(of, key);
        if value.is_empty() {
            self.required(&path.child(key), "");
        } else if !supported.contains(&value) {
            self.not_supported(&path.child(key), value, supported);
        }
    }

    /// A text that, where it is there at all, is one of some.
    pub(crate) fn if_set_one_of(&mut self, of: &Value, key: &str, path: &Path, supported: &[&str]) {
        if let Some(value) = doc::opt_text(of, key).filter(|value| !supported.contains(value)) {
            self.not_supported(&path.child(key), value, supported);
        }
    }

    /// A text that may not be empty.
    pub(crate) fn need_text(&mut self, of: &Value, key: &str, path: &Path) {
        if doc::text(of, key).is_empty() {
            self.required(&path.child(key), "");
        }
    }
}
