//! A kernel for tests: it has the sets and chains of one table, and is as strict as the real one about what refers to what.

use std::collections::{BTreeMap, BTreeSet};

use super::script::Script;

#[derive(Clone, Debug, Default)]
pub(super) struct Kernel {
    chains: BTreeMap<String, Vec<String>>,
    /// The elements, with what they lead to, beside what the set was made with.
    sets: BTreeMap<String, (String, BTreeMap<String, String>)>,
}

/// What a text refers to: sets and chains.
fn references(text: &str) -> (Vec<&str>, Vec<&str>) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let sets = words.iter().filter_map(|word| word.strip_prefix('@'));
    let jumps = words
        .windows(2)
        .filter(|pair| matches!(pair[0], "goto" | "jump"));
    (sets.collect(), jumps.map(|pair| pair[1]).collect())
}

impl Kernel {
    /// Runs a transaction.
    pub(super) fn run(&mut self, script: &Script) {
        if script.replace {
            *self = Self::default();
        }
        for chain in &script.flush {
            self.chains
                .get_mut(chain)
                .expect("a chain to be emptied")
                .clear();
        }
        for (container, keys) in &script.delete_elements {
            for key in keys {
                let (_, elements) = self.sets.get_mut(&*container.name()).expect("a set");
                assert!(
                    elements.remove(key).is_some(),
                    "no {key} in {}",
                    container.name()
                );
            }
        }
        for set in &script.delete_sets {
            assert!(!self.uses_set(set), "{set} is in use");
            assert!(self.sets.remove(set).is_some(), "no {set}");
        }
        for (_, name, body) in &script.add_sets {
            let old = self
                .sets
                .insert(name.clone(), (body.clone(), BTreeMap::new()));
            assert!(old.is_none(), "{name} is there already");
        }
        for (chain, _) in &script.add_chains {
            assert!(
                self.chains.insert(chain.clone(), Vec::new()).is_none(),
                "{chain} is there already"
            );
        }
        for (container, elements) in &script.add_elements {
            for (key, rest) in elements {
                for chain in references(rest).1 {
                    assert!(self.chains.contains_key(chain), "no {chain}");
                }
                let (_, known) = self.sets.get_mut(&*container.name()).expect("a set");
                let old = known.insert(key.clone(), rest.clone());
                assert_eq!(old, None, "{key} is in {} already", container.name());
            }
        }
        for (set, elements) in &script.fill_sets {
            let (_, known) = self.sets.get_mut(set).expect("a set");
            known.extend(elements.iter().map(|key| (key.clone(), String::new())));
        }
        for (chain, rule) in &script.add_rules {
            let (sets, chains) = references(rule);
            assert!(
                sets.iter().all(|set| self.sets.contains_key(*set)),
                "{rule}"
            );
            assert!(
                chains.iter().all(|chain| self.chains.contains_key(*chain)),
                "{rule}"
            );
            self.chains
                .get_mut(chain)
                .expect("a chain for a rule")
                .push(rule.clone());
        }
        for chain in &script.delete_chains {
            assert!(
                !self.used_chains().contains(chain.as_str()),
                "{chain} is in use"
            );
            assert_eq!(self.chains.remove(chain), Some(Vec::new()), "{chain}");
        }
    }

    fn uses_set(&self, set: &str) -> bool {
        let mut rules = self.chains.values().flatten();
        rules.any(|rule| references(rule).0.contains(&set))
    }

    fn used_chains(&self) -> BTreeSet<&str> {
        let rules = self.chains.values().flatten();
        let elements = self
            .sets
            .values()
            .flat_map(|(_, elements)| elements.values());
        rules
            .chain(elements)
            .flat_map(|text| references(text).1)
            .collect()
    }

    /// Chains that nothing leads to and that have no rules.
    pub(super) fn idle_chains(&self) -> usize {
        let used = self.used_chains();
        let mut chains = self.chains.iter();
        chains
            .by_ref()
            .filter(|(name, rules)| {
                name.contains('/') && rules.is_empty() && !used.contains(name.as_str())
            })
            .count()
    }

    /// What traffic sees: rules with what their numbers stand for, and sets. Two tables that show the same do the same.
    pub(super) fn shows(&self) -> BTreeMap<String, Vec<String>> {
        let used = self.used_chains();
        let mut numbered = 0;
        let mut shown = BTreeMap::new();
        for (name, rules) in &self.chains {
            if rules.is_empty() && !used.contains(name.as_str()) {
                continue;
            }
            let rules = rules.iter().map(|rule| {
                let words: Vec<&str> = rule.split_whitespace().collect();
                let Some(at) = words.iter().position(|word| *word == "numgen") else {
                    return rule.clone();
                };
                // numgen random mod COUNT offset FIRST map @NAME
                let number = |index: usize| words[at + index].parse::<u32>().unwrap();
                let (count, first) = (number(3), number(5));
                let map = &self.sets[words[at + 7].strip_prefix('@').unwrap()].1;
                numbered += count as usize;
                let targets = (first..first + count).map(|key| map[&key.to_string()].as_str());
                format!(
                    "{} among{}",
                    words[..at].join(" "),
                    targets.collect::<String>()
                )
            });
            shown.insert(format!("chain {name}"), rules.collect());
        }
        let mut numbers = 0;
        for (name, (body, elements)) in &self.sets {
            if name.contains("-endpoints-") {
                numbers += elements.len();
                continue;
            }
            let elements = elements.iter().map(|(key, rest)| format!("{key}{rest}"));
            shown.insert(format!("set {name} {body}"), elements.collect());
        }
        assert_eq!(numbers, numbered, "elements that no rule chooses");
        shown
    }
}
