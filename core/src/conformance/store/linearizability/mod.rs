//! Linearizability: whatever clients do at the same time, there is one order in which it could have been done one after the other, and
//! that order agrees with what was answered before what was asked.

mod checker;
mod history;
mod load;
#[cfg(test)]
mod tests;

pub use self::checker::{Violation, check_linearizable};
pub use self::history::{Call, History, Operation, Outcome, Recorder, Recording, Value};
pub use self::load::{Load, record};
use super::{Checked, Context, Failure, Transactions, checks};

checks!(few_keys, one_key, many_clients);

async fn run(c: &Context, load: Load) -> Checked {
    let load = Load {
        transactions: c.subject.transactions != Transactions::None,
        ..load
    };
    let prefix = format!("{}k", c.prefix);
    let history = record(c.shared(), c.env().clone(), &prefix, &load).await?;
    check_linearizable(&history).map_err(|violation| Failure(violation.to_string()))
}

async fn few_keys(c: &Context) -> Checked {
    run(c, Load::default()).await
}

async fn one_key(c: &Context) -> Checked {
    let load = Load {
        keys: 1,
        ..Load::default()
    };
    run(c, load).await
}

async fn many_clients(c: &Context) -> Checked {
    let load = Load {
        clients: 16,
        operations: 25,
        keys: 3,
        ..Load::default()
    };
    run(c, load).await
}
