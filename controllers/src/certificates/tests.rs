//! The whole way of a request, through a real API server.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orlop_apiserver::{ApiServer, LocalClient};
use orlop_core::auth::{ALL_AUTHENTICATED, UserInfo};
use orlop_core::client::Client;
use orlop_core::env::{Env, SimEnv, TaskGroup};
use orlop_core::resource::Resource;
use orlop_store::MemoryStore;
use orlop_wire::pki::{CertificateAuthority, CertificateIdentity, CertificateRequest, SubjectName};
use serde_json::{Value, json};

use super::*;
use crate::manager::{ControllerManager, MANAGER_IDENTITY};

const BINDINGS: Resource = Resource::cluster(
    "rbac.authorization.k8s.io",
    "v1",
    "clusterrolebindings",
    "ClusterRoleBinding",
);

struct World {
    env: Env,
    api: Arc<ApiServer>,
    authority: Arc<CertificateAuthority>,
}

fn run<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Arc<World>) -> F + Send + 'static,
) {
    let sim = SimEnv::new(3);
    let env = sim.env();
    sim.block_on(async move {
        let store = Arc::new(MemoryStore::new(env.clone()));
        let api = ApiServer::builder(store, env.clone()).with_defaults().start().await.unwrap();
        let api = Arc::new(api);
        let year = Duration::from_secs(2 * 365 * 86_400);
        let authority = CertificateAuthority::create("ca", env.wall(), year).unwrap();
        let authority = Arc::new(authority);
        let clients = api.clone();
        let manager = ControllerManager::builder(
            move |identity| {
                let user = if identity == MANAGER_IDENTITY {
                    UserInfo::new("system:kube-controller-manager", [ALL_AUTHENTICATED])
                } else {
                    let name = format!("system:serviceaccount:kube-system:{identity}");
                    UserInfo::new(&name, ["system:serviceaccounts", ALL_AUTHENTICATED])
                };
                Arc::new(clients.client(user, identity))
            },
            env.clone(),
        )
        .controller(ApprovingController::new())
        .controller(SigningController::new(Signers::all(authority.clone())))
        .controller(CleanerController::new())
        .build()
        .unwrap();
        let group = TaskGroup::new(env.clone());
        let stop = group.token();
        group.spawn("manager", async move { manager.run(&stop).await });
        let world = Arc::new(World { env, api, authority });
        // As kubeadm binds them.
        for (role, group) in [
            ("system:node-bootstrapper", "system:bootstrappers"),
            ("system:node-bootstrapper", "others"),
            ("system:certificates.k8s.io:certificatesigningrequests:nodeclient", "system:bootstrappers"),
            ("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "system:nodes"),
        ] {
            let binding = json!({
                "metadata": {"name": format!("{group}-{}", role.rsplit(':').next().unwrap())},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
            });
            world.admin().resource(&BINDINGS).create(&binding).await.unwrap();
        }
        world.api.caught_up().await.unwrap();
        test(world.clone()).await;
        group.shutdown().await;
        world.api.shutdown().await;
    });
}

impl World {
    fn admin(&self) -> Arc<dyn Client> {
        Arc::new(self.api.loopback())
    }

    fn as_user(&self, name: &str, group: &str) -> LocalClient {
        let user = UserInfo::new(name, [group, ALL_AUTHENTICATED]);
        self.api.client(user, "test")
    }

    async fn ask(&self, client: &dyn Client, name: &str, pem: &str, signer: &str, usages: &[&str]) {
        let request = json!({"metadata": {"name": name}, "spec": {
            "request": STANDARD.encode(pem), "signerName": signer, "usages": usages, "expirationSeconds": 7200,
        }});
        client.resource(&REQUESTS).create(&request).await.unwrap();
    }

    async fn find(&self, name: &str) -> Option<Value> {
        let found = self.admin().resource(&REQUESTS).find(name).await.unwrap();
        found.map(|object| (*object.value().unwrap()).clone())
    }

    /// A request when it has some condition, or a certificate.
    async fn when(&self, name: &str, what: &str) -> Value {
        for _ in 0..600 {
            let request = self.find(name).await.unwrap();
            let status = &request["status"];
            let conditions = status["conditions"].as_array();
            let has = conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == what);
            if has || (what == "certificate" && status["certificate"].is_string()) {
                return request;
            }
            self.env.sleep(Duration::from_millis(100)).await;
        }
        panic!("{name} never got {what}: {:#?}", self.find(name).await);
    }

    async fn approve(&self, name: &str) {
        let mut request = self.find(name).await.unwrap();
        request["status"]["conditions"] =
            json!([{"type": "Approved", "status": "True", "reason": "ByHand"}]);
        self.admin()
            .resource(&REQUESTS)
            .update_at(Some("approval"), &request)
            .await
            .unwrap();
    }
}

fn node_request(names: impl IntoIterator<Item = SubjectName>) -> String {
    CertificateRequest::create("system:node:n1", Some("system:nodes"), names)
        .unwrap()
        .0
}

const CLIENT_USAGES: [&str; 2] = ["digital signature", "client auth"];

#[test]
fn a_machine_with_a_token_becomes_a_node_and_renews() {
    run(|world| async move {
        let machine = world.as_user("system:bootstrap:abcdef", "system:bootstrappers");
        world
            .ask(
                &machine,
                "join",
                &node_request([]),
                KUBELET_CLIENT,
                &CLIENT_USAGES,
            )
            .await;
        let request = world.when("join", "certificate").await;
        assert_eq!(request["spec"]["username"], "system:bootstrap:abcdef");
        let approval = &request["status"]["conditions"][0];
        assert_eq!(approval["reason"], "AutoApproved");
        assert_eq!(
            approval["message"],
            "Auto approving kubelet client certificate after SubjectAccessReview."
        );
        let pem = STANDARD
            .decode(request["status"]["certificate"].as_str().unwrap())
            .unwrap();
        let identity = CertificateIdentity::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
        assert_eq!(identity.common_name, "system:node:n1");
        assert_eq!(identity.organizations, ["system:nodes"]);
        assert!(identity.not_after <= world.env.wall() + Duration::from_secs(7200));
        let der = orlop_wire::pki::certificates_from_pem("it", &pem).unwrap();
        assert!(world.authority.signed(&der[0]));
        let node = world.as_user("system:node:n1", "system:nodes");
        world
            .ask(
                &node,
                "renew",
                &node_request([]),
                KUBELET_CLIENT,
                &CLIENT_USAGES,
            )
            .await;
        let request = world.when("renew", "certificate").await;
        assert_eq!(
            request["status"]["conditions"][0]["message"],
            "Auto approving self kubelet client certificate after SubjectAccessReview."
        );
        // Not for another node, where nothing keeps a node from asking.
        let other = world.as_user("somebody", "others");
        world
            .ask(
                &other,
                "steal",
                &node_request([]),
                KUBELET_CLIENT,
                &CLIENT_USAGES,
            )
            .await;
        world.env.sleep(Duration::from_secs(60)).await;
        assert!(world.find("steal").await.unwrap()["status"]["conditions"].is_null());
        // And answered ones go after an hour, those that nobody decided on after a day.
        world.env.sleep(Duration::from_secs(3700)).await;
        assert!(world.find("join").await.is_none());
        assert!(world.find("steal").await.is_some());
        world.env.sleep(Duration::from_secs(24 * 3600)).await;
        assert!(world.find("steal").await.is_none());
    });
}

#[test]
fn serving_certificates_are_signed_when_somebody_approves() {
    run(|world| async move {
        let node = world.as_user("system:node:n1", "system:nodes");
        let usages = ["digital signature", "server auth"];
        let pem = node_request(["n1".into(), "10.0.0.1".into()]);
        world
            .ask(&node, "serve", &pem, KUBELET_SERVING, &usages)
            .await;
        world.env.sleep(Duration::from_secs(10)).await;
        assert!(world.find("serve").await.unwrap()["status"]["conditions"].is_null());
        world.approve("serve").await;
        world.when("serve", "certificate").await;
        // What the signer does not sign fails, with the reason.
        for (name, pem, signer, why) in [
            (
                "nameless",
                node_request([]),
                KUBELET_SERVING,
                "DNS or IP subjectAltName is required",
            ),
            (
                "server",
                node_request([]),
                CLIENT,
                "invalid usage for client certificate: server auth",
            ),
        ] {
            world.ask(&node, name, &pem, signer, &usages).await;
            world.approve(name).await;
            let failed = world.when(name, "Failed").await;
            let condition = &failed["status"]["conditions"][1];
            assert_eq!(condition["reason"], "SignerValidationFailure");
            assert_eq!(condition["message"], why);
        }
        let (pem, _) = CertificateRequest::create("jane", Some("developers"), []).unwrap();
        world
            .ask(&*world.admin(), "jane", &pem, CLIENT, &["client auth"])
            .await;
        world.approve("jane").await;
        world.when("jane", "certificate").await;
        // Another's signer is another's matter.
        world
            .ask(
                &*world.admin(),
                "acme",
                &pem,
                "acme.com/x",
                &["client auth"],
            )
            .await;
        world.approve("acme").await;
        world.env.sleep(Duration::from_secs(60)).await;
        assert!(world.find("acme").await.unwrap()["status"]["certificate"].is_null());
    });
}

#[test]
fn what_a_kubelet_asks_for_is_known() {
    let read = |organization, names: Vec<SubjectName>| {
        let (pem, _) = CertificateRequest::create("system:node:n1", organization, names).unwrap();
        CertificateRequest::from_pem(&pem).unwrap()
    };
    let good = read(Some("system:nodes"), vec![]);
    assert_eq!(check_kubelet_client(&good, &CLIENT_USAGES), Ok(()));
    let with = ["key encipherment", "digital signature", "client auth"];
    assert_eq!(check_kubelet_client(&good, &with), Ok(()));
    assert!(check_kubelet_client(&good, &["client auth"]).is_err());
    for (request, why) in [
        (
            read(Some("nodes"), vec![]),
            "subject organization is not system:nodes",
        ),
        (
            read(Some("system:nodes"), vec!["a".into()]),
            "DNS subjectAltNames are not allowed",
        ),
        (
            read(Some("system:nodes"), vec!["10.0.0.1".into()]),
            "IP subjectAltNames are not allowed",
        ),
    ] {
        assert_eq!(
            check_kubelet_client(&request, &CLIENT_USAGES),
            Err(why.to_owned())
        );
    }
}
