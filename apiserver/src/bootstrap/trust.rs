//! What extension servers need to trust the clients that this server trusts.

use orlop_core::status::Status;
use serde_json::json;

use super::{Config, Server, copy};
use crate::names::{CONFIG_MAPS, text_at};

const NAME: &str = "extension-apiserver-authentication";
const KEY: &str = "client-ca-file";

/// The certificates of a PEM text.
fn certificates(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END)
        .filter_map(|part| {
            part.find("-----BEGIN CERTIFICATE-----")
                .map(|start| part[start..].to_owned())
        })
        .filter(|part| part.ends_with(END))
        .collect()
}

/// Publishes the authority of client certificates. Those of other servers stay.
pub(super) async fn publish(server: &Server<'_>, config: &Config) -> Result<(), Status> {
    let own = certificates(&config.client_ca);
    let bundle = |all: &[String]| all.iter().map(|one| format!("{one}\n")).collect::<String>();
    let data = if own.is_empty() {
        json!({})
    } else {
        json!({KEY: bundle(&own)})
    };
    let object = json!({"metadata": {"name": NAME, "namespace": "kube-system"}, "data": data});
    let Some(known) = server.ensure(&CONFIG_MAPS, &object).await? else {
        return Ok(());
    };
    let mut object = copy(&known)?;
    let mut all = certificates(text_at(&object, &format!("/data/{KEY}")));
    let missing: Vec<String> = own.into_iter().filter(|one| !all.contains(one)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    all.extend(missing);
    object["data"][KEY] = json!(bundle(&all));
    server.update(&CONFIG_MAPS, &object).await.map(|_| ())
}
