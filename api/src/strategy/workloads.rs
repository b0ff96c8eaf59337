//! What jobs and daemon sets add to themselves.

use serde_json::Value;

use crate::doc;

/// The annotation in which a daemon set counts the changes of its template.
pub(crate) const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// A daemon set counts the changes of its template.
pub(super) fn create_daemon_set(document: &mut Value) {
    let had = template_generation(document).max(1);
    set_template_generation(document, had);
}

pub(super) fn update_daemon_set(new: &mut Value, old: &Value) {
    let had = template_generation(old).max(1);
    let changed = !doc::same(
        doc::at(new, &["spec", "template"]),
        doc::at(old, &["spec", "template"]),
    );
    set_template_generation(new, had + i64::from(changed));
}

fn template_generation(document: &Value) -> i64 {
    doc::annotation(document, TEMPLATE_GENERATION)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

fn set_template_generation(document: &mut Value, to: i64) {
    let annotations = doc::ensure_object(doc::ensure_object(document, "metadata"), "annotations");
    doc::set(annotations, TEMPLATE_GENERATION, to.to_string());
}

/// A job finds its pods by its own uid, unless its user chose otherwise.
pub(super) fn create_job(document: &mut Value) {
    let meta = doc::get(document, "metadata");
    let (uid, name) = (
        doc::text(meta, "uid").to_owned(),
        doc::text(meta, "name").to_owned(),
    );
    let spec = doc::ensure_object(document, "spec");
    if !doc::flag(spec, "manualSelector") {
        let labels = doc::ensure_object(
            doc::ensure_object(doc::ensure_object(spec, "template"), "metadata"),
            "labels",
        );
        for (key, value) in [
            ("controller-uid", &uid),
            ("job-name", &name),
            ("batch.kubernetes.io/controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
        ] {
            doc::default_to(labels, key, value.clone());
        }
        let wanted = doc::ensure_object(doc::ensure_object(spec, "selector"), "matchLabels");
        doc::default_to(wanted, "batch.kubernetes.io/controller-uid", uid);
    }
    let labels = doc::at(document, &["spec", "template", "metadata", "labels"]).clone();
    let meta = doc::ensure_object(document, "metadata");
    if doc::is_empty(doc::get(meta, "labels")) && !doc::is_empty(&labels) {
        doc::set(meta, "labels", labels);
    }
}
