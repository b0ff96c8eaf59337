//! Amounts of resources, as the scheduler counts them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::quantity::Quantity;

/// Amounts of resources: what a pod asks for, what a node has, what is taken of it. Whole numbers, so that sums are exact; a pod's
/// requests are rounded up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `cpu`, in thousandths of a core.
    pub milli_cpu: i64,
    /// `memory`, in bytes.
    pub memory: i64,
    /// `ephemeral-storage`, in bytes.
    pub ephemeral_storage: i64,
    /// `pods`: every pod asks for one.
    pub pods: i64,
    /// Extended resources, huge pages and attachable volumes, in the order of their names. In units; in bytes for huge pages.
    pub scalar: Vec<(Arc<str>, i64)>,
}

impl Resources {
    /// The amounts of a list of quantities.
    #[must_use]
    pub fn from_quantities<'a>(list: impl IntoIterator<Item = (&'a String, &'a Quantity)>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli_value(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => resources.pods = quantity.value(),
                _ => resources
                    .scalar
                    .push((name.as_str().into(), quantity.value())),
            }
        }
        resources.scalar.sort_by(|a, b| a.0.cmp(&b.0));
        resources
    }

    /// The amount of an extended resource; zero if there is none.
    #[must_use]
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalar
            .binary_search_by(|(known, _)| (**known).cmp(name))
            .map_or(0, |at| self.scalar[at].1)
    }

    /// The amount of a resource by its name in the API: `cpu` in thousandths, everything else in units or bytes.
    #[must_use]
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            name => self.scalar(name),
        }
    }

    /// Adds, `sign` times (1 or −1).
    pub fn add(&mut self, other: &Self, sign: i64) {
        self.milli_cpu += sign * other.milli_cpu;
        self.memory += sign * other.memory;
        self.ephemeral_storage += sign * other.ephemeral_storage;
        self.pods += sign * other.pods;
        for (name, amount) in &other.scalar {
            match self.scalar.binary_search_by(|(known, _)| known.cmp(name)) {
                Ok(at) => self.scalar[at].1 += sign * amount,
                Err(at) => self.scalar.insert(at, (name.clone(), sign * amount)),
            }
        }
        self.scalar.retain(|(_, amount)| *amount != 0);
    }
}

/// [`Resources`] of all nodes of a [`Snapshot`](super::Snapshot), each resource in one column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceColumns {
    /// `cpu`, in thousandths of a core.
    pub milli_cpu: Vec<i64>,
    /// `memory`, in bytes.
    pub memory: Vec<i64>,
    /// `ephemeral-storage`, in bytes.
    pub ephemeral_storage: Vec<i64>,
    /// `pods`.
    pub pods: Vec<i64>,
    /// The others, by name. Every column is as long as the rest; a resource that no node ever had has none.
    pub scalar: BTreeMap<Arc<str>, Vec<i64>>,
}

impl ResourceColumns {
    /// Columns of zeros.
    pub(super) fn zeroed(rows: usize) -> Self {
        Self {
            milli_cpu: vec![0; rows],
            memory: vec![0; rows],
            ephemeral_storage: vec![0; rows],
            pods: vec![0; rows],
            scalar: BTreeMap::new(),
        }
    }

    /// The column of a resource by its name in the API, if any node has it.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&[i64]> {
        match name {
            "cpu" => Some(&self.milli_cpu),
            "memory" => Some(&self.memory),
            "ephemeral-storage" => Some(&self.ephemeral_storage),
            "pods" => Some(&self.pods),
            name => self.scalar.get(name).map(Vec::as_slice),
        }
    }

    /// One node's amount of an extended resource.
    #[must_use]
    pub fn scalar(&self, name: &str, row: usize) -> i64 {
        self.scalar.get(name).map_or(0, |column| column[row])
    }

    pub(super) fn row(&self, row: usize) -> Resources {
        Resources {
            milli_cpu: self.milli_cpu[row],
            memory: self.memory[row],
            ephemeral_storage: self.ephemeral_storage[row],
            pods: self.pods[row],
            scalar: self
                .scalar
                .iter()
                .filter(|(_, column)| column[row] != 0)
                .map(|(name, column)| (name.clone(), column[row]))
                .collect(),
        }
    }

    pub(super) fn set(&mut self, row: usize, resources: &Resources) {
        self.milli_cpu[row] = resources.milli_cpu;
        self.memory[row] = resources.memory;
        self.ephemeral_storage[row] = resources.ephemeral_storage;
        self.pods[row] = resources.pods;
        for column in self.scalar.values_mut() {
            column[row] = 0;
        }
        let rows = self.milli_cpu.len();
        for (name, amount) in &resources.scalar {
            match self.scalar.get_mut(name) {
                Some(column) => column[row] = *amount,
                None => {
                    let mut column = vec![0; rows];
                    column[row] = *amount;
                    self.scalar.insert(name.clone(), column);
                }
            }
        }
    }
}
