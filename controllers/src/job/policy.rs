//! What a pod's failure means, and what is enough success.

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::Pod;

use super::indexes::Indexes;
use crate::common;
use crate::common::pods;

/// What a failed pod leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts towards the limit.
    Count,
    /// It counts, and its index has failed for good.
    FailIndex,
    /// It is as if it had never been.
    Ignore,
    /// The whole Job fails, for this reason.
    FailJob(String),
}

/// The first rule of the Job's policy that a failed pod meets, or that it counts.
pub(super) fn judge(spec: &JobSpec, pod: &Pod) -> Verdict {
    let Some(policy) = &spec.pod_failure_policy else {
        return Verdict::Count;
    };
    for (index, rule) in policy.rules.iter().enumerate() {
        let Some(why) = matches(rule, pod) else {
            continue;
        };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailJob" => Verdict::FailJob(format!("{why} matching FailJob rule at index {index}")),
            "FailIndex" => Verdict::FailIndex,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let name = format!(
        "{}/{}",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        common::name(&pod.metadata)
    );
    if let Some(codes) = &rule.on_exit_codes {
        let (container, code) = exit_code(codes, pod)?;
        return Some(format!(
            "Container {container} for pod {name} failed with exit code {code}"
        ));
    }
    let wanted = rule.on_pod_conditions.iter().flatten();
    wanted
        .filter(|wanted| {
            let status = wanted.status.as_deref().unwrap_or("True");
            pods::condition(pod, &wanted.type_).is_some_and(|condition| condition.status == status)
        })
        .map(|wanted| format!("Pod {name} has condition {}", wanted.type_))
        .next()
}

fn exit_code(rule: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<(String, i32)> {
    let status = pod.status.as_ref()?;
    let containers = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    containers
        .filter(|container| {
            rule.container_name
                .as_ref()
                .is_none_or(|name| *name == container.name)
        })
        .filter_map(|container| {
            let ended = container.state.as_ref()?.terminated.as_ref()?;
            Some((container.name.clone(), ended.exit_code))
        })
        .filter(|(_, code)| *code != 0)
        .find(|(_, code)| rule.values.contains(code) == (rule.operator == "In"))
}

/// The first rule of the Job's success policy that is met, in words.
pub(super) fn success(spec: &JobSpec, succeeded: &Indexes, completions: i32) -> Option<String> {
    let rules = &spec.success_policy.as_ref()?.rules;
    let met = rules.iter().position(|rule| {
        let of = rule
            .succeeded_indexes
            .as_ref()
            .map(|text| Indexes::parse(text, completions));
        let have = of
            .as_ref()
            .map_or(succeeded.len(), |of| succeeded.common(of));
        match rule.succeeded_count {
            Some(count) => i32::try_from(have).unwrap_or(i32::MAX) >= count,
            None => of.is_some_and(|of| have == of.len()),
        }
    });
    met.map(|index| format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(value: serde_json::Value) -> JobSpec {
        let mut spec = json!({"template": {"spec": {"containers": []}}});
        spec.as_object_mut()
            .unwrap()
            .extend(value.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn pod(code: i32, condition: Option<&str>) -> Pod {
        let conditions: Vec<_> = condition
            .iter()
            .map(|kind| json!({"type": kind, "status": "True"}))
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": "Failed", "conditions": conditions,
            "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]}}))
        .unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let spec = spec(json!({"podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [7]}},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [7]}}]}}));
        assert_eq!(
            judge(&spec, &pod(42, Some("DisruptionTarget"))),
            Verdict::Ignore
        );
        let why =
            "Container main for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(
            judge(&spec, &pod(42, None)),
            Verdict::FailJob(why.to_owned())
        );
        assert_eq!(judge(&spec, &pod(1, None)), Verdict::Count);
        assert!(matches!(judge(&spec, &pod(7, None)), Verdict::FailJob(_)));
    }

    #[test]
    fn some_indexes_may_be_enough() {
        let spec = spec(json!({"successPolicy": {"rules": [
            {"succeededIndexes": "0-1", "succeededCount": 2}, {"succeededIndexes": "4"}, {"succeededCount": 4}]}}));
        let met = |text: &str| success(&spec, &Indexes::parse(text, 10), 10);
        assert_eq!(met("0,2,3"), None);
        assert_eq!(met("0,1"), Some("Matched rules at index 0".to_owned()));
        assert_eq!(met("4"), Some("Matched rules at index 1".to_owned()));
        assert_eq!(met("0,2,3,5"), Some("Matched rules at index 2".to_owned()));
    }
}
