use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use orlop_core::auth::{Attributes, Authorizer, Decision, Scope};
use orlop_core::env::{Env, SimEnv};
use serde_json::{Value, json};

use super::*;
use crate::names::{NODES, PODS, SECRETS, SERVICE_ACCOUNTS};
use crate::testing::Objects;

const AUDIENCE: &str = "https://kubernetes.default.svc";

/// A service account `pr/default`, with all that a token may be bound to.
fn world() -> Arc<Objects> {
    let object = |kind: &str, namespace: &str, name: &str, uid: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace, "uid": uid}});
    let mut pod = object("Pod", "pr", "po", "pod-uid");
    pod["spec"] = json!({"serviceAccountName": "default", "nodeName": "nodea"});
    Objects::new([
        (
            SERVICE_ACCOUNTS,
            object("ServiceAccount", "pr", "default", "sa-uid"),
        ),
        (SECRETS, object("Secret", "pr", "se", "secret-uid")),
        (NODES, object("Node", "", "nodea", "node-uid")),
        (PODS, pod),
    ])
}

struct Setup {
    objects: Arc<Objects>,
    issuer: TokenIssuer,
    authentication: Authentication,
    env: Env,
}

impl Setup {
    fn new(env: Env) -> Self {
        let (key, _) = SigningKey::generate().unwrap();
        let audiences = vec![AUDIENCE.to_owned()];
        let objects = world();
        let tokens = ServiceAccountTokens::new(
            vec![AUDIENCE.to_owned()],
            vec![key.verifying_key().clone()],
            &audiences,
            objects.clone(),
            env.clone(),
        );
        let file = StaticTokens::parse("t,admin,admin,system:masters\n", &audiences).unwrap();
        let issuer = TokenIssuer::new(
            AUDIENCE.to_owned(),
            key,
            audiences.clone(),
            objects.clone(),
            env.clone(),
        );
        let authentication = Authentication::new(audiences).token(file).token(tokens);
        Self {
            objects,
            issuer,
            authentication,
            env,
        }
    }

    async fn token(&self, spec: Value) -> Value {
        self.issuer
            .issue("pr", "default", json!({"spec": spec}))
            .await
            .unwrap()
            .body
    }

    async fn who(&self, token: &str) -> Result<Option<UserInfo>, String> {
        let credentials = Credentials {
            bearer_token: Some(token.to_owned()),
            ..Credentials::default()
        };
        self.authentication
            .authenticate(&credentials)
            .await
            .map_err(|error| error.0)
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Setup) -> F) {
    let sim = SimEnv::new(7);
    sim.block_on(test(Setup::new(sim.env())));
}

fn bound(kind: &str, name: &str) -> Value {
    json!({"expirationSeconds": 600, "boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}})
}

#[test]
fn credentials_lead_to_a_user_and_nothing_leads_to_anonymous() {
    run(async |setup: Setup| {
        assert_eq!(
            setup
                .authentication
                .authenticate(&Credentials::default())
                .await
                .unwrap(),
            Some(UserInfo::anonymous())
        );
        let admin = setup.who("t").await.unwrap().unwrap();
        assert_eq!(
            (admin.name.as_str(), admin.uid.as_str()),
            ("admin", "admin")
        );
        assert_eq!(admin.groups, ["system:masters", "system:authenticated"]);
        assert_eq!(
            setup.who("bad").await,
            Err("invalid bearer token".to_owned())
        );
        assert_eq!(setup.who("").await.unwrap(), Some(UserInfo::anonymous()));
        let closed = Authentication::new([]).anonymous(false);
        assert_eq!(
            closed.authenticate(&Credentials::default()).await.unwrap(),
            None
        );
    });
}

#[test]
fn a_token_is_issued_and_accepted() {
    run(async |setup: Setup| {
        let answer = setup.token(json!({"expirationSeconds": 600})).await;
        let time = "2026-01-01T00:00:00Z";
        assert_eq!(
            answer["metadata"],
            json!({"name": "default", "namespace": "pr", "uid": "sa-uid", "creationTimestamp": time})
        );
        assert_eq!(
            answer["spec"],
            json!({"audiences": [AUDIENCE], "expirationSeconds": 600, "boundObjectRef": null})
        );
        assert_eq!(
            answer["status"]["expirationTimestamp"],
            "2026-01-01T00:10:00Z"
        );
        let token = answer["status"]["token"].as_str().unwrap();
        let user = setup.who(token).await.unwrap().unwrap();
        assert_eq!(
            (user.name.as_str(), user.uid.as_str()),
            ("system:serviceaccount:pr:default", "sa-uid")
        );
        assert_eq!(
            user.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:pr",
                "system:authenticated"
            ]
        );
        let id = &user.extra["authentication.kubernetes.io/credential-id"][0];
        assert_eq!((id.len(), &id[..4]), (40, "JTI="));
        let reviewed = setup
            .authentication
            .review(token, &[])
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (reviewed.user, reviewed.audiences),
            (user, vec![AUDIENCE.to_owned()])
        );

        // A changed token, one of another key and one for somebody else.
        let mut forged = token.to_owned();
        forged.replace_range(forged.len() - 4.., "AAAA");
        assert!(setup.who(&forged).await.is_err());
        let other = Setup::new(setup.env.clone());
        let foreign = other.token(json!({})).await["status"]["token"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            setup.who(&foreign).await,
            Err(
                "service account token could not be verified with any of the known keys".to_owned()
            )
        );
        let elsewhere = setup.token(json!({"audiences": ["vault"]})).await["status"]["token"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            setup.who(&elsewhere).await,
            Err(r#"token audiences ["vault"] is invalid for the target audiences ["https://kubernetes.default.svc"]"#.to_owned())
        );
        let vault = setup
            .authentication
            .review(&elsewhere, &["vault".to_owned()])
            .await
            .unwrap()
            .unwrap();
        assert_eq!(vault.audiences, ["vault"]);
    });
}

#[test]
fn a_token_ends_with_its_time_and_with_what_it_is_bound_to() {
    run(async |setup: Setup| {
        let token = async |spec: Value| {
            setup.token(spec).await["status"]["token"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let plain = token(json!({"expirationSeconds": 600})).await;
        let pod = token(bound("Pod", "po")).await;
        let secret = token(bound("Secret", "se")).await;
        let node = token(bound("Node", "nodea")).await;
        let user = setup.who(&pod).await.unwrap().unwrap();
        let told = |key: &str| user.extra[&format!("authentication.kubernetes.io/{key}")].join(",");
        assert_eq!(
            (
                told("pod-name"),
                told("pod-uid"),
                told("node-name"),
                told("node-uid")
            ),
            (
                "po".to_owned(),
                "pod-uid".to_owned(),
                "nodea".to_owned(),
                "node-uid".to_owned()
            )
        );
        for live in [&plain, &secret, &node] {
            assert!(setup.who(live).await.is_ok());
        }
        // Seen at once, although the signatures are remembered.
        setup.objects.remove(&NODES, "", "nodea");
        assert!(
            setup.who(&pod).await.is_ok(),
            "beside a pod, the node is for information"
        );
        assert_eq!(
            setup.who(&node).await,
            Err("service account token has been invalidated".to_owned())
        );
        setup.objects.remove(&PODS, "pr", "po");
        assert_eq!(
            setup.who(&pod).await,
            Err("service account token has been invalidated".to_owned())
        );
        let again = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "se", "namespace": "pr", "uid": "other"}});
        setup.objects.put(&SECRETS, again);
        assert_eq!(
            setup.who(&secret).await,
            Err(
                "secret UID (other) does not match service account secret ref claim (secret-uid)"
                    .to_owned()
            )
        );
        setup.env.sleep(Duration::from_secs(659)).await;
        assert!(
            setup.who(&plain).await.is_ok(),
            "clocks may be a minute apart"
        );
        setup.env.sleep(Duration::from_secs(2)).await;
        assert_eq!(
            setup.who(&plain).await,
            Err("service account token has expired".to_owned())
        );
        let fresh = token(json!({})).await;
        setup.objects.remove(&SERVICE_ACCOUNTS, "pr", "default");
        assert_eq!(
            setup.who(&fresh).await,
            Err(r#"serviceaccounts "default" not found"#.to_owned())
        );
    });
}

#[test]
fn the_token_of_a_pods_volume_lives_longer_than_it_says() {
    run(async |setup: Setup| {
        let mut spec = bound("Pod", "po");
        spec["expirationSeconds"] = json!(3607);
        let answer = setup.token(spec).await;
        assert_eq!(
            answer["status"]["expirationTimestamp"],
            "2026-01-01T01:00:07Z"
        );
        setup.env.sleep(Duration::from_secs(300 * 24 * 3600)).await;
        assert!(
            setup
                .who(answer["status"]["token"].as_str().unwrap())
                .await
                .is_ok()
        );
    });
}

#[test]
fn bad_token_requests_are_refused() {
    run(async |setup: Setup| {
        let cases = [
            (
                "pr",
                json!({"spec": {"expirationSeconds": 10}}),
                422,
                r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes"#,
            ),
            (
                "pr",
                json!({"spec": {"expirationSeconds": (1_i64 << 32) + 1}}),
                422,
                r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds"#,
            ),
            (
                "pr",
                json!({"metadata": {"name": "other"}}),
                422,
                r#"TokenRequest.authentication.k8s.io "default" is invalid: metadata.name: Invalid value: "other": must match the service account name if specified"#,
            ),
            (
                "nope",
                json!({}),
                404,
                r#"serviceaccounts "default" not found"#,
            ),
            (
                "pr",
                json!({"spec": bound("Pod", "nope")}),
                404,
                r#"pods "nope" not found"#,
            ),
            (
                "pr",
                json!({"spec": bound("ConfigMap", "x")}),
                400,
                "cannot bind token to object of type /v1, Kind=ConfigMap",
            ),
            (
                "pr",
                json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": "se", "uid": "u"}}}),
                409,
                r#"Operation cannot be fulfilled on Secret "se": the UID in the bound object reference (u) does not match the UID in record. The object might have been deleted and then recreated"#,
            ),
        ];
        for (namespace, body, code, message) in cases {
            let refused = setup
                .issuer
                .issue(namespace, "default", body)
                .await
                .unwrap_err();
            assert_eq!((refused.code, refused.message.as_str()), (code, message));
        }
        let limited = Setup::new(setup.env.clone()).issuer.max_seconds(7200);
        let limited = limited
            .issue(
                "pr",
                "default",
                json!({"spec": {"expirationSeconds": 9000}}),
            )
            .await
            .unwrap();
        assert_eq!(
            limited.warnings,
            ["requested expiration of 9000 seconds shortened to 7200 seconds"]
        );
        assert_eq!(limited.body["spec"]["expirationSeconds"], 7200);
    });
}

#[test]
fn others_learn_how_to_verify_tokens() {
    let (key, _) = SigningKey::generate().unwrap();
    let keys = vec![key.verifying_key().clone()];
    let discovery = OpenIdDiscovery::new(AUDIENCE, "192.0.2.10:6443", None, keys);
    assert_eq!(
        discovery.configuration(),
        json!({
            "issuer": AUDIENCE, "jwks_uri": "https://192.0.2.10:6443/openid/v1/jwks", "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"]
        })
    );
    assert_eq!(discovery.keys()["keys"][0]["kid"], key.verifying_key().id());
}

#[tokio::test]
async fn a_certificate_names_its_user() {
    // Made with `openssl req -x509 -subj "/O=devs/O=ops/CN=ann"`.
    const CERTIFICATE: &str = "MIIBrTCCAVOgAwIBAgIUZxSouPT6F7uviHn9tURMmCmr96QwCgYIKoZIzj0EAwIwKzENMAsGA1UECgwEZGV2czEMMAoGA1UECgwDb3BzMQwwCgYDVQQDDANhbm4wIBcNMjYxMTIzMTY0MzU2WhgPMjEyNjEwMzAxNjQzNTZaMCsxDTALBgNVBAoMBGRldnMxDDAKBgNVBAoMA29wczEMMAoGA1UEAwwDYW5uMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFiFgJ9Z3kYnh8mknua4L/luVNClNLG+l6uN+VbNNSFaw/x//+KVKpqWWwBOKLcr9TNX0Nlxf+QwKLZlf0vIWc6NTMFEwHQYDVR0OBBYEFNWMzcea+LLd+whbi5jytwe3QMyvMB8GA1UdIwQYMBaAFNWMzcea+LLd+whbi5jytwe3QMyvMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAN5IuudBIPqMe1N74cIQjlR08Dk3xNxsVuBDCN6v1EzeAiAkPgpkSLFaCkDpqbWOmp1YE8daKTSDc8Z/wRvd7yB4sA==";
    let der =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, CERTIFICATE).unwrap();
    let authentication = Authentication::new([]);
    let credentials = Credentials {
        client_certificates: vec![der],
        ..Credentials::default()
    };
    let ann = authentication
        .authenticate(&credentials)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (ann.name.as_str(), ann.groups.join(",")),
        ("ann", "devs,ops,system:authenticated".to_owned())
    );
    assert_eq!(
        ann.extra["authentication.kubernetes.io/credential-id"][0].len(),
        "X509SHA256=".len() + 64
    );
    assert!(certificate_user(b"no certificate").is_err());
}

/// Allows impersonation of what has a name in the list.
struct Names(&'static [&'static str]);

#[async_trait]
impl Authorizer for Names {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        assert_eq!(attributes.verb, "impersonate");
        match &attributes.scope {
            Scope::Resource { name, .. } if self.0.contains(&name.as_str()) => {
                Decision::Allow(String::new())
            }
            _ => Decision::NoOpinion(String::new()),
        }
    }
}

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in list {
        map.append(
            name.parse::<HeaderName>().unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    map
}

#[tokio::test]
async fn who_may_impersonate_acts_as_another() {
    let admin = UserInfo::new("admin", ["system:masters"]);
    let all = Names(&["bob", "g", "bar", "u1", "ns", "robot", "system:anonymous"]);
    let act =
        async |list: &[(&str, &str)]| impersonate(&admin, &headers(list), &all).await.unwrap();
    assert_eq!(act(&[("accept", "x")]).await, None);
    let bob = act(&[("Impersonate-User", "bob"), ("Impersonate-Group", "g")])
        .await
        .unwrap();
    assert_eq!(
        (bob.name.as_str(), bob.groups.join(",")),
        ("bob", "g,system:authenticated".to_owned())
    );
    let bob = act(&[
        ("Impersonate-User", "bob"),
        ("Impersonate-Extra-foo", "bar"),
        ("Impersonate-Uid", "u1"),
    ])
    .await
    .unwrap();
    assert_eq!(
        (bob.uid.as_str(), bob.groups.join(",")),
        ("u1", "system:authenticated".to_owned())
    );
    assert_eq!(bob.extra["foo"], ["bar"]);
    let bob = act(&[
        ("Impersonate-User", "bob"),
        ("Impersonate-Extra-Acme.com%2Fproject", "bar"),
    ])
    .await
    .unwrap();
    assert_eq!(bob.extra["acme.com/project"], ["bar"]);
    let robot = act(&[("Impersonate-User", "system:serviceaccount:ns:robot")])
        .await
        .unwrap();
    assert_eq!(
        robot.groups,
        [
            "system:serviceaccounts",
            "system:serviceaccounts:ns",
            "system:authenticated"
        ]
    );
    let nobody = act(&[("Impersonate-User", "system:anonymous")])
        .await
        .unwrap();
    assert_eq!(nobody.groups, ["system:unauthenticated"]);
}

#[tokio::test]
async fn impersonation_is_refused_in_kubernetes_words() {
    let eve = UserInfo::new("eve", []);
    let refused = async |list: &[(&str, &str)]| {
        impersonate(&eve, &headers(list), &Names(&["bob"]))
            .await
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(&[("Impersonate-User", "alice")]).await,
        r#"users "alice" is forbidden: User "eve" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
    assert_eq!(
        refused(&[
            ("Impersonate-User", "bob"),
            ("Impersonate-Extra-foo", "bar")
        ])
        .await,
        r#"userextras.authentication.k8s.io "bar" is forbidden: User "eve" cannot impersonate resource "userextras/foo" in API group "authentication.k8s.io" at the cluster scope"#
    );
    assert_eq!(
        refused(&[("Impersonate-User", "system:serviceaccount:ns:robot")]).await,
        r#"serviceaccounts "robot" is forbidden: User "eve" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "ns""#
    );
    assert_eq!(
        refused(&[("Impersonate-Group", "g")]).await,
        "requested [{Group  g    }] without impersonating a user"
    );
}
