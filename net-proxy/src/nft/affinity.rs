//! Who stays with which endpoint, read back before a table is made anew.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

use super::script::{TABLE, family_word};
use crate::Error;
use crate::config::Family;
use crate::exec::Exec;

/// The most that is read, in bytes: some hundred thousand clients. With more, clients choose anew.
const MOST: usize = 64 << 20;
const LIMIT: Duration = Duration::from_secs(30);

/// What `nft --json` says.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    set: Option<Set>,
}

#[derive(Deserialize)]
struct Set {
    name: String,
    table: String,
    #[serde(default)]
    elem: Vec<Element>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Element {
    Timed { elem: Timed },
    // What has no timeout is not ours.
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Timed {
    val: IpAddr,
    expires: u64,
}

/// The elements of those of the wanted sets that there are. A client is kept for what was left of its time, but no longer than now
/// allowed.
pub(super) async fn read(
    exec: &Exec,
    nft: &str,
    family: Family,
    wanted: &BTreeMap<&str, u32>,
) -> Result<Vec<(String, Vec<String>)>, Error> {
    let arguments = ["--json", "list", "sets", family_word(family)];
    let listed = exec.run(nft, &arguments, "", MOST, LIMIT).await?;
    let listing: Listing = serde_json::from_slice(&listed)
        .map_err(|error| Error::Backend(format!("nft wrote no list: {error}")))?;
    let mut found = Vec::new();
    for set in listing.nftables.into_iter().filter_map(|item| item.set) {
        let Some(&seconds) = wanted.get(set.name.as_str()).filter(|_| set.table == TABLE) else {
            continue;
        };
        let clients = set.elem.into_iter().filter_map(|element| match element {
            Element::Timed { elem } if Family::of(elem.val) == family => {
                let left = elem.expires.min(u64::from(seconds));
                (left > 0).then(|| format!("{} expires {left}s", elem.val))
            }
            _ => None,
        });
        let clients: Vec<String> = clients.collect();
        if !clients.is_empty() {
            found.push((set.name, clients));
        }
    }
    Ok(found)
}
