//! Static pods: pods of manifests on this machine, which run without the API and are shown in it by mirrors.

mod manifest;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use orlop_api::typed::{Api, Kind};
use orlop_core::client::DeleteOptions;
use orlop_core::status::Status;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::blocking::blocking;
use crate::kubelet::Kubelet;
use crate::pod::{CONFIG_HASH, CONFIG_MIRROR, spec};

/// How soon the API is asked again when it refused.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// The static pods of a node and their mirrors.
#[derive(Default)]
pub(crate) struct StaticPods {
    state: Mutex<State>,
    bell: Notify,
}

#[derive(Default)]
struct State {
    /// The pods of the manifests, by uid.
    pods: BTreeMap<String, Arc<Pod>>,
    /// The mirrors that the API has, by namespace and name.
    mirrors: BTreeMap<(String, String), Arc<Pod>>,
}

fn key(pod: &Pod) -> (String, String) {
    (spec::namespace(pod).to_owned(), spec::name(pod).to_owned())
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a String> {
    pod.metadata.annotations.as_ref()?.get(name)
}

impl StaticPods {
    /// Has the mirrors looked at.
    pub(crate) fn wake(&self) {
        self.bell.notify_one();
    }

    /// The API has a mirror, new or changed.
    pub(crate) fn mirror(&self, pod: Arc<Pod>) {
        self.state.lock().mirrors.insert(key(&pod), pod);
        self.wake();
    }

    /// The API has a mirror no more.
    pub(crate) fn mirror_gone(&self, pod: &Pod) {
        let mut state = self.state.lock();
        let known = state.mirrors.get(&key(pod));
        if known.is_some_and(|known| spec::uid(known) == spec::uid(pod)) {
            state.mirrors.remove(&key(pod));
        }
        drop(state);
        self.wake();
    }

    /// Reads the manifests again and again, and keeps the mirrors.
    pub(crate) async fn follow(&self, kubelet: &Kubelet) {
        let cx = kubelet.cx();
        let path = cx.config.static_pod_path.clone();
        let period = cx.config.file_check_frequency;
        let mut due = cx.env.now();
        loop {
            if let Some(path) = path.clone().filter(|_| cx.env.now() >= due) {
                let node = cx.config.node_name.clone();
                let seen = cx.env.wall();
                match blocking(move || manifest::read(&path, &node, seen)).await {
                    Ok(pods) => {
                        self.take(kubelet, pods);
                        kubelet.files_read();
                    }
                    // What ran goes on: a disk that cannot be read says nothing about what is to run.
                    Err(error) => tracing::warn!(%error, "the manifests could not be read"),
                }
                due = cx.env.now() + period;
            } else if path.is_none() {
                kubelet.files_read();
            }
            let well = self.keep_mirrors(kubelet).await;
            let mut wait = if path.is_some() {
                due.since(cx.env.now())
            } else {
                Duration::from_secs(3600)
            };
            if !well {
                wait = wait.min(TRY_AGAIN);
            }
            let rung = std::pin::pin!(self.bell.notified());
            select(rung, cx.env.sleep(wait)).await;
        }
    }

    /// Begins and ends pods, as the manifests say. A manifest that changed is another pod of the same name.
    fn take(&self, kubelet: &Kubelet, found: Vec<Pod>) {
        let mut wanted: BTreeMap<String, Pod> = BTreeMap::new();
        for pod in found {
            wanted.insert(spec::uid(&pod).to_owned(), pod);
        }
        let (gone, new): (Vec<String>, Vec<Arc<Pod>>) = {
            let mut state = self.state.lock();
            let gone = state.pods.keys().filter(|uid| !wanted.contains_key(*uid));
            let gone: Vec<String> = gone.cloned().collect();
            for uid in &gone {
                state.pods.remove(uid);
            }
            let mut new = Vec::new();
            for (uid, pod) in wanted {
                if let Entry::Vacant(place) = state.pods.entry(uid) {
                    new.push(place.insert(Arc::new(pod)).clone());
                }
            }
            (gone, new)
        };
        for uid in gone {
            let entry = kubelet.cx().entries.lock().get(&uid).cloned();
            if let Some(entry) = entry {
                entry.desired.lock().gone = true;
                entry.bell.notify_one();
            }
        }
        for pod in new {
            let known = kubelet.cx().entries.lock().contains_key(spec::uid(&pod));
            if known {
                // The manifest came back while its pod was still going: it is taken up again when that is over.
                self.state.lock().pods.remove(spec::uid(&pod));
                continue;
            }
            kubelet.add(pod, None);
        }
    }

    /// Makes the mirrors that are missing and deletes those that mirror nothing. Whether all went well.
    async fn keep_mirrors(&self, kubelet: &Kubelet) -> bool {
        if !kubelet.has_synced() {
            return true;
        }
        let (pods, mirrors) = {
            let state = self.state.lock();
            let pods: Vec<Arc<Pod>> = state.pods.values().cloned().collect();
            let mirrors: Vec<Arc<Pod>> = state.mirrors.values().cloned().collect();
            (pods, mirrors)
        };
        kubelet.cx().metrics.mirrors(mirrors.len());
        let mut well = true;
        for mirror in &mirrors {
            let own = pods.iter().find(|pod| key(pod) == key(mirror));
            let right = own.is_some_and(|own| {
                annotation(mirror, CONFIG_MIRROR) == annotation(own, CONFIG_HASH)
                    && mirror.metadata.deletion_timestamp.is_none()
            });
            if right {
                continue;
            }
            // A pod that still ends is shown until it has ended.
            let ending = own.is_none() && {
                let entries = kubelet.cx().entries.lock();
                let mut all = entries.values();
                all.any(|entry| key(&entry.pod()) == key(mirror))
            };
            if ending {
                well = false;
            } else {
                well &= self.delete(kubelet, mirror).await;
            }
        }
        for pod in &pods {
            let mirror = self.state.lock().mirrors.get(&key(pod)).cloned();
            let mirror = match mirror {
                Some(mirror) => Some(mirror),
                None => match self.create(kubelet, pod).await {
                    Ok(made) => Some(made),
                    Err(error) => {
                        let pod = spec::in_words(pod);
                        tracing::warn!(pod, %error, "a mirror pod could not be made");
                        well = false;
                        None
                    }
                },
            };
            let entry = kubelet.cx().entries.lock().get(spec::uid(pod)).cloned();
            let Some(entry) = entry else { continue };
            let uid = |pod: &Option<Arc<Pod>>| pod.as_ref().map(|pod| spec::uid(pod).to_owned());
            let other = {
                let mut desired = entry.desired.lock();
                let other = uid(&desired.api) != uid(&mirror);
                desired.api = mirror;
                other
            };
            if other {
                // The new mirror is to say how the pod is.
                entry.bell.notify_one();
            }
        }
        well
    }

    async fn delete(&self, kubelet: &Kubelet, mirror: &Pod) -> bool {
        let cx = kubelet.cx();
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some(spec::uid(mirror).to_owned()),
            ..DeleteOptions::default()
        };
        let pods = cx.client.resource(&Pod::resource());
        let pods = pods.namespace(spec::namespace(mirror));
        match pods.delete(spec::name(mirror), options).await {
            Ok(()) => {}
            Err(refusal) if refusal.is_not_found() || refusal.is_conflict() => {}
            Err(refusal) => {
                let pod = spec::in_words(mirror);
                tracing::warn!(pod, %refusal, "a mirror pod could not be deleted");
                return false;
            }
        }
        self.mirror_gone(mirror);
        true
    }

    async fn create(&self, kubelet: &Kubelet, pod: &Pod) -> Result<Arc<Pod>, Status> {
        let cx = kubelet.cx();
        let node = Api::<Node>::all(cx.client.clone());
        let node = node.get(&cx.config.node_name).await?;
        let mut mirror = pod.clone();
        let hash = annotation(pod, CONFIG_HASH).cloned().unwrap_or_default();
        let annotations = mirror.metadata.annotations.get_or_insert_default();
        annotations.insert(CONFIG_MIRROR.to_owned(), hash);
        mirror.metadata.uid = None;
        mirror.status = None;
        mirror.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: cx.config.node_name.clone(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            ..OwnerReference::default()
        }]);
        let pods = Api::<Pod>::namespaced(cx.client.clone(), spec::namespace(pod));
        let made = pods.create(&mirror).await?;
        let mut state = self.state.lock();
        state.mirrors.entry(key(&made)).or_insert(made.clone());
        Ok(made)
    }
}
