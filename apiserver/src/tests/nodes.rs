//! What a kubelet does, and what it may not, through all of the server: authorization and admission together.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orlop_core::client::{Client, DeleteOptions, Patch};
use orlop_core::status::Status;

use super::*;

const NODES: Resource = Resource::cluster("", "v1", "nodes", "Node");
const POD_RESOURCE: Resource = Resource::namespaced("", "v1", "pods", "Pod");
const LEASES: Resource = Resource::namespaced("coordination.k8s.io", "v1", "leases", "Lease");
const MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
const SECRETS: Resource = Resource::namespaced("", "v1", "secrets", "Secret");
const ACCOUNTS: Resource = Resource::namespaced("", "v1", "serviceaccounts", "ServiceAccount");
const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");
const SERVICES: Resource = Resource::namespaced("", "v1", "services", "Service");
const REQUESTS: Resource = Resource::cluster(
    "certificates.k8s.io",
    "v1",
    "certificatesigningrequests",
    "CertificateSigningRequest",
);

/// A request of `openssl req -new -newkey ec -subj /O=system:nodes/CN=system:node:n1`.
const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----\n\
MIHrMIGSAgEAMDAxFTATBgNVBAoMDHN5c3RlbTpub2RlczEXMBUGA1UEAwwOc3lz\n\
dGVtOm5vZGU6bjEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQ3R4XiB5S4Fa2z\n\
bPYzJIcRkzz46yoM+e26NUwD4aZfAKdMmZ2AYVljkIX5jChPohMFyrbiCToMsN/B\n\
AQJggBk6oAAwCgYIKoZIzj0EAwIDSAAwRQIgZ8zLAOsptJGFy2BrkzPLDWGZQ9za\n\
UDxc7tO/RBjFopQCIQDO/KsVgfm+B6/qesHIE9ELmeVNmFE1MVGLdv246gG3qg==\n\
-----END CERTIFICATE REQUEST-----\n\
";

impl Cluster {
    fn node(&self, name: &str) -> Arc<dyn Client> {
        let user = UserInfo::new(
            &format!("system:node:{name}"),
            ["system:nodes", ALL_AUTHENTICATED],
        );
        Arc::new(self.api.client(user, "kubelet"))
    }

    async fn caught_up(&self) {
        self.api.caught_up().await.unwrap();
    }
}

#[track_caller]
fn forbidden<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    let status = result.unwrap_err();
    assert_eq!(status.code, 403, "{status}");
    status.message
}

#[test]
fn a_kubelet_does_its_work_and_no_more() {
    with_cluster(1, |cluster| async move {
        let kubelet = cluster.node("n1");
        let nodes = kubelet.resource(&NODES);
        // It registers, says how it is, and renews its lease.
        let node = json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1", "node.kubernetes.io/instance-type": "x"}}});
        nodes.create(&node).await.unwrap();
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}], "capacity": {"cpu": "4"}}});
        nodes
            .patch_status("n1", Patch::Strategic(status))
            .await
            .unwrap();
        nodes.get("n1").await.unwrap();
        let other = json!({"metadata": {"name": "n2"}});
        assert!(
            forbidden(nodes.create(&other).await).contains("is not allowed to modify node \"n2\"")
        );
        cluster.post("/api/v1/nodes", &other).await.expect(201);
        cluster.caught_up().await;
        let status = json!({"status": {"phase": "x"}});
        forbidden(nodes.patch_status("n2", Patch::Merge(status)).await);
        forbidden(nodes.get("n2").await);
        // Labels that say what may run there are not its own to give, nor may it take its taints away.
        let label = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/secret": "1"}}});
        forbidden(nodes.patch("n1", Patch::Merge(label)).await);
        let label = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
        forbidden(nodes.patch("n1", Patch::Merge(label)).await);
        let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
        forbidden(nodes.patch("n1", Patch::Merge(taint)).await);
        let lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40}});
        let leases = kubelet.resource(&LEASES).namespace("kube-node-lease");
        leases.create(&lease).await.unwrap();
        leases
            .patch(
                "n1",
                Patch::Merge(json!({"spec": {"leaseDurationSeconds": 41}})),
            )
            .await
            .unwrap();
        forbidden(leases.create(&json!({"metadata": {"name": "n2"}})).await);
        forbidden(
            kubelet
                .resource(&LEASES)
                .namespace("default")
                .create(&lease)
                .await,
        );

        // It reads what its pods need, and what they do not, it does not.
        for name in ["cm", "other"] {
            let map = json!({"metadata": {"name": name}});
            cluster.post(CONFIG_MAPS, &map).await.expect(201);
            let path = "/api/v1/namespaces/default/secrets";
            cluster.post(path, &map).await.expect(201);
        }
        let mut web = pod("web");
        web["spec"]["nodeName"] = "n1".into();
        web["spec"]["containers"][0]["envFrom"] =
            json!([{"configMapRef": {"name": "cm"}}, {"secretRef": {"name": "cm"}}]);
        let web = cluster.post(PODS, &web).await.expect(201);
        let mut far = pod("far");
        far["spec"]["nodeName"] = "n2".into();
        cluster.post(PODS, &far).await.expect(201);
        cluster.caught_up().await;
        for resource in [&MAPS, &SECRETS] {
            let here = kubelet.resource(resource).namespace("default");
            here.get("cm").await.unwrap();
            let one = |name: &str| orlop_core::client::WatchOptions {
                field_selector: format!("metadata.name={name}"),
                ..Default::default()
            };
            drop(here.watch(one("cm")).await.unwrap());
            assert!(
                forbidden(here.get("other").await)
                    .contains("no relationship found between node 'n1' and this object")
            );
            assert!(
                forbidden(here.watch(one("other")).await.map(drop)).contains("no relationship")
            );
            forbidden(here.list(orlop_core::client::ListOptions::default()).await);
        }
        let of = |node: &str| orlop_core::client::ListOptions {
            field_selector: format!("spec.nodeName={node}"),
            ..Default::default()
        };
        let all = kubelet.resource(&POD_RESOURCE);
        assert_eq!(all.list(of("n1")).await.unwrap().items.len(), 1);
        forbidden(all.list(of("n2")).await);
        kubelet
            .resource(&SERVICES)
            .list(orlop_core::client::ListOptions::default())
            .await
            .unwrap();

        // It says how its pods are, and takes tokens for them.
        let pods = kubelet.resource(&POD_RESOURCE).namespace("default");
        let status = json!({"status": {"phase": "Running"}});
        pods.patch_status("web", Patch::Strategic(status.clone()))
            .await
            .unwrap();
        forbidden(pods.patch_status("far", Patch::Strategic(status)).await);
        let accounts = kubelet.resource(&ACCOUNTS).namespace("default");
        let bound = |name: &str, uid: &Value| {
            json!({"spec": {"expirationSeconds": 3607, "boundObjectRef": {
                "kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid,
            }}})
        };
        // The server of these tests issues none: that it gets so far is what counts.
        let token = bound("web", &web["metadata"]["uid"]);
        let answer = accounts
            .create_subresource("default", "token", &token)
            .await;
        assert_eq!(answer.unwrap_err().code, 404);
        let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"}, "reason": "Started", "type": "Normal"});
        kubelet
            .resource(&EVENTS)
            .namespace("default")
            .create(&event)
            .await
            .unwrap();
        let eviction = json!({"metadata": {"name": "far"}});
        forbidden(pods.create_subresource("far", "eviction", &eviction).await);
        pods.delete(
            "web",
            DeleteOptions {
                grace_period_seconds: Some(0),
                ..Default::default()
            },
        )
        .await
        .unwrap();
        forbidden(pods.delete("far", DeleteOptions::default()).await);
        cluster.caught_up().await;
        let maps = kubelet.resource(&MAPS).namespace("default");
        forbidden(maps.get("cm").await);

        // It asks for certificates, and reads the answers.
        let request = json!({"metadata": {"name": "r"}, "spec": {
            "request": STANDARD.encode(REQUEST), "usages": ["client auth", "digital signature"],
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
        }});
        let made = kubelet.resource(&REQUESTS).create(&request).await.unwrap();
        assert_eq!(made.value().unwrap()["spec"]["username"], "system:node:n1");
        kubelet.resource(&REQUESTS).get("r").await.unwrap();
        let mut others = request.clone();
        others["metadata"]["name"] = "s".into();
        let other = cluster.node("n2");
        assert!(
            forbidden(other.resource(&REQUESTS).create(&others).await)
                .ends_with("can only create a node CSR with CN=system:node:n2")
        );
        let mut approved = (*made.value().unwrap()).clone();
        approved["status"]["conditions"] = json!([{"type": "Approved", "status": "True"}]);
        forbidden(
            kubelet
                .resource(&REQUESTS)
                .update_at(Some("approval"), &approved)
                .await,
        );
    });
}

#[test]
fn machines_join_by_a_token() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let store = Arc::new(MemoryStore::new(env.clone()));
        let api = ApiServer::builder(store, env).with_defaults().nodes_join_by_token();
        let api = api.start().await.unwrap();
        api.caught_up().await.unwrap();
        let machine = UserInfo::new("system:bootstrap:abcdef", ["system:bootstrappers", ALL_AUTHENTICATED]);
        let machine: Arc<dyn Client> = Arc::new(api.client(machine, "kubelet"));
        let request = |name: &str, request: String| json!({"metadata": {"name": name}, "spec": {
            "request": request, "usages": ["client auth", "digital signature"],
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
        }});
        let good = request("r", STANDARD.encode(REQUEST));
        machine.resource(&REQUESTS).create(&good).await.unwrap();
        machine.resource(&REQUESTS).get("r").await.unwrap();
        forbidden(machine.resource(&NODES).get("n1").await);
        let bad = machine.resource(&REQUESTS).create(&request("s", STANDARD.encode("x"))).await;
        let bad = bad.unwrap_err();
        assert_eq!(bad.code, 422);
        assert!(bad.message.ends_with("spec.request: Invalid value: []byte{0x78}: PEM block type must be CERTIFICATE REQUEST"), "{bad}");
        api.shutdown().await;
    });
}

#[test]
fn debug_containers_are_added_and_stay() {
    with_cluster(1, |cluster| async move {
        cluster.post(PODS, &pod("web")).await.expect(201);
        let path = format!("{PODS}/web/ephemeralcontainers");
        // As kubectl debug does it.
        let added = json!({"spec": {"ephemeralContainers": [{
            "name": "debugger", "image": "busybox", "stdin": true, "tty": true, "targetContainerName": "c",
        }]}});
        let answer = cluster.patch(&path, STRATEGIC, &added).await.expect(200);
        let made = &answer["spec"]["ephemeralContainers"][0];
        assert_eq!(made["imagePullPolicy"], "Always");
        assert_eq!(made["terminationMessagePolicy"], "File");
        let read = cluster.get(&path).await.expect(200);
        assert_eq!(read["kind"], "Pod");
        assert_eq!(
            read["spec"]["ephemeralContainers"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        // Nothing else changes through it, ….
        let image = json!({"spec": {"containers": [{"name": "c", "image": "other"}]}});
        let answer = cluster.patch(&path, STRATEGIC, &image).await.expect(200);
        assert_eq!(answer["spec"]["containers"][0]["image"], "i");
        // … and what was added stays as it is.
        let changed =
            json!({"spec": {"ephemeralContainers": [{"name": "debugger", "image": "other"}]}});
        let message = cluster.patch(&path, STRATEGIC, &changed).await.refused(422);
        assert!(
            message.contains("existing ephemeral containers \"debugger\" may not be changed"),
            "{message}"
        );
        let none = json!({"spec": {"ephemeralContainers": null}});
        let message = cluster.patch(&path, MERGE, &none).await.refused(422);
        assert!(
            message.contains("existing ephemeral containers \"debugger\" may not be removed"),
            "{message}"
        );
        let twice = json!({"spec": {"ephemeralContainers": [{"name": "c", "image": "x"}]}});
        let message = cluster.patch(&path, STRATEGIC, &twice).await.refused(422);
        assert!(message.contains("Duplicate value: \"c\""), "{message}");
        // Not through the pod itself.
        let more = json!({"spec": {"ephemeralContainers": [{"name": "second", "image": "x"}]}});
        cluster
            .patch(&format!("{PODS}/web"), STRATEGIC, &more)
            .await
            .refused(422);
        cluster.patch(&path, STRATEGIC, &more).await.expect(200);
    });
}
