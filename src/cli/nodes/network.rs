//! The cables between the nodes of one machine: a bridge, a cable from it to every node, routes to the pods of the others, and a way
//! out.

use std::collections::BTreeMap;

use orlop::core::network::Cidr;

use super::layout::{Layout, NodeLayout};
use super::namespace::{self, feed, ip, run};
use crate::cli::Failure;

/// Makes the bridge, with this machine's address on it, and lets the nodes out to where this machine can go.
pub(super) fn ensure_bridge(layout: &Layout) -> Result<(), Failure> {
    let bridge = layout.bridge();
    if run("ip", &["link", "show", "dev", &bridge]).is_err() {
        ip(&["link", "add", &bridge, "type", "bridge"])?;
    }
    let address = format!("{}/24", layout.gateway());
    ip(&["addr", "replace", &address, "dev", &bridge])?;
    ip(&["link", "set", &bridge, "up"])?;
    namespace::set("ipv4/ip_forward", "1")?;
    let nodes = layout.nodes();
    nft(&masquerade(
        &table(layout),
        &format!("ip saddr {nodes} oifname != \"{bridge}\""),
    ))
}

/// A script that makes a table, anew if it is there, which lets what matches out under the address of this side.
fn masquerade(table: &str, matches: &str) -> String {
    format!(
        "table ip {table}
delete table ip {table}
table ip {table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {matches} masquerade
  }}
}}
"
    )
}

fn table(layout: &Layout) -> String {
    format!("orlop-{}", layout.id)
}

/// Removes the bridge and the way out.
pub(super) fn remove_bridge(layout: &Layout) -> Result<(), Failure> {
    let (bridge, table) = (layout.bridge(), table(layout));
    nft(&format!("table ip {table}\ndelete table ip {table}\n"))?;
    if run("ip", &["link", "show", "dev", &bridge]).is_ok() {
        ip(&["link", "del", &bridge])?;
    }
    Ok(())
}

/// Makes a node's network: its namespace, its cable, its address, its way out.
pub(super) fn ensure_node(layout: &Layout, node: &NodeLayout) -> Result<(), Failure> {
    let inside = &node.namespace;
    inside.ensure()?;
    if run("ip", &["-n", inside.name(), "link", "show", "dev", "eth0"]).is_err() {
        let cable = [
            "link",
            "add",
            &node.outside,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
        ];
        let mut cable = cable.to_vec();
        cable.push(inside.name());
        ip(&cable)?;
    }
    ip(&[
        "link",
        "set",
        &node.outside,
        "master",
        &layout.bridge(),
        "up",
    ])?;
    inside.ip(&[
        "addr",
        "replace",
        &format!("{}/24", node.address),
        "dev",
        "eth0",
    ])?;
    inside.ip(&["link", "set", "eth0", "up"])?;
    inside.ip(&[
        "route",
        "replace",
        "default",
        "via",
        &layout.gateway().to_string(),
    ])?;
    inside.set("ipv4/ip_forward", "1")?;
    // Pods go out by the node's address. To pods and nodes they go by their own.
    let (nodes, pods) = (layout.nodes(), layout.pods());
    let script = masquerade(
        "orlop",
        &format!("ip saddr {pods} ip daddr != {pods} ip daddr != {nodes} oifname \"eth0\""),
    );
    inside.enter(|| nft(&script))?
}

/// Leads to the pods of every node, from this machine and from all other nodes.
pub(super) fn route(
    nodes: &[NodeLayout],
    ranges: &BTreeMap<String, Vec<Cidr>>,
) -> Result<(), Failure> {
    for to in nodes {
        for range in ranges.get(&to.name).into_iter().flatten() {
            let (range, via) = (range.to_string(), to.address.to_string());
            let words = ["route", "replace", &range, "via", &via];
            ip(&words)?;
            for from in nodes.iter().filter(|from| from.name != to.name) {
                from.namespace.ip(&words)?;
            }
        }
    }
    Ok(())
}

/// Removes a node's network.
pub(super) fn remove_node(node: &NodeLayout) -> Result<(), Failure> {
    node.namespace.remove()?;
    // The cable goes with the namespace, but not at once.
    if run("ip", &["link", "show", "dev", &node.outside]).is_ok() {
        let _ = ip(&["link", "del", &node.outside]);
    }
    Ok(())
}

fn nft(script: &str) -> Result<(), Failure> {
    feed("nft", &["-f", "-"], script).map(drop)
}
