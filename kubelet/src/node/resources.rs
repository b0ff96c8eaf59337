//! What the node has, and what of it pods may have.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use orlop_core::quantity::{Format, Quantity};

use super::MachineInfo;
use crate::config::KubeletConfig;
use crate::eviction::Threshold;

/// Amounts by the name of the resource.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// What there is.
pub(super) fn capacity(machine: &MachineInfo, max_pods: u32) -> Amounts {
    let bytes =
        |bytes: u64| Quantity::new(i64::try_from(bytes).unwrap_or(i64::MAX), Format::BinarySi);
    let count =
        |count: u64| Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi);
    let mut all = Amounts::from([
        ("cpu".to_owned(), count(machine.cpus)),
        ("memory".to_owned(), bytes(machine.memory)),
        (
            "ephemeral-storage".to_owned(),
            bytes(machine.ephemeral_storage),
        ),
        ("pods".to_owned(), count(u64::from(max_pods))),
    ]);
    for (size, pages) in &machine.hugepages {
        all.insert(
            format!("hugepages-{}", bytes(*size)),
            bytes(size.saturating_mul(*pages)),
        );
    }
    all
}

/// What pods may have: what there is without what is reserved, what is kept free by eviction at once, and, of memory, without huge
/// pages.
pub(super) fn allocatable(capacity: &Amounts, config: &KubeletConfig) -> Amounts {
    let mut all = capacity.clone();
    let mut take = |name: &str, amount: &Quantity| {
        if let Some(left) = all.get_mut(name) {
            *left -= amount;
            if left.is_negative() {
                *left = Quantity::ZERO.with_format(left.format());
            }
        }
    };
    for reserved in [&config.system_reserved, &config.kube_reserved] {
        for (name, amount) in reserved {
            match Quantity::parse(amount) {
                Ok(amount) => take(name, &amount),
                Err(error) => {
                    tracing::warn!(resource = name, %error, "a reservation is no quantity")
                }
            }
        }
    }
    for (signal, resource) in [
        ("memory.available", "memory"),
        ("nodefs.available", "ephemeral-storage"),
    ] {
        let threshold = config
            .eviction_hard
            .get(signal)
            .map(|value| Threshold::parse(signal, value));
        if let (Some(Ok(threshold)), Some(whole)) = (threshold, capacity.get(resource)) {
            let kept = threshold.amount.of(whole.value());
            take(resource, &Quantity::new(kept, Format::BinarySi));
        }
    }
    let huge: Vec<_> = capacity
        .iter()
        .filter(|(name, _)| name.starts_with("hugepages-"))
        .collect();
    for (_, amount) in huge {
        take("memory", amount);
    }
    all
}

/// The same as the API has it.
pub(super) fn to_api(amounts: &Amounts) -> BTreeMap<String, ApiQuantity> {
    let pairs = amounts.iter();
    pairs
        .map(|(name, amount)| (name.clone(), ApiQuantity(amount.to_string())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(amounts: &Amounts) -> Vec<String> {
        amounts
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect()
    }

    #[test]
    fn the_numbers_are_those_of_a_real_node() {
        let machine = MachineInfo {
            hugepages: BTreeMap::from([(2 << 20, 0)]),
            ..MachineInfo::simulated(2, 2_014_968 << 10, 11_758_760 << 10)
        };
        let capacity = capacity(&machine, 110);
        assert_eq!(
            text(&capacity),
            [
                "cpu=2",
                "ephemeral-storage=11758760Ki",
                "hugepages-2Mi=0",
                "memory=2014968Ki",
                "pods=110"
            ]
        );
        let allocatable = allocatable(&capacity, &KubeletConfig::new("n1"));
        // Ten percent are a little more than that: upstream counts with 32 bits.
        assert_eq!(
            text(&allocatable),
            [
                "cpu=2",
                "ephemeral-storage=10836873199",
                "hugepages-2Mi=0",
                "memory=1912568Ki",
                "pods=110"
            ]
        );
    }

    #[test]
    fn reservations_and_huge_pages_are_taken_away() {
        let machine = MachineInfo {
            hugepages: BTreeMap::from([(2 << 20, 512)]),
            ..MachineInfo::simulated(4, 8 << 30, 1 << 40)
        };
        let mut config = KubeletConfig::new("n1");
        config.system_reserved = [("cpu", "200m"), ("memory", "1Gi"), ("pid", "100")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into();
        config.kube_reserved = [("cpu", "9"), ("memory", "512Mi")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into();
        config.eviction_hard = [("memory.available", "512Mi"), ("nodefs.available", "1Gi")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into();
        let all = allocatable(&capacity(&machine, 10), &config);
        assert_eq!(
            text(&all),
            [
                "cpu=0",
                "ephemeral-storage=1023Gi",
                "hugepages-2Mi=1Gi",
                "memory=5Gi",
                "pods=10"
            ]
        );
    }
}
