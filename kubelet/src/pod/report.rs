//! Telling how a pod is.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use orlop_core::runtime::{Container, ContainerId, ContainerState};

use super::observed::{Observed, container_name};
use super::spec;
use super::status::{self, Input};
use super::worker::Worker;

impl Worker {
    /// Tells the API how the pod is; at its end for the last time. Whether it has come to its end.
    pub(super) async fn report(&self, last: bool) -> bool {
        if !self.state.lock().looked {
            return false;
        }
        let Ok(facts) = self.cx.view.facts().await else {
            return false;
        };
        let pod = self.entry.pod();
        let seen = self.cx.view.get(&self.entry.uid);
        if !last {
            self.watch_probes(&pod, &seen);
        }
        self.read_messages(&pod, &seen).await;
        let evicted = self.entry.desired.lock().evicted.clone();
        let (old, waiting, messages, verdict) = {
            let state = self.state.lock();
            (
                state.status.clone().unwrap_or_default(),
                state.waiting.clone(),
                state.messages.clone(),
                state.verdict.clone(),
            )
        };
        let verdict = verdict.or_else(|| evicted.as_ref().map(|one| one.verdict.clone()));
        let terminating = last || verdict.is_some() || self.entry.must_end();
        let input = Input {
            pod: &pod,
            seen: &seen,
            old: &old,
            waiting: &waiting,
            messages: &messages,
            probe: &|id: &ContainerId| self.probe(id),
            runtime: &facts.name,
            recursive_read_only: facts.recursive_read_only,
            host_ips: &self.host_ips(),
            terminating,
            verdict: verdict.as_ref(),
            now: self.now(),
        };
        let mut status = status::generate(&input);
        if let Some(eviction) = evicted {
            let condition = PodCondition {
                type_: "DisruptionTarget".to_owned(),
                status: "True".to_owned(),
                reason: Some("TerminationByKubelet".to_owned()),
                message: Some(eviction.verdict.message.clone()),
                last_transition_time: Some(status::api_time(eviction.at)),
                observed_generation: pod.metadata.generation,
                ..PodCondition::default()
            };
            let all = status.conditions.get_or_insert_default();
            if status::condition(all, "DisruptionTarget").is_none() {
                all.insert(0, condition);
            }
        }
        if last {
            status::conclude(&pod, &mut status, self.now());
        }
        let ended = spec::is_terminal_phase(status.phase.as_deref());
        if !last {
            status::hold_back(&mut status, &old, self.now());
        }
        self.measure(&status);
        self.tell(&pod, status);
        ended
    }

    /// Has a status written, and remembers it.
    pub(super) fn tell(&self, pod: &Arc<Pod>, status: PodStatus) {
        let status = Arc::new(status);
        let same = {
            let mut state = self.state.lock();
            let same = state.status.as_ref() == Some(&status);
            state.status = Some(status.clone());
            same
        };
        let mut told = self.entry.told.lock();
        let is_newest = told
            .as_ref()
            .is_some_and(|told| told.metadata == pod.metadata && told.spec == pod.spec);
        if !(same && is_newest) {
            let mut shown = (**pod).clone();
            shown.status = Some((*status).clone());
            *told = Some(Arc::new(shown));
        }
        drop(told);
        let api = {
            let desired = self.entry.desired.lock();
            desired.api.clone().filter(|_| !desired.gone)
        };
        if let Some(api) = api {
            self.cx.writer.set(&self.entry.uid, api, status);
        }
    }

    /// Has the containers that run probed.
    fn watch_probes(&self, pod: &Arc<Pod>, seen: &Observed) {
        let ip = if spec::uses_host_network(pod) {
            self.host_ips().first().copied()
        } else {
            seen.addresses().first().copied()
        };
        let ephemeral: BTreeSet<String> = spec::ephemeral_containers(pod)
            .into_iter()
            .map(|one| one.name)
            .collect();
        for running in &seen.containers {
            let name = container_name(running);
            if running.state != ContainerState::Running || ephemeral.contains(name) {
                continue;
            }
            let mut all = spec::containers(pod)
                .iter()
                .chain(spec::init_containers(pod));
            let Some(own) = all.find(|one| one.name == name) else {
                continue;
            };
            let probed = own.liveness_probe.is_some()
                || own.readiness_probe.is_some()
                || own.startup_probe.is_some();
            let ending = self.state.lock().ending.contains(&running.id);
            if probed && !ending {
                let started = running.started.unwrap_or(running.created);
                let probes = &self.cx.parts.probes;
                probes.watch(pod, own, &running.id, started, ip);
            }
        }
        // Those that ended by themselves.
        for ended in &seen.containers {
            if ended.state == ContainerState::Exited {
                let known = self.state.lock().messages.contains_key(&ended.id);
                if !known {
                    self.cx.parts.probes.forget(&ended.id);
                }
            }
        }
    }

    /// Reads what ended containers said, once for each.
    async fn read_messages(&self, pod: &Pod, seen: &Observed) {
        let unread: Vec<Arc<Container>> = {
            let mut state = self.state.lock();
            let there: BTreeSet<&ContainerId> = seen.containers.iter().map(|one| &one.id).collect();
            state.messages.retain(|id, _| there.contains(id));
            state.ending.retain(|id| there.contains(id));
            let ended = seen.containers.iter().filter(|one| {
                one.state == ContainerState::Exited && !state.messages.contains_key(&one.id)
            });
            ended.cloned().collect()
        };
        for ended in unread {
            let Some((_, own)) = spec::find(pod, container_name(&ended)) else {
                continue;
            };
            let configs = &self.cx.parts.configs;
            let said = configs.termination_message(pod, &own, &ended).await;
            let mut state = self.state.lock();
            state.messages.insert(ended.id.clone(), said);
        }
    }
}
