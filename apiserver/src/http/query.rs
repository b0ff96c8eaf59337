//! Options in a URL's query, and in the body of a DELETE.

use std::collections::BTreeMap;

use orlop_core::client::{
    DeleteOptions, FieldValidation, Freshness, ListOptions, Propagation, WatchOptions, WriteOptions,
};
use orlop_core::field::{FieldError, Path, quote};
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use serde_json::Value;

use super::path::percent_decode;

/// The parameters of a query, each with all its values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| percent_decode(&text.replace('+', " "));
            if let (Some(name), Some(value)) = (decoded(name), decoded(value)) {
                parameters.entry(name).or_default().push(value);
            }
        }
        Self(parameters)
    }

    /// The first value of a parameter; empty where there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0
            .get(name)
            .and_then(|values| values.first())
            .map(String::as_str)
            .unwrap_or_default()
    }

    /// Whether a parameter is there, also without a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// All values of a parameter.
    pub(crate) fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// A switch, as Kubernetes reads one: anything but empty, `0` and `false` is on, and so is a bare name.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.has(name)
            && !matches!(
                self.get(name),
                "0" | "false" | "False" | "FALSE" | "f" | "F"
            )
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "strconv.ParseInt: parsing {}: invalid syntax",
                quote(text)
            ))
        })
    }

    /// Whether this is a watch.
    pub(crate) fn is_watch(&self) -> bool {
        self.flag("watch")
    }

    fn revision(&self) -> Result<Option<Revision>, Status> {
        let text = self.get("resourceVersion");
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "invalid resource version: resourceVersion: Invalid value: {0}: strconv.ParseUint: parsing {0}: invalid syntax",
                quote(text)
            ))
        })
    }

    /// How fresh a GET must be.
    pub(crate) fn freshness(&self) -> Result<Freshness, Status> {
        Ok(match self.revision()? {
            None => Freshness::Consistent,
            Some(Revision::ZERO) => Freshness::Any,
            Some(revision) => Freshness::NotOlderThan(revision),
        })
    }

    /// The options of a list.
    pub(crate) fn list_options(&self) -> Result<ListOptions, Status> {
        let limit = self.number("limit")?.unwrap_or(0);
        self.number("timeoutSeconds")?;
        let continue_token = self.get("continue").to_owned();
        self.check_match(false, &continue_token)?;
        let given = self.get("resourceVersion");
        if !continue_token.is_empty() && !given.is_empty() && given != "0" {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let revision = self.revision()?;
        let freshness = match (self.get("resourceVersionMatch"), revision) {
            (_, None) => Freshness::Consistent,
            ("Exact", Some(revision)) => Freshness::Exact(revision),
            (_, Some(Revision::ZERO)) => Freshness::Any,
            // A limit without a match asks for exactly that revision, as it always did.
            ("", Some(revision)) if limit > 0 => Freshness::Exact(revision),
            (_, Some(revision)) => Freshness::NotOlderThan(revision),
        };
        Ok(ListOptions {
            label_selector: self.get("labelSelector").to_owned(),
            field_selector: self.get("fieldSelector").to_owned(),
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token,
            freshness,
        })
    }

    /// The options of a watch.
    pub(crate) fn watch_options(&self) -> Result<WatchOptions, Status> {
        self.check_match(true, "")?;
        let text = self.get("resourceVersion");
        let from = match text {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                let why = format!("strconv.ParseUint: parsing {}: invalid syntax", quote(text));
                Status::invalid_watch_version(text, &why)
            })?),
        };
        Ok(WatchOptions {
            label_selector: self.get("labelSelector").to_owned(),
            field_selector: self.get("fieldSelector").to_owned(),
            from,
            bookmarks: self.flag("allowWatchBookmarks"),
            initial_events: self.flag("sendInitialEvents"),
            timeout_seconds: self
                .number("timeoutSeconds")?
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0),
        })
    }

    /// Whether a watch is to begin without the objects that are there.
    pub(crate) fn wants_no_initial_events(&self) -> bool {
        self.has("sendInitialEvents") && !self.flag("sendInitialEvents")
    }

    /// The rules of `resourceVersionMatch` and `sendInitialEvents`.
    fn check_match(&self, watch: bool, continue_token: &str) -> Result<(), Status> {
        let path = Path::new("resourceVersionMatch");
        let wanted = self.get("resourceVersionMatch");
        let version = self.get("resourceVersion");
        let initial = self.has("sendInitialEvents");
        let mut errors = Vec::new();
        if watch {
            if !wanted.is_empty() {
                if !initial {
                    errors.push(FieldError::forbidden(
                        &path,
                        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                    ));
                } else if wanted != "NotOlderThan" {
                    errors.push(FieldError::not_supported(&path, wanted, &["NotOlderThan"]));
                }
            } else if initial {
                errors.push(FieldError::forbidden(
                    &path,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
        } else {
            if initial {
                errors.push(FieldError::forbidden(
                    &Path::new("sendInitialEvents"),
                    "sendInitialEvents is forbidden for list",
                ));
            }
            if !wanted.is_empty() {
                if version.is_empty() {
                    errors.push(FieldError::forbidden(
                        &path,
                        "resourceVersionMatch is forbidden unless resourceVersion is provided",
                    ));
                }
                if !continue_token.is_empty() {
                    errors.push(FieldError::forbidden(
                        &path,
                        "resourceVersionMatch is forbidden when continue is provided",
                    ));
                }
                if wanted != "Exact" && wanted != "NotOlderThan" {
                    errors.push(FieldError::not_supported(
                        &path,
                        wanted,
                        &["Exact", "NotOlderThan", ""],
                    ));
                }
                if wanted == "Exact" && version == "0" {
                    errors.push(FieldError::forbidden(
                        &path,
                        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                    ));
                }
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors))
        }
    }

    /// The options of a write. `kind` is what messages call them.
    pub(crate) fn write_options(&self, kind: &str) -> Result<WriteOptions, Status> {
        let mut errors = Vec::new();
        let dry_run = self.dry_run(&mut errors);
        let field_validation = match self.get("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let path = Path::new("fieldValidation");
                errors.push(FieldError::not_supported(
                    &path,
                    other,
                    &["", "Ignore", "Strict", "Warn"],
                ));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", kind, "", &errors));
        }
        Ok(WriteOptions {
            dry_run,
            field_manager: self.get("fieldManager").to_owned(),
            field_validation,
            force: self.flag("force"),
        })
    }

    fn dry_run(&self, errors: &mut Vec<FieldError>) -> bool {
        let given: Vec<&String> = self
            .all("dryRun")
            .iter()
            .filter(|value| !value.is_empty())
            .collect();
        if given.iter().any(|value| *value != "All") {
            errors.push(FieldError::not_supported(
                &Path::new("dryRun"),
                Value::from(self.all("dryRun").to_vec()),
                &["All"],
            ));
        }
        !given.is_empty()
    }

    /// The options of a deletion, from the body if there is one, else from the query.
    pub(crate) fn delete_options(&self, body: Option<&Value>) -> Result<DeleteOptions, Status> {
        let mut errors = Vec::new();
        let query_policy = self.get("propagationPolicy");
        let mut options = DeleteOptions {
            dry_run: self.dry_run(&mut errors),
            grace_period_seconds: self.number("gracePeriodSeconds")?,
            ..DeleteOptions::default()
        };
        let mut policy = query_policy.to_owned();
        let mut orphan = match self.get("orphanDependents") {
            "" => None,
            text => Some(text == "true" || text == "1"),
        };
        if let Some(body) = body {
            let text = |pointer: &str| {
                body.pointer(pointer)
                    .and_then(Value::as_str)
                    .map(str::to_owned)
            };
            if let Some(grace) = body.get("gracePeriodSeconds").and_then(Value::as_i64) {
                options.grace_period_seconds = Some(grace);
            }
            if let Some(given) = text("/propagationPolicy") {
                policy = given;
            }
            orphan = body
                .get("orphanDependents")
                .and_then(Value::as_bool)
                .or(orphan);
            options.uid = text("/preconditions/uid");
            // What is no revision is none that an object stands at.
            options.revision = text("/preconditions/resourceVersion")
                .map(|text| text.parse().unwrap_or(Revision(u64::MAX)));
            let dry: Vec<&str> = body
                .get("dryRun")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            if dry.iter().any(|value| *value != "All") {
                let shown = Value::from(
                    dry.iter()
                        .map(|value| (*value).to_owned())
                        .collect::<Vec<_>>(),
                );
                errors.push(FieldError::not_supported(
                    &Path::new("dryRun"),
                    shown,
                    &["All"],
                ));
            }
            options.dry_run |= !dry.is_empty();
        }
        let path = Path::new("propagationPolicy");
        options.propagation = match policy.as_str() {
            "" => None,
            "Orphan" => Some(Propagation::Orphan),
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            other => {
                errors.push(FieldError::not_supported(
                    &path,
                    other,
                    &["Foreground", "Background", "Orphan", "nil"],
                ));
                None
            }
        };
        if let Some(orphan) = orphan {
            if policy.is_empty() {
                options.propagation = Some(if orphan {
                    Propagation::Orphan
                } else {
                    Propagation::Background
                });
            } else {
                errors.push(FieldError::invalid(
                    &path,
                    policy.as_str(),
                    "orphanDependents and deletionPropagation cannot be both set",
                ));
            }
        }
        if errors.is_empty() {
            Ok(options)
        } else {
            Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &errors))
        }
    }
}

/// Refusals that only queries meet.
trait QueryStatus {
    fn invalid_watch_version(text: &str, why: &str) -> Status;
}

impl QueryStatus for Status {
    /// What Kubernetes answers to a watch from no version: a plain server error.
    fn invalid_watch_version(text: &str, why: &str) -> Status {
        let why = format!("resourceVersion: Invalid value: {}: {why}", quote(text));
        Status::failure(500, "", why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
        result.unwrap_err().message
    }

    #[test]
    fn lists_say_how_fresh_they_must_be() {
        let freshness = |text: &str| Query::parse(text).list_options().unwrap().freshness;
        assert_eq!(freshness(""), Freshness::Consistent);
        assert_eq!(freshness("resourceVersion=0"), Freshness::Any);
        assert_eq!(
            freshness("resourceVersion=7"),
            Freshness::NotOlderThan(Revision(7))
        );
        assert_eq!(
            freshness("resourceVersion=7&limit=1"),
            Freshness::Exact(Revision(7))
        );
        assert_eq!(
            freshness("resourceVersion=7&resourceVersionMatch=Exact"),
            Freshness::Exact(Revision(7))
        );
    }

    #[test]
    fn bad_options_are_refused_in_kubernetes_words() {
        assert_eq!(
            message(Query::parse("resourceVersion=abc").list_options()),
            "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax"
        );
        assert_eq!(
            message(Query::parse("limit=abc").list_options()),
            "strconv.ParseInt: parsing \"abc\": invalid syntax"
        );
        assert_eq!(
            message(Query::parse("resourceVersionMatch=Exact").list_options()),
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless \
             resourceVersion is provided"
        );
        assert_eq!(
            message(Query::parse("dryRun=Foo").write_options("CreateOptions")),
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Foo\"]: supported values: \"All\""
        );
        assert_eq!(
            message(Query::parse("propagationPolicy=Foo").delete_options(None)),
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Foo\": supported values: \
             \"Foreground\", \"Background\", \"Orphan\", \"nil\""
        );
    }

    #[test]
    fn flags_are_on_without_a_value() {
        assert!(Query::parse("watch").is_watch());
        assert!(Query::parse("watch=1").is_watch());
        assert!(!Query::parse("watch=false").is_watch());
        assert!(!Query::parse("").is_watch());
    }
}
