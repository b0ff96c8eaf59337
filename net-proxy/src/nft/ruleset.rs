//! [`Ruleset`]: what the kernel has, and how it becomes what it should have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use orlop_core::env::Moment;
use orlop_core::network::Protocol;
use orlop_core::object::ObjectKey;

use super::pool::{Pool, Slots};
use super::rules::{Block, Choice, translate};
use super::script::{Container, Script, address_type};
use super::table::{self, Settings};
use crate::config::Family;
use crate::view::{PortName, PortView, protocol_word};

/// How long a chain is kept that nothing leads to any more. Kernels before 6.2 notice late that an element of a map no longer does.
pub(super) const KEEP_STALE: Duration = Duration::from_secs(1);

/// The table of one family.
#[derive(Debug)]
pub(super) struct Ruleset {
    settings: Settings,
    ports: BTreeMap<ObjectKey, BTreeMap<Arc<PortName>, Placed>>,
    /// Who wants which element, in order of names, with what follows the key. The first one has it: no two ports can.
    claims: BTreeMap<At, Vec<(Arc<PortName>, String)>>,
    endpoints: BTreeMap<Protocol, Pool>,
    chains: Pool,
    /// Chains that are empty and can be deleted, with the moment from which on.
    stale: BTreeMap<String, Moment>,
}

/// The rules of a port, with numbers given.
#[derive(Debug, Default)]
struct Placed {
    block: Block,
    slots: BTreeMap<String, Slots>,
}

/// Which map a choice is looked up in.
fn container(choice: &Choice, slots: Slots) -> Container {
    match choice {
        Choice::Endpoints(protocol, _) => Container::Endpoints(*protocol, slots.part),
        Choice::Chains(_) => Container::AffinityEndpoints(slots.part),
    }
}

/// The ports of Services; none for one that is gone.
type Told<'a> = BTreeMap<&'a ObjectKey, &'a [PortView]>;
/// An element: where, and its key.
type At = (Container, String);
/// Elements whose owner may have changed, with what the kernel has of them.
type Touched = BTreeMap<At, Option<String>>;

impl Ruleset {
    /// A table with all these Services, and the transaction that makes it, whatever was there before.
    pub(super) fn new(
        settings: Settings,
        services: &BTreeMap<ObjectKey, Vec<PortView>>,
        now: Moment,
    ) -> (Self, Script) {
        let mut script = table::skeleton(&settings);
        let mut new = Self {
            settings,
            ports: BTreeMap::new(),
            claims: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            chains: Pool::default(),
            stale: BTreeMap::new(),
        };
        let told = services.iter().map(|(key, views)| (key, views.as_slice()));
        new.update(&told.collect(), now, &mut script);
        (new, script)
    }

    /// Whether it was made with these settings.
    pub(super) fn has_settings(&self, settings: &Settings) -> bool {
        self.settings == *settings
    }

    /// The transaction that brings these Services up to date. With `all`, there shall be no others.
    pub(super) fn change(
        &mut self,
        services: &BTreeMap<ObjectKey, Vec<PortView>>,
        all: bool,
        now: Moment,
    ) -> Script {
        let mut script = Script::default();
        // What goes and what comes is one update: an element may go from one port to another.
        let mut told: Told<'_> = BTreeMap::new();
        let known: Vec<ObjectKey> = if all {
            self.ports.keys().cloned().collect()
        } else {
            Vec::new()
        };
        told.extend(known.iter().map(|key| (key, &[][..])));
        told.extend(services.iter().map(|(key, views)| (key, views.as_slice())));
        self.update(&told, now, &mut script);
        script
    }

    /// The sets of clients that there are.
    pub(super) fn affinity_sets(&self) -> BTreeMap<&str, u32> {
        let blocks = self.ports.values().flat_map(BTreeMap::values);
        let sets = blocks.flat_map(|placed| &placed.block.affinity_sets);
        sets.map(|(name, &seconds)| (name.as_str(), seconds))
            .collect()
    }

    /// Whether chains wait to be deleted, and from when on the first can be.
    pub(super) fn next_stale(&self) -> Option<Moment> {
        self.stale.values().min().copied()
    }

    /// Takes the chains that can be deleted.
    pub(super) fn take_stale(&mut self, now: Moment) -> Vec<String> {
        let due = self.stale.iter().filter(|&(_, &from)| from <= now);
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        self.stale.retain(|_, from| *from > now);
        due
    }

    /// Puts back chains that could not be deleted.
    pub(super) fn keep_stale(&mut self, chains: Vec<String>, until: Moment) {
        self.stale
            .extend(chains.into_iter().map(|chain| (chain, until)));
    }

    fn update(&mut self, services: &Told<'_>, now: Moment, script: &mut Script) {
        let mut touched = Touched::new();
        for (&key, &views) in services {
            let mut known = self.ports.remove(key).unwrap_or_default();
            let mut kept = BTreeMap::new();
            // Ports that are gone give their numbers back before others take some.
            let wanted: BTreeSet<&PortName> = views.iter().map(|view| &*view.name).collect();
            known.retain(|name, placed| {
                let stays = wanted.contains(&**name);
                if !stays {
                    let old = std::mem::take(placed);
                    self.replace(name, old, Block::default(), now, script, &mut touched);
                }
                stays
            });
            for view in views {
                let block = translate(view, &self.settings);
                let old = known.remove(&view.name).unwrap_or_default();
                let placed = if old.block == block {
                    old
                } else {
                    self.replace(&view.name, old, block, now, script, &mut touched)
                };
                kept.insert(view.name.clone(), placed);
            }
            if !kept.is_empty() {
                self.ports.insert(key.clone(), kept);
            }
        }
        for ((container, key), before) in touched {
            let claims = self.claims.get(&(container, key.clone()));
            let after = claims
                .and_then(|claims| claims.first())
                .map(|(_, rest)| rest);
            if before.as_ref() == after {
                continue;
            }
            if before.is_some() {
                script
                    .delete_elements
                    .entry(container)
                    .or_default()
                    .push(key.clone());
            }
            if let Some(rest) = after {
                script
                    .add_elements
                    .entry(container)
                    .or_default()
                    .push((key, rest.clone()));
            }
        }
    }

    /// Replaces the rules of one port.
    fn replace(
        &mut self,
        name: &Arc<PortName>,
        mut old: Placed,
        block: Block,
        now: Moment,
        script: &mut Script,
        touched: &mut Touched,
    ) -> Placed {
        let mut slots = BTreeMap::new();
        // A set that keeps clients for another time is another set: what uses it is written again.
        let rewrite = old.block.affinity_sets.iter().any(|(name, seconds)| {
            let new = block.affinity_sets.get(name);
            new.is_some_and(|new| new != seconds)
        });
        for (chain, gone) in &old.block.chains {
            if block.chains.contains_key(chain) {
                continue;
            }
            script.flush.push(chain.clone());
            self.stale.insert(chain.clone(), now + KEEP_STALE);
            if let (Some(choice), Some(given)) = (&gone.choice, old.slots.remove(chain)) {
                self.empty(choice, given, script);
            }
        }
        for (chain, new) in &block.chains {
            let known = old.block.chains.get(chain);
            if known == Some(new) && !rewrite {
                if let Some(given) = old.slots.remove(chain) {
                    slots.insert(chain.clone(), given);
                }
                continue;
            }
            let before = old.slots.remove(chain);
            let given = self.number(
                known.and_then(|known| known.choice.as_ref()).zip(before),
                new.choice.as_ref(),
                script,
            );
            let rendered = |rules: &[String], choice: Option<&Choice>, slots: Option<Slots>| {
                let mut rules = rules.to_vec();
                rules.extend(choice.map(|choice| render(self.settings.family, choice, slots)));
                rules
            };
            let rules = rendered(&new.rules, new.choice.as_ref(), given);
            let same = !rewrite
                && known.is_some_and(|known| {
                    rules == rendered(&known.rules, known.choice.as_ref(), before)
                });
            if !same {
                if known.is_some() {
                    script.flush.push(chain.clone());
                } else if self.stale.remove(chain).is_none() {
                    script.add_chains.push((chain.clone(), None));
                }
                script
                    .add_rules
                    .extend(rules.into_iter().map(|rule| (chain.clone(), rule)));
            }
            if let Some(given) = given {
                slots.insert(chain.clone(), given);
            }
        }
        self.sets(&old.block, &block, script);
        self.claim(name, &old.block, &block, touched);
        Placed { block, slots }
    }

    /// Gives a choice its numbers, those that it had if they suffice, and brings the elements up to date.
    fn number(
        &mut self,
        old: Option<(&Choice, Slots)>,
        new: Option<&Choice>,
        script: &mut Script,
    ) -> Option<Slots> {
        // One needs no number.
        let new = new.filter(|choice| choice.len() > 1);
        let Some(new) = new else {
            if let Some((choice, slots)) = old {
                self.empty(choice, slots, script);
            }
            return None;
        };
        if let Some((choice, slots)) = old
            && std::mem::discriminant(choice) == std::mem::discriminant(new)
            && new.len() <= slots.capacity as usize
        {
            let container = container(new, slots);
            for index in 0..choice.len().max(new.len()) {
                let (before, after) = (choice.element(index), new.element(index));
                if before == after {
                    continue;
                }
                let key = (slots.offset + index as u32).to_string();
                if before.is_some() {
                    script
                        .delete_elements
                        .entry(container)
                        .or_default()
                        .push(key.clone());
                }
                if let Some(rest) = after {
                    script
                        .add_elements
                        .entry(container)
                        .or_default()
                        .push((key, rest));
                }
            }
            return Some(slots);
        }
        if let Some((choice, slots)) = old {
            self.empty(choice, slots, script);
        }
        let pool = match new {
            Choice::Endpoints(protocol, _) => self.endpoints.entry(*protocol).or_default(),
            Choice::Chains(_) => &mut self.chains,
        };
        let before = pool.parts();
        let slots = pool.take(new.len());
        let container = container(new, slots);
        if pool.parts() > before {
            script
                .add_sets
                .push(numbered(self.settings.family, container));
        }
        let elements = (0..new.len()).filter_map(|index| {
            let key = (slots.offset + index as u32).to_string();
            Some((key, new.element(index)?))
        });
        script
            .add_elements
            .entry(container)
            .or_default()
            .extend(elements);
        Some(slots)
    }

    /// Takes numbers back, and the elements with them.
    fn empty(&mut self, choice: &Choice, slots: Slots, script: &mut Script) {
        let keys = (0..choice.len()).map(|index| (slots.offset + index as u32).to_string());
        let container = container(choice, slots);
        script
            .delete_elements
            .entry(container)
            .or_default()
            .extend(keys);
        match choice {
            Choice::Endpoints(protocol, _) => {
                self.endpoints
                    .entry(*protocol)
                    .or_default()
                    .give_back(slots);
            }
            Choice::Chains(_) => self.chains.give_back(slots),
        }
    }

    fn sets(&self, old: &Block, new: &Block, script: &mut Script) {
        let address = address_type(self.settings.family);
        for (name, seconds) in &old.affinity_sets {
            if new.affinity_sets.get(name) != Some(seconds) {
                script.delete_sets.push(name.clone());
            }
        }
        for (name, &seconds) in &new.affinity_sets {
            if old.affinity_sets.get(name) != Some(&seconds) {
                let body = format!("type {address} ; flags dynamic,timeout ; timeout {seconds}s ;");
                script.add_sets.push(("set", name.clone(), body));
            }
        }
    }

    fn claim(&mut self, name: &Arc<PortName>, old: &Block, new: &Block, touched: &mut Touched) {
        let changed = |one: &Block, other: &Block| -> Vec<At> {
            let elements = one.elements.iter();
            let changed = elements.filter(|(at, rest)| other.elements.get(at) != Some(rest));
            changed.map(|(at, _)| at.clone()).collect()
        };
        for at in changed(old, new) {
            self.touch(&at, touched);
            if let Some(claims) = self.claims.get_mut(&at) {
                claims.retain(|(owner, _)| owner != name);
                if claims.is_empty() {
                    self.claims.remove(&at);
                }
            }
        }
        for at in changed(new, old) {
            self.touch(&at, touched);
            let rest = new.elements[&at].clone();
            let claims = self.claims.entry(at).or_default();
            let index = claims.partition_point(|(owner, _)| owner < name);
            claims.insert(index, (name.clone(), rest));
        }
    }

    fn touch(&self, at: &At, touched: &mut Touched) {
        if !touched.contains_key(at) {
            let claims = self.claims.get(at).and_then(|claims| claims.first());
            touched.insert(at.clone(), claims.map(|(_, rest)| rest.clone()));
        }
    }
}

/// A map for numbers.
pub(super) fn numbered(family: Family, container: Container) -> (&'static str, String, String) {
    let ip = super::script::family_word(family);
    let to = match container {
        Container::Endpoints(protocol, _) => {
            format!("{ip} daddr . {} dport", protocol_word(protocol))
        }
        _ => "verdict".to_owned(),
    };
    let body = format!("typeof numgen random mod 1 : {to} ;");
    ("map", container.name().into_owned(), body)
}

/// The rule that chooses.
fn render(family: Family, choice: &Choice, slots: Option<Slots>) -> String {
    let ip = super::script::family_word(family);
    let number = |slots: Slots| {
        let container = container(choice, slots).name();
        let count = choice.len();
        (
            format!("numgen random mod {count} offset {}", slots.offset),
            container,
        )
    };
    match (choice, slots.map(number)) {
        (Choice::Endpoints(protocol, _), Some((number, map))) => format!(
            "meta l4proto {} dnat {ip} to {number} map @{map}",
            protocol_word(*protocol)
        ),
        (Choice::Endpoints(protocol, endpoints), None) => {
            let to = endpoints.first().map(SocketAddr::to_string);
            let protocol = protocol_word(*protocol);
            format!("meta l4proto {protocol} dnat to {}", to.unwrap_or_default())
        }
        (Choice::Chains(_), Some((number, map))) => format!("{number} vmap @{map}"),
        (Choice::Chains(chains), None) => {
            format!("goto {}", chains.first().map_or("", String::as_str))
        }
    }
}
