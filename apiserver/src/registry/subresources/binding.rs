//! `pods/binding`: a pod is given to a node.

use orlop_core::admission::AdmissionOperation;
use orlop_core::client::WriteOptions;
use orlop_core::field::{FieldError, Path};
use orlop_core::resource::{GroupVersionKind, Resource};
use orlop_core::status::Status;
use serde_json::{Value, json};

use super::super::update::Preconditions;
use super::super::{At, Context, Registry, meta};
use super::created;

/// How messages name the subresource.
const BINDINGS: Resource = Resource::namespaced("", "v1", "pods/binding", "Pod");

impl Registry {
    /// Binds a pod to the node that the body names.
    pub(crate) async fn bind(
        &self,
        cx: &mut Context,
        at: &At,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Status, Status> {
        let kind = GroupVersionKind::new("", "v1", "Binding");
        let mut binding = Self::decode(cx, &kind, body, options.field_validation)?;
        super::super::create::place(at, &mut binding)?;
        let name = meta::text(&binding, "name").to_owned();
        if name != at.name {
            return Err(Status::bad_request(format!(
                "name in URL does not match name in Binding object: {} != {name}",
                at.name
            )));
        }
        let mut request = self.admission_request(
            cx,
            at,
            AdmissionOperation::Create,
            binding,
            std::sync::Arc::new(Value::Null),
            options.dry_run,
        );
        self.admit(cx, &mut request).await?;
        let errors = validate(&request.object);
        if !errors.is_empty() {
            return Err(Status::invalid("", "Binding", &name, &errors));
        }
        self.validate_admission(&request).await?;
        let binding = request.object;
        let node = binding["target"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let uid = Some(meta::text(&binding, "uid").to_owned()).filter(|uid| !uid.is_empty());
        let now = meta::time(self.now());
        let edit = |pod: &mut Value| assign(pod, &binding, &node, &now);
        self.edit(
            cx,
            at,
            &edit,
            options.dry_run,
            &Preconditions {
                uid,
                revision: None,
            },
        )
        .await?;
        Ok(created())
    }
}

fn validate(binding: &Value) -> Vec<FieldError> {
    let target = Path::new("target");
    let mut errors = Vec::new();
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    if !kind.is_empty() && kind != "Node" {
        errors.push(FieldError::not_supported(
            &target.child("kind"),
            kind,
            &["Node", "<empty>"],
        ));
    }
    if binding["target"]["name"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
    {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    errors
}

fn assign(pod: &mut Value, binding: &Value, node: &str, now: &str) -> Result<(), Status> {
    let name = meta::text(pod, "name").to_owned();
    let refuse = |why: String| Err(Status::conflict(&BINDINGS, &name, &why));
    if meta::is_terminating(pod) {
        return refuse(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    if let Some(other) = pod
        .pointer("/spec/nodeName")
        .and_then(Value::as_str)
        .filter(|other| !other.is_empty())
    {
        return refuse(format!(
            "pod {name} is already assigned to node \"{other}\""
        ));
    }
    let gates = pod
        .pointer("/spec/schedulingGates")
        .and_then(Value::as_array);
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = json!(node);
    for part in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][part].as_object().into_iter().flatten() {
            let map = meta::metadata(pod).entry(part).or_insert_with(|| json!({}));
            map[key.as_str()] = value.clone();
        }
    }
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    let generation = meta::number(pod, "generation");
    let status = &mut pod["status"];
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else {
        return Ok(());
    };
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    let mut scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    if let Some(generation) = generation {
        scheduled["observedGeneration"] = json!(generation);
    }
    conditions.push(scheduled);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding() -> Value {
        json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "target": {"kind": "Node", "name": "n"}})
    }

    #[test]
    fn a_pod_is_bound_once() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {}});
        assign(&mut pod, &binding(), "n", "now").unwrap();
        assert_eq!(pod["spec"]["nodeName"], "n");
        assert_eq!(pod["metadata"]["labels"]["a"], "b");
        assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
        let refused = assign(&mut pod, &binding(), "m", "now").unwrap_err();
        assert_eq!(
            refused.message,
            "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""
        );
    }

    #[test]
    fn a_binding_names_a_node() {
        let bad = json!({"target": {"kind": "Pod", "name": ""}});
        let errors: Vec<String> = validate(&bad).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
                "target.name: Required value"
            ]
        );
    }
}
