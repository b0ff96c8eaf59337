//! The graph of objects and their owners.

use std::collections::{BTreeMap, BTreeSet};

use orlop_core::object::{Object, OwnerReference};
use orlop_core::resource::{Resource, split_api_version};

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// An object, as much of it as the graph has to know.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Its resource; `None` for an owner of a kind that is not known.
    pub(super) resource: Option<Resource>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) dependents: BTreeSet<String>,
    /// Whether its deletion has begun.
    pub(super) going: bool,
    /// Whether it is going in the foreground: after the dependents that block it.
    pub(super) waits_for_dependents: bool,
    /// Whether a watch has shown it; otherwise it is only known as somebody's owner.
    pub(super) observed: bool,
}

impl Node {
    /// Whether the owner of this uid may not go before this object has.
    pub(super) fn blocks(&self, owner: &str) -> bool {
        self.owners
            .iter()
            .any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
    }
}

/// What a change gives to do: uids to try to delete, and owners to be orphaned.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Work {
    pub(super) delete: BTreeSet<String>,
    pub(super) orphan: BTreeSet<String>,
}

impl Work {
    pub(super) fn extend(&mut self, other: Self) {
        self.delete.extend(other.delete);
        self.orphan.extend(other.orphan);
    }
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: BTreeMap<String, Node>,
    /// Resources by group and kind.
    kinds: BTreeMap<(String, String), Resource>,
}

impl Graph {
    /// Takes note of the resources that there are.
    pub(super) fn know<'a>(&mut self, resources: impl Iterator<Item = &'a Resource>) {
        self.kinds = resources
            .map(|resource| {
                (
                    (resource.group.to_string(), resource.kind.to_string()),
                    resource.clone(),
                )
            })
            .collect();
    }

    /// The resource that a reference speaks of.
    pub(super) fn resource_of(&self, reference: &OwnerReference) -> Option<Resource> {
        let (group, _) = split_api_version(&reference.api_version);
        self.kinds
            .get(&(group.to_owned(), reference.kind.clone()))
            .cloned()
    }

    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The dependents of an object.
    pub(super) fn dependents(&self, uid: &str) -> Vec<(String, Node)> {
        let uids = self
            .nodes
            .get(uid)
            .into_iter()
            .flat_map(|node| &node.dependents);
        uids.filter_map(|uid| self.nodes.get(uid).map(|node| (uid.clone(), node.clone())))
            .collect()
    }

    /// An object is there, or is another than before.
    pub(super) fn upsert(&mut self, resource: &Resource, object: &Object) -> Work {
        let metadata = object.metadata();
        let uid = object.uid().to_owned();
        let has = |finalizer: &str| metadata.finalizers.iter().any(|name| name == finalizer);
        let (going, foreground) = (object.is_terminating(), has(FOREGROUND));
        let mut work = Work::default();
        let before = self.nodes.get(&uid).cloned();
        let known = before.as_ref().filter(|node| node.observed);
        let old_owners = known.map(|node| node.owners.clone()).unwrap_or_default();
        let node = Node {
            resource: Some(resource.clone()),
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            owners: metadata.owner_references.clone(),
            dependents: before
                .as_ref()
                .map(|node| node.dependents.clone())
                .unwrap_or_default(),
            going,
            waits_for_dependents: going && foreground,
            observed: true,
        };
        let waited = known.is_some_and(|node| node.waits_for_dependents);
        if node.waits_for_dependents && !waited {
            work.delete.extend(node.dependents.iter().cloned());
            work.delete.insert(uid.clone());
        }
        if going && has(ORPHAN) {
            work.orphan.insert(uid.clone());
        }
        self.nodes.insert(uid.clone(), node);
        // Owners that it has no longer, or that it blocks no longer.
        for old in &old_owners {
            let now = metadata
                .owner_references
                .iter()
                .find(|reference| reference.uid == old.uid);
            if now.is_none()
                && let Some(owner) = self.nodes.get_mut(&old.uid)
            {
                owner.dependents.remove(&uid);
            }
            if now.is_none_or(|now| now.block_owner_deletion != old.block_owner_deletion) {
                self.unblock(&old.uid, &mut work);
            }
        }
        for reference in &metadata.owner_references {
            let is_new = !old_owners.iter().any(|old| old.uid == reference.uid);
            self.add_dependent(reference, &uid, object.namespace(), is_new, &mut work);
        }
        work
    }

    fn add_dependent(
        &mut self,
        reference: &OwnerReference,
        uid: &str,
        namespace: &str,
        is_new: bool,
        work: &mut Work,
    ) {
        if let Some(owner) = self.nodes.get_mut(&reference.uid) {
            owner.dependents.insert(uid.to_owned());
            // An owner elsewhere than the dependent believes is none: the dependent's references have to be looked at.
            let elsewhere = owner.observed
                && (owner.name != reference.name
                    || (!owner.namespace.is_empty() && owner.namespace != namespace));
            if (owner.waits_for_dependents || elsewhere) && is_new {
                work.delete.insert(uid.to_owned());
            }
            return;
        }
        // Nobody has seen that owner yet. Perhaps nobody ever will.
        let resource = self.resource_of(reference);
        let namespace = match &resource {
            Some(resource) if !resource.namespaced => "",
            _ => namespace,
        };
        let owner = Node {
            resource,
            namespace: namespace.to_owned(),
            name: reference.name.clone(),
            owners: Vec::new(),
            dependents: BTreeSet::from([uid.to_owned()]),
            going: false,
            waits_for_dependents: false,
            observed: false,
        };
        self.nodes.insert(reference.uid.clone(), owner);
        work.delete.insert(reference.uid.clone());
    }

    fn unblock(&self, owner: &str, work: &mut Work) {
        if self
            .nodes
            .get(owner)
            .is_some_and(|owner| owner.waits_for_dependents)
        {
            work.delete.insert(owner.to_owned());
        }
    }

    /// An object is gone, or was found never to have been there.
    pub(super) fn remove(&mut self, uid: &str) -> Work {
        let mut work = Work::default();
        let Some(node) = self.nodes.remove(uid) else {
            return work;
        };
        for reference in &node.owners {
            if let Some(owner) = self.nodes.get_mut(&reference.uid) {
                owner.dependents.remove(uid);
                // An owner that nobody saw and nobody names any more can be forgotten.
                if !owner.observed && owner.dependents.is_empty() {
                    self.nodes.remove(&reference.uid);
                }
            }
            self.unblock(&reference.uid, &mut work);
        }
        work.delete.extend(node.dependents);
        work
    }

    /// A resource is gone, with all its objects.
    pub(super) fn remove_resource(&mut self, resource: &Resource) -> Work {
        let gone: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.observed && node.resource.as_ref() == Some(resource))
            .map(|(uid, _)| uid.clone())
            .collect();
        let mut work = Work::default();
        for uid in gone {
            work.extend(self.remove(&uid));
        }
        work
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use serde_json::json;

    use super::*;

    const THINGS: Resource = Resource::namespaced("", "v1", "things", "Thing");

    fn thing(uid: &str, owners: &[&str], finalizer: Option<&str>) -> Object {
        let owners: Vec<_> = owners
            .iter()
            .map(|uid| json!({"apiVersion": "v1", "kind": "Thing", "name": uid, "uid": uid, "blockOwnerDeletion": true}))
            .collect();
        let mut object = json!({"metadata": {"name": uid, "namespace": "n", "uid": uid, "ownerReferences": owners}});
        if let Some(finalizer) = finalizer {
            object["metadata"]["finalizers"] = json!([finalizer]);
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Object::from_value(object).unwrap()
    }

    fn uids(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    #[test]
    fn dependents_are_looked_at_when_their_owner_goes() {
        let mut graph = Graph::default();
        graph.know([THINGS].iter());
        assert!(
            graph
                .upsert(&THINGS, &thing("a", &[], None))
                .delete
                .is_empty()
        );
        assert!(
            graph
                .upsert(&THINGS, &thing("b", &["a"], None))
                .delete
                .is_empty()
        );
        assert!(
            graph
                .upsert(&THINGS, &thing("c", &["b"], None))
                .delete
                .is_empty()
        );
        assert_eq!(uids(&graph.remove("a").delete), ["b"]);
        assert_eq!(uids(&graph.remove("b").delete), ["c"]);
    }

    #[test]
    fn an_owner_that_nobody_saw_is_looked_up() {
        let mut graph = Graph::default();
        graph.know([THINGS].iter());
        let work = graph.upsert(&THINGS, &thing("b", &["ghost"], None));
        assert_eq!(uids(&work.delete), ["ghost"]);
        let ghost = graph.get("ghost").unwrap();
        assert!(!ghost.observed && ghost.namespace == "n" && ghost.resource.is_some());
        assert_eq!(uids(&graph.remove("ghost").delete), ["b"]);
        // A late owner finds its dependents.
        graph.upsert(&THINGS, &thing("c", &["late"], None));
        graph.upsert(&THINGS, &thing("late", &[], None));
        assert_eq!(graph.dependents("late").len(), 1);
    }

    #[test]
    fn the_two_policies_begin_with_their_finalizers() {
        let mut graph = Graph::default();
        graph.upsert(&THINGS, &thing("a", &[], None));
        graph.upsert(&THINGS, &thing("b", &["a"], None));
        let work = graph.upsert(&THINGS, &thing("a", &[], Some(FOREGROUND)));
        assert_eq!(uids(&work.delete), ["a", "b"]);
        assert!(graph.get("b").unwrap().blocks("a"));
        // When the last one has gone, the owner is looked at again.
        assert_eq!(uids(&graph.remove("b").delete), ["a"]);
        graph.upsert(&THINGS, &thing("x", &[], None));
        assert_eq!(
            uids(&graph.upsert(&THINGS, &thing("x", &[], Some(ORPHAN))).orphan),
            ["x"]
        );
    }

    #[test]
    fn losing_an_owner_unblocks_it() {
        let mut graph = Graph::default();
        graph.upsert(&THINGS, &thing("a", &[], Some(FOREGROUND)));
        graph.upsert(&THINGS, &thing("b", &["a"], None));
        assert_eq!(
            uids(&graph.upsert(&THINGS, &thing("b", &[], None)).delete),
            ["a"]
        );
        assert!(graph.get("a").unwrap().dependents.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Upsert(u8, Vec<u8>),
        Remove(u8),
    }

    proptest! {
        /// Whatever happens in whatever order, every object that is there is a dependent of exactly its owners.
        #[test]
        fn edges_agree_with_references(steps in proptest::collection::vec(prop_oneof![
            (0..6u8, proptest::collection::vec(0..6u8, 0..3)).prop_map(|(n, o)| Step::Upsert(n, o)),
            (0..6u8).prop_map(Step::Remove), Just(Step::Remove(0))], 0..60)) {
            let mut graph = Graph::default();
            graph.know([THINGS].iter());
            let mut truth: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Upsert(uid, mut owners) => {
                        owners.retain(|owner| *owner != uid);
                        let names: Vec<String> = owners.iter().map(ToString::to_string).collect();
                        let names: Vec<&str> = names.iter().map(String::as_str).collect();
                        graph.upsert(&THINGS, &thing(&uid.to_string(), &names, None));
                        truth.insert(uid, owners.into_iter().collect());
                    }
                    Step::Remove(uid) => {
                        let dependents: BTreeSet<String> = truth.iter().filter(|(_, o)| o.contains(&uid)).map(|(d, _)| d.to_string()).collect();
                        let known = truth.remove(&uid).is_some();
                        let work = graph.remove(&uid.to_string());
                        if known {
                            prop_assert!(dependents.is_subset(&work.delete));
                        }
                        // It is named as an owner still: the graph learns of it again from its dependents.
                        for dependent in truth.iter().filter(|(_, o)| o.contains(&uid)).map(|(d, _)| *d).collect::<Vec<_>>() {
                            let names: Vec<String> = truth[&dependent].iter().map(ToString::to_string).collect();
                            let names: Vec<&str> = names.iter().map(String::as_str).collect();
                            graph.upsert(&THINGS, &thing(&dependent.to_string(), &names, None));
                        }
                    }
                }
                for (uid, owners) in &truth {
                    for owner in owners {
                        let node = graph.get(&owner.to_string());
                        prop_assert!(node.is_some_and(|node| node.dependents.contains(&uid.to_string())));
                    }
                }
                let edges: usize = graph.nodes.values().map(|node| node.dependents.len()).sum();
                prop_assert_eq!(edges, truth.values().map(BTreeSet::len).sum::<usize>());
            }
            for uid in truth.keys().copied().collect::<Vec<_>>() {
                graph.remove(&uid.to_string());
            }
            // What is left are owners that nobody ever saw and that were removed before their dependents.
            prop_assert!(graph.len() <= 6);
        }
    }
}
