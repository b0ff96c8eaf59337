use std::sync::Arc;

use orlop_core::auth::UserInfo;
use orlop_core::env::SimEnv;
use serde_json::{Value, json};

use super::*;
use crate::authentication::{Authentication, StaticTokens};
use crate::authorization::{Masters, RbacAuthorizer, Union};
use crate::names::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES};
use crate::testing::Objects;

fn authorizer() -> Union {
    let objects = Objects::new([
        (
            CLUSTER_ROLES,
            json!({"metadata": {"name": "y"}, "rules": [
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
                {"nonResourceURLs": ["/version"], "verbs": ["get"]},
            ]}),
        ),
        (
            CLUSTER_ROLE_BINDINGS,
            json!({"metadata": {"name": "x"}, "roleRef": {"kind": "ClusterRole", "name": "y"},
            "subjects": [{"kind": "User", "name": "ann"}]}),
        ),
    ]);
    Union::new(vec![
        Arc::new(Masters),
        Arc::new(RbacAuthorizer::new(objects)),
    ])
}

fn get_pods() -> Value {
    json!({"verb": "get", "resource": "pods", "namespace": "pr"})
}

#[tokio::test]
async fn access_reviews_are_answered() {
    let authorizer = authorizer();
    let admin = UserInfo::new("admin", ["system:masters"]);
    let body = json!({"metadata": {"managedFields": [{"manager": "unknown"}]}, "spec": {"resourceAttributes": get_pods()}});
    assert_eq!(
        self_subject_access_review(body, &admin, &authorizer)
            .await
            .unwrap(),
        json!({
            "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "metadata": {"managedFields": [{"manager": "unknown"}]},
            "spec": {"resourceAttributes": {"namespace": "pr", "verb": "get", "resource": "pods"}}, "status": {"allowed": true}
        })
    );
    let status = async |spec: Value| {
        subject_access_review(json!({"spec": spec}), &authorizer)
            .await
            .unwrap()["status"]
            .clone()
    };
    assert_eq!(
        status(json!({"user": "bob", "resourceAttributes": get_pods()})).await,
        json!({"allowed": false})
    );
    assert_eq!(
        status(json!({"user": "ann", "resourceAttributes": get_pods()})).await,
        json!({"allowed": true, "reason": r#"RBAC: allowed by ClusterRoleBinding "x" of ClusterRole "y" to User "ann""#})
    );
    assert_eq!(
        status(
            json!({"user": "ann", "nonResourceAttributes": {"path": "/version", "verb": "get"}})
        )
        .await["allowed"],
        true
    );
    let local = json!({"metadata": {"namespace": "pr"}, "spec": {"user": "ann", "resourceAttributes": get_pods()}});
    assert_eq!(
        local_subject_access_review(local.clone(), "pr", &authorizer)
            .await
            .unwrap()["status"]["allowed"],
        true
    );
    let elsewhere = local_subject_access_review(local, "other", &authorizer)
        .await
        .unwrap_err();
    assert_eq!(
        (elsewhere.code, elsewhere.message.as_str()),
        (
            400,
            "spec.resourceAttributes.namespace must match namespace: other"
        )
    );
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let authorizer = authorizer();
    let cases = [
        (
            json!({"spec": {"resourceAttributes": get_pods()}}),
            r#"SubjectAccessReview.authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of user or group must be specified"#,
        ),
        (
            json!({"spec": {"user": "a"}}),
            r#"SubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"#,
        ),
        (
            json!({"spec": {"groups": ["a"], "resourceAttributes": {}, "nonResourceAttributes": {"path": "/x"}}}),
            r#"SubjectAccessReview.authorization.k8s.io "" is invalid: spec.nonResourceAttributes: Invalid value: {"Path":"/x","Verb":""}: cannot be specified in combination with resourceAttributes"#,
        ),
        (
            json!({"metadata": {"name": "n"}, "spec": {"user": "a", "resourceAttributes": {}}}),
            r#"SubjectAccessReview.authorization.k8s.io "" is invalid: metadata: Invalid value: {"name":"n"}: must be empty"#,
        ),
    ];
    for (body, message) in cases {
        let refused = subject_access_review(body, &authorizer).await.unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (422, message));
    }
    let mismatch = json!({"metadata": {"namespace": "a"}, "spec": {"user": "u", "resourceAttributes": get_pods()}});
    assert_eq!(
        local_subject_access_review(mismatch, "a", &authorizer)
            .await
            .unwrap_err()
            .message,
        r#"LocalSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes.namespace: Invalid value: "pr": must match metadata.namespace"#
    );
}

#[tokio::test]
async fn rules_are_listed() {
    let ann = UserInfo::new("ann", []);
    let review =
        self_subject_rules_review(&json!({"spec": {"namespace": "pr"}}), &ann, &authorizer())
            .await
            .unwrap();
    assert_eq!(
        review,
        json!({
            "kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {},
            "status": {
                "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/version"]}],
                "incomplete": false
            }
        })
    );
    let refused = self_subject_rules_review(&json!({"spec": {}}), &ann, &authorizer())
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (400, "no namespace on request")
    );
}

#[tokio::test]
async fn identities_are_told() {
    let env = SimEnv::new(1).env();
    let bob = UserInfo {
        extra: [("foo".to_owned(), vec!["bar".to_owned()])].into(),
        ..UserInfo::new("bob", ["system:authenticated"])
    };
    assert_eq!(
        self_subject_review(&bob, &env).unwrap(),
        json!({
            "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"userInfo": {"username": "bob", "groups": ["system:authenticated"], "extra": {"foo": ["bar"]}}}
        })
    );
    let audiences = ["https://kubernetes.default.svc".to_owned()];
    let tokens = StaticTokens::parse("t,admin,admin,system:masters", &audiences).unwrap();
    let authentication = Authentication::new(audiences).token(tokens);
    let review = async |spec: Value| token_review(json!({"spec": spec}), &authentication).await;
    assert_eq!(
        review(json!({"token": "t"})).await.unwrap()["status"],
        json!({
            "authenticated": true, "audiences": ["https://kubernetes.default.svc"],
            "user": {"username": "admin", "uid": "admin", "groups": ["system:masters", "system:authenticated"]}
        })
    );
    assert_eq!(
        review(json!({"token": "no"})).await.unwrap()["status"],
        json!({"error": "invalid bearer token", "user": {}})
    );
    assert_eq!(
        review(json!({"token": "t", "audiences": ["vault"]}))
            .await
            .unwrap()["status"],
        json!({"error": "invalid bearer token", "user": {}})
    );
    assert_eq!(
        review(json!({})).await.unwrap_err().message,
        "token is required for TokenReview in authentication"
    );
}
