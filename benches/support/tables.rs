//! What a run beside etcd came to, as tables and beside the goals.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::support::Measured;

/// How many clients there are.
pub(crate) const CLIENTS: [usize; 3] = [1, 64, 512];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// A key is written.
    Put,
    /// A key is read.
    Get,
    /// A hundred keys are read.
    Range,
    /// A put and four gets, while there are watches.
    Mixed,
}

impl Operation {
    pub(crate) const ALL: [Self; 4] = [Self::Put, Self::Get, Self::Range, Self::Mixed];
}

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Range => "range",
            Self::Mixed => "mixed",
        })
    }
}

/// Whom is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Etcd,
    Orlop,
    Echo,
    InProcess,
    Disk,
}

impl Peer {
    const ALL: [Self; 5] = [
        Self::Etcd,
        Self::Orlop,
        Self::Echo,
        Self::InProcess,
        Self::Disk,
    ];
}

impl Display for Peer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::Orlop => "orlop",
            Self::Echo => "echo",
            Self::InProcess => "in-process",
            Self::Disk => "disk",
        })
    }
}

/// An operation, the bytes of a value, whom, and how many clients.
pub(crate) type Of = (Operation, usize, Peer, usize);

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Results(BTreeMap<Of, Measured>);

impl Results {
    pub(crate) fn keep(&mut self, of: Of, measured: Measured) {
        self.0.insert(of, measured);
    }

    /// How many times the rate of another's.
    fn ratio(
        &self,
        (operation, value, clients): (Operation, usize, usize),
        of: Peer,
        to: Peer,
    ) -> Option<f64> {
        let rate = |peer| Some(self.0.get(&(operation, value, peer, clients))?.rate);
        Some(rate(of)? / rate(to)?)
    }

    fn table(&self, f: &mut Formatter<'_>, operation: Operation, value: usize) -> fmt::Result {
        write!(f, "\n| {operation}, {value} B: a second; p50, p99 |")?;
        CLIENTS
            .iter()
            .try_for_each(|clients| write!(f, " {clients} |"))?;
        writeln!(f, "\n|---|---|---|---|")?;
        for peer in Peer::ALL {
            let cells = CLIENTS.map(|clients| self.0.get(&(operation, value, peer, clients)));
            if cells.iter().all(Option::is_none) {
                continue;
            }
            write!(f, "| {peer} |")?;
            for cell in cells {
                match cell {
                    Some(measured) => {
                        let (p50, p99) = (Time(measured.p50), Time(measured.p99));
                        write!(f, " {}; {p50}, {p99} |", Thousands(measured.rate))?;
                    }
                    None => write!(f, " |")?,
                }
            }
            writeln!(f)?;
        }
        for (of, to) in [
            (Peer::Orlop, Peer::Etcd),
            (Peer::Orlop, Peer::Echo),
            (Peer::InProcess, Peer::Etcd),
        ] {
            let cells = CLIENTS.map(|clients| self.ratio((operation, value, clients), of, to));
            if cells.iter().any(Option::is_some) {
                write!(f, "| {of} : {to} |")?;
                for cell in cells {
                    match cell {
                        Some(ratio) => write!(f, " {ratio:.2} |")?,
                        None => write!(f, " |")?,
                    }
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }

    fn goals(&self, f: &mut Formatter<'_>) -> fmt::Result {
        use Operation::{Get, Mixed, Put, Range};
        let (small, large) = (256, 1024);
        let mut goals = Vec::new();
        for value in [small, large] {
            goals.push((Put, value, 512, Peer::Orlop, Peer::Etcd, 2.0));
        }
        for clients in CLIENTS {
            goals.push((Put, small, clients, Peer::Orlop, Peer::Echo, 0.8));
            goals.push((Get, small, clients, Peer::Orlop, Peer::Echo, 0.8));
        }
        for operation in [Put, Get, Range, Mixed] {
            goals.push((operation, small, 1, Peer::Orlop, Peer::Etcd, 1.0));
        }
        goals.push((Put, small, 512, Peer::InProcess, Peer::Etcd, 20.0));
        writeln!(f, "\n| goal | | came to |\n|---|---|---|")?;
        for (operation, value, clients, of, to, least) in goals {
            if let Some(ratio) = self.ratio((operation, value, clients), of, to) {
                let verdict = if ratio >= least { "met" } else { "missed" };
                let what = format!("{operation}, {value} B, {clients} clients");
                writeln!(
                    f,
                    "| {what}: {of} : {to} | ≥ {least} | {ratio:.2}, {verdict} |"
                )?;
            }
        }
        for value in [small, large] {
            for clients in CLIENTS {
                let p99 = |peer| Some(self.0.get(&(Put, value, peer, clients))?.p99.as_secs_f64());
                if let (Some(commit), Some(sync)) = (p99(Peer::InProcess), p99(Peer::Disk)) {
                    let ratio = commit / sync;
                    let verdict = if ratio <= 3.0 { "met" } else { "missed" };
                    let what = format!("put, {value} B, {clients} clients, p99");
                    writeln!(
                        f,
                        "| {what}: in-process : disk | ≤ 3 | {ratio:.2}, {verdict} |"
                    )?;
                }
            }
        }
        Ok(())
    }
}

impl Display for Results {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut tables: Vec<_> = self.0.keys().map(|of| (of.0, of.1)).collect();
        tables.dedup();
        for (operation, value) in tables {
            self.table(f, operation, value)?;
        }
        self.goals(f)
    }
}

/// A time in milliseconds, or in microseconds where it is short.
struct Time(Duration);

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_secs_f64() * 1e6;
        match micros {
            ..10.0 => write!(f, "{micros:.1} µs"),
            ..1_000.0 => write!(f, "{micros:.0} µs"),
            ..10_000.0 => write!(f, "{:.1} ms", micros / 1e3),
            _ => write!(f, "{:.0} ms", micros / 1e3),
        }
    }
}

/// A number with its thousands apart.
struct Thousands(f64);

impl Display for Thousands {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let digits = format!("{:.0}", self.0);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at) % 3 == 0 {
                write!(f, ",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}
