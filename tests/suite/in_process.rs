//! A control plane in the test's own process: kube-rs as it comes, a rule of one's own, somebody without rights.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, future};
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::{Controller, reflector, watcher};
use kube::{Resource, ResourceExt};
use orlop::ControlPlane;
use orlop::core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};
use orlop::core::auth::{ALL_AUTHENTICATED, UserInfo};
use orlop::core::client::ListOptions;
use orlop::core::env::Env;
use orlop::core::resource::Resource as Kind;
use orlop::core::status::Status;
use orlop::sim::SimulatedNodes;
use serde_json::{Value, from_value, json};

const PODS: Kind = Kind::namespaced("", "v1", "pods", "Pod");
const SECRETS: Kind = Kind::namespaced("", "v1", "secrets", "Secret");

async fn plane() -> ControlPlane {
    ControlPlane::builder()
        .in_memory()
        .with_defaults()
        .simulated_nodes(SimulatedNodes::new(2))
        .start()
        .await
        .unwrap()
}

/// Asks again and again until there is an answer.
async fn eventually<T, F: Future<Output = Option<T>>>(
    env: &Env,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    for _ in 0..1_800 {
        if let Some(answer) = ask().await {
            return answer;
        }
        env.sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain: {what}");
}

fn map(name: &str) -> ConfigMap {
    from_value(json!({"metadata": {"name": name}, "data": {"a": "b"}})).unwrap()
}

// A controller as its author would write it for any cluster: every Ingress gets a ConfigMap of its own and a status, and leaves a note when
// it goes.

const FINALIZER: &str = "example.com/note";

async fn reconcile(
    ingress: Arc<Ingress>,
    client: Arc<kube::Client>,
) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
    let namespace = ingress.namespace().unwrap_or_default();
    let ingresses: Api<Ingress> = Api::namespaced((*client).clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), &namespace);
    let apply = PatchParams::apply("publisher");
    finalizer(&ingresses, FINALIZER, ingress, |event| async {
        match event {
            Event::Apply(ingress) => {
                let name = ingress.name_any();
                let owned = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": format!("{name}-published"), "ownerReferences": [ingress.controller_owner_ref(&()).unwrap()]},
                    "data": {"host": format!("{name}.example.com")},
                });
                maps.patch(&format!("{name}-published"), &apply, &Patch::Apply(owned)).await?;
                let status = json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                    "status": {"loadBalancer": {"ingress": [{"hostname": format!("{name}.example.com")}]}},
                });
                ingresses.patch_status(&name, &apply, &Patch::Apply(status)).await?;
            }
            Event::Cleanup(ingress) => {
                let note = map(&format!("{}-note", ingress.name_any()));
                match maps.create(&PostParams::default(), &note).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Action::await_change())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unmodified_kube_rs_controller_runs() {
    let plane = plane().await;
    let env = plane.env().clone();
    let client = plane.kube_client();
    let ingresses: Api<Ingress> = Api::default_namespaced(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let (stop, stopped) = futures::channel::oneshot::channel::<()>();
    let controller = Controller::new(ingresses.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default())
        .graceful_shutdown_on(async move {
            let _ = stopped.await;
        })
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_millis(50)),
            Arc::new(client.clone()),
        )
        .for_each(|_| future::ready(()));

    let test = async {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let ingress =
            from_value(json!({"metadata": {"name": "shop"}, "spec": {"defaultBackend": backend}}))
                .unwrap();
        let made = ingresses
            .create(&PostParams::default(), &ingress)
            .await
            .unwrap();
        let published = eventually(&env, "a status", || async {
            let ingress = ingresses.get("shop").await.unwrap();
            let host = ingress
                .status
                .as_ref()?
                .load_balancer
                .as_ref()?
                .ingress
                .as_ref()?
                .first()?
                .hostname
                .clone()?;
            Some((host, ingress))
        })
        .await;
        assert_eq!(published.0, "shop.example.com");
        assert_eq!(published.1.finalizers(), [FINALIZER]);
        assert_eq!(
            published.1.metadata.generation,
            Some(1),
            "a status does not change the generation"
        );
        let owned = maps.get("shop-published").await.unwrap();
        assert_eq!(owned.owner_references()[0].uid, made.uid().unwrap());

        // What it owns is made anew.
        maps.delete("shop-published", &DeleteParams::default())
            .await
            .unwrap();
        eventually(&env, "the map again", || async {
            let again = maps.get_opt("shop-published").await.unwrap()?;
            (again.uid() != owned.uid()).then_some(())
        })
        .await;

        ingresses
            .delete("shop", &DeleteParams::default())
            .await
            .unwrap();
        eventually(&env, "the end", || async {
            ingresses
                .get_opt("shop")
                .await
                .unwrap()
                .is_none()
                .then_some(())
        })
        .await;
        maps.get("shop-note").await.unwrap();
        eventually(&env, "the map's end", || async {
            maps.get_opt("shop-published")
                .await
                .unwrap()
                .is_none()
                .then_some(())
        })
        .await;
        let _ = stop.send(());
    };
    future::join(controller, test).await;
    plane.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_lists_watches_and_reflects() {
    let plane = plane().await;
    let env = plane.env().clone();
    let client = plane.kube_client();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &map(name))
            .await
            .unwrap();
    }

    // Both ways that kube-rs has to begin: pages of a list, and a streaming list.
    for config in [
        watcher::Config::default().page_size(1),
        watcher::Config::default().streaming_lists(),
    ] {
        let (reader, writer) = reflector::store();
        let stream = reflector::reflector(
            writer,
            watcher(
                maps.clone(),
                config.fields("metadata.name!=kube-root-ca.crt"),
            ),
        );
        let mut stream = Box::pin(stream);
        let names = |reader: &reflector::Store<ConfigMap>| -> BTreeSet<String> {
            reader.state().iter().map(|map| map.name_any()).collect()
        };
        let mut until = async |wanted: &[&str]| {
            while names(&reader) != wanted.iter().map(ToString::to_string).collect() {
                stream.try_next().await.unwrap().unwrap();
            }
        };
        until(&["a", "b", "c"]).await;
        maps.create(&PostParams::default(), &map("d"))
            .await
            .unwrap();
        until(&["a", "b", "c", "d"]).await;
        maps.delete("d", &DeleteParams::default()).await.unwrap();
        until(&["a", "b", "c"]).await;
    }

    // A watch by hand.
    let revision = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let mut watch = maps
        .watch(&WatchParams::default().fields("metadata.name=e"), &revision)
        .await
        .unwrap()
        .boxed();
    maps.create(&PostParams::default(), &map("e"))
        .await
        .unwrap();
    let apply = |manager: &str, value: &str| {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "e"}, "data": {"a": value}});
        (PatchParams::apply(manager), body)
    };
    let (params, body) = apply("somebody", "c");
    // Who created it owns it.
    let refused = maps
        .patch("e", &params, &Patch::Apply(&body))
        .await
        .unwrap_err();
    let kube::Error::Api(status) = refused else {
        panic!("{refused}")
    };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert!(
        status
            .message
            .starts_with("Apply failed with 1 conflict: conflict with "),
        "{}",
        status.message
    );
    maps.patch("e", &params.force(), &Patch::Apply(&body))
        .await
        .unwrap();
    maps.delete("e", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(match watch.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(map) => ("added", map.data.unwrap()["a"].clone()),
            WatchEvent::Modified(map) => ("modified", map.data.unwrap()["a"].clone()),
            WatchEvent::Deleted(map) => ("deleted", map.data.unwrap()["a"].clone()),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(
        seen,
        [
            ("added", "b".to_owned()),
            ("modified", "c".to_owned()),
            ("deleted", "c".to_owned())
        ]
    );

    // Typed, and rolled out.
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let labels = json!({"app": "web"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "nginx"}]}});
    let web = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}});
    deployments
        .create(&PostParams::default(), &from_value(web).unwrap())
        .await
        .unwrap();
    eventually(&env, "a rollout", || async {
        (deployments
            .get("web")
            .await
            .unwrap()
            .status?
            .ready_replicas?
            == 2)
            .then_some(())
    })
    .await;
    let scale = deployments.get_scale("web").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(2));
    let pods: Api<Pod> = Api::default_namespaced(client);
    let running = pods
        .list(
            &ListParams::default()
                .labels("app=web")
                .fields("status.phase=Running"),
        )
        .await
        .unwrap();
    assert_eq!(running.items.len(), 2);
    plane.shutdown().await;
}

/// Nobody gets a ConfigMap of this name, and Secrets get a label.
struct Rule;

#[async_trait]
impl AdmissionPlugin for Rule {
    fn name(&self) -> &'static str {
        "Rule"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        matches!(
            operation,
            AdmissionOperation::Create | AdmissionOperation::Delete
        )
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        if request.is("", "secrets") && request.operation == AdmissionOperation::Create {
            request.object["metadata"]["labels"]["seen-by"] = json!("rule");
            request.warnings.push("secrets are noted".to_owned());
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        if request.is("", "configmaps") && request.name == "forbidden" {
            return Err(request.forbidden("that name is taken"));
        }
        if request.operation == AdmissionOperation::Delete && request.name == "kept" {
            return Err(request.forbidden("it stays"));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_of_one_s_own_refuses_changes_and_warns() {
    let plane = ControlPlane::builder()
        .in_memory()
        .with_defaults()
        .admission(Rule)
        .start()
        .await
        .unwrap();
    let client = plane.kube_client();
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let refused = maps
        .create(&PostParams::default(), &map("forbidden"))
        .await
        .unwrap_err();
    let kube::Error::Api(status) = refused else {
        panic!("{refused}")
    };
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        status.message,
        "configmaps \"forbidden\" is forbidden: that name is taken"
    );
    assert!(maps.get_opt("forbidden").await.unwrap().is_none());
    maps.create(&PostParams::default(), &map("kept"))
        .await
        .unwrap();
    let refused = maps
        .delete("kept", &DeleteParams::default())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("it stays"), "{refused}");

    let warnings = async |path: &str, body: Value| {
        let request = Request::post(path).header("content-type", "application/json");
        let request = request
            .body(kube::client::Body::from(body.to_string().into_bytes()))
            .unwrap();
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.status(), 201);
        let (parts, body) = answer.into_parts();
        let object: Value =
            serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        let warnings = parts
            .headers
            .get_all("warning")
            .iter()
            .map(|value| value.to_str().unwrap().to_owned());
        (warnings.collect::<Vec<_>>(), object)
    };
    let (said, secret) = warnings(
        "/api/v1/namespaces/default/secrets",
        json!({"metadata": {"name": "s"}}),
    )
    .await;
    assert_eq!(said, ["299 - \"secrets are noted\""]);
    assert_eq!(secret["metadata"]["labels"], json!({"seen-by": "rule"}));
    let odd = json!({"metadata": {"name": "m"}, "data": {"a": "b"}, "date": {}});
    let (said, _) = warnings(
        "/api/v1/namespaces/default/configmaps?fieldValidation=Warn",
        odd,
    )
    .await;
    assert_eq!(said, ["299 - \"unknown field \\\"date\\\"\""]);
    let (said, _) = warnings(
        "/api/v1/namespaces/default/configmaps",
        json!({"metadata": {"name": "n"}}),
    )
    .await;
    assert_eq!(said, Vec::<String>::new());
    plane.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_hold_in_process_too() {
    let plane = ControlPlane::builder()
        .in_memory()
        .with_defaults()
        .start()
        .await
        .unwrap();
    let client = plane.kube_client();
    let jane = plane.client(UserInfo::new("jane", [ALL_AUTHENTICATED]), "test");
    let refused = jane
        .resource(&PODS)
        .namespace("default")
        .list(ListOptions::default())
        .await
        .unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        refused.message,
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let role = json!({
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
    });
    let roles: Api<k8s_openapi::api::rbac::v1::Role> = Api::default_namespaced(client.clone());
    roles
        .create(&PostParams::default(), &from_value(role).unwrap())
        .await
        .unwrap();
    let binding = json!({
        "metadata": {"name": "readers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> =
        Api::default_namespaced(client.clone());
    bindings
        .create(&PostParams::default(), &from_value(binding).unwrap())
        .await
        .unwrap();
    eventually(plane.env(), "the right to list", || async {
        jane.resource(&PODS)
            .namespace("default")
            .list(ListOptions::default())
            .await
            .ok()
    })
    .await;
    // There, and nowhere else; that, and nothing else.
    assert!(
        jane.resource(&PODS)
            .namespace("kube-system")
            .list(ListOptions::default())
            .await
            .is_err()
    );
    assert!(
        jane.resource(&PODS)
            .list(ListOptions::default())
            .await
            .is_err()
    );
    assert!(
        jane.resource(&SECRETS)
            .namespace("default")
            .list(ListOptions::default())
            .await
            .is_err()
    );
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let refused = jane
        .resource(&PODS)
        .namespace("default")
        .create(&pod)
        .await
        .unwrap_err();
    assert_eq!(refused.code, 403);
    // The way is closed again.
    bindings
        .delete("readers", &DeleteParams::default())
        .await
        .unwrap();
    eventually(plane.env(), "the right to be gone", || async {
        jane.resource(&PODS)
            .namespace("default")
            .list(ListOptions::default())
            .await
            .err()
    })
    .await;
    plane.shutdown().await;
}
