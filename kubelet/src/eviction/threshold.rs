//! Thresholds: how little of something may be left.

use std::collections::BTreeMap;

use orlop_core::quantity::{Format, Quantity};

/// Something that can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// `memory.available`
    Memory,
    /// `nodefs.available`
    NodeFs,
    /// `nodefs.inodesFree`
    NodeFsInodes,
    /// `imagefs.available`
    ImageFs,
    /// `imagefs.inodesFree`
    ImageFsInodes,
    /// `containerfs.available`
    ContainerFs,
    /// `containerfs.inodesFree`
    ContainerFsInodes,
    /// `pid.available`
    Pid,
}

impl Signal {
    /// All there are; memory first, which is what is reclaimed first.
    pub const ALL: [Self; 8] = [
        Self::Memory,
        Self::NodeFs,
        Self::NodeFsInodes,
        Self::ImageFs,
        Self::ImageFsInodes,
        Self::ContainerFs,
        Self::ContainerFsInodes,
        Self::Pid,
    ];

    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory.available",
            Self::NodeFs => "nodefs.available",
            Self::NodeFsInodes => "nodefs.inodesFree",
            Self::ImageFs => "imagefs.available",
            Self::ImageFsInodes => "imagefs.inodesFree",
            Self::ContainerFs => "containerfs.available",
            Self::ContainerFsInodes => "containerfs.inodesFree",
            Self::Pid => "pid.available",
        }
    }

    /// What runs out, as messages name it.
    #[must_use]
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::NodeFs | Self::ImageFs | Self::ContainerFs => "ephemeral-storage",
            Self::NodeFsInodes | Self::ImageFsInodes | Self::ContainerFsInodes => "inodes",
            Self::Pid => "pids",
        }
    }
}

/// How much: a quantity, or a part of the whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Amount {
    /// So much.
    Quantity(Quantity),
    /// This part, between zero and one. Upstream has it in 32 bits, which can be seen in what a node allocates.
    Part(f32),
}

impl Amount {
    /// The amount, of a whole.
    #[must_use]
    pub fn of(&self, whole: i64) -> i64 {
        match self {
            Self::Quantity(quantity) => quantity.value(),
            // Cut off, not rounded.
            Self::Part(part) => (whole as f64 * f64::from(*part)) as i64,
        }
    }

    /// The amount as messages show it.
    pub(crate) fn show(&self, whole: i64) -> String {
        match self {
            Self::Quantity(quantity) => quantity.to_string(),
            Self::Part(_) => Quantity::new(self.of(whole), Format::BinarySi).to_string(),
        }
    }
}

/// A signal and how little of it may be left.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// What.
    pub signal: Signal,
    /// How little.
    pub amount: Amount,
}

impl Threshold {
    /// Reads one entry of `evictionHard`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(signal: &str, value: &str) -> Result<Self, String> {
        let known = Signal::ALL.into_iter().find(|one| one.as_str() == signal);
        let signal_known = known.ok_or_else(|| format!("unsupported eviction signal {signal}"))?;
        let amount = if let Some(percent) = value.strip_suffix('%') {
            let percent: f32 = percent
                .parse()
                .map_err(|_| format!("eviction threshold {signal} is no percentage: {value}"))?;
            if percent < 0.0 || !percent.is_finite() {
                return Err(format!(
                    "eviction percentage threshold {signal} must be >= 0%: {value}"
                ));
            }
            if percent > 100.0 {
                return Err(format!(
                    "eviction percentage threshold {signal} must be <= 100%: {value}"
                ));
            }
            Amount::Part(percent / 100.0)
        } else {
            let quantity = Quantity::parse(value)
                .map_err(|error| format!("eviction threshold {signal}: {value:?}: {error}"))?;
            if quantity.is_negative() {
                return Err(format!(
                    "eviction threshold {signal} must be positive: {value}"
                ));
            }
            Amount::Quantity(quantity)
        };
        Ok(Self {
            signal: signal_known,
            amount,
        })
    }

    /// Reads `evictionHard`. `0%` and `100%` switch a threshold off.
    ///
    /// # Errors
    /// What is wrong with the first entry that is.
    pub fn parse_all(entries: &BTreeMap<String, String>) -> Result<Vec<Self>, String> {
        let parsed: Result<Vec<_>, _> = entries
            .iter()
            .map(|(signal, value)| Self::parse(signal, value))
            .collect();
        let mut all = parsed?;
        all.retain(|one| !matches!(one.amount, Amount::Part(part) if part <= 0.0 || part >= 1.0));
        all.sort_by_key(|one| one.signal);
        Ok(all)
    }
}

/// How much of something there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What is left.
    pub available: i64,
    /// The whole.
    pub capacity: i64,
}

/// What was seen, by signal.
pub type Observations = BTreeMap<Signal, Observation>;

/// The thresholds that are crossed.
pub(super) fn met<'a>(thresholds: &'a [Threshold], seen: &Observations) -> Vec<&'a Threshold> {
    let crossed = |threshold: &&Threshold| {
        seen.get(&threshold.signal)
            .is_some_and(|one| one.available < threshold.amount.of(one.capacity))
    };
    thresholds.iter().filter(crossed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_quantities_or_parts() {
        let ok = |signal, value| Threshold::parse(signal, value).unwrap().amount;
        assert_eq!(ok("memory.available", "100Mi").of(1), 100 << 20);
        assert_eq!(
            ok("nodefs.available", "10%").of(12_040_970_240),
            1_204_097_041
        );
        assert_eq!(ok("imagefs.available", "15%").show(1 << 30), "161061280");
        assert_eq!(ok("pid.available", "1k").show(0), "1k");
        let refused = [
            (
                "disk.available",
                "1",
                "unsupported eviction signal disk.available",
            ),
            (
                "memory.available",
                "-1",
                "eviction threshold memory.available must be positive: -1",
            ),
            (
                "memory.available",
                "-1%",
                "eviction percentage threshold memory.available must be >= 0%: -1%",
            ),
            (
                "memory.available",
                "101%",
                "eviction percentage threshold memory.available must be <= 100%: 101%",
            ),
            (
                "memory.available",
                "x%",
                "eviction threshold memory.available is no percentage: x%",
            ),
        ];
        for (signal, value, want) in refused {
            assert_eq!(Threshold::parse(signal, value).unwrap_err(), want);
        }
        assert!(Threshold::parse("memory.available", "lots").is_err());
    }

    #[test]
    fn some_switch_a_threshold_off() {
        let entries = [
            ("pid.available", "0%"),
            ("nodefs.available", "1Gi"),
            ("memory.available", "5%"),
            ("imagefs.available", "100%"),
        ]
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .into();
        let all = Threshold::parse_all(&entries).unwrap();
        let signals: Vec<_> = all.iter().map(|one| one.signal).collect();
        assert_eq!(signals, [Signal::Memory, Signal::NodeFs]);
        let half = Observation {
            available: 50,
            capacity: 1000,
        };
        assert_eq!(
            met(&all, &[(Signal::Memory, half)].into()),
            [] as [&Threshold; 0],
            "just enough"
        );
        let less = Observation {
            available: 49,
            ..half
        };
        assert_eq!(met(&all, &[(Signal::Memory, less)].into()), [&all[0]]);
    }
}
