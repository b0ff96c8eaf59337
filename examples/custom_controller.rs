//! A controller of one's own: every ConfigMap that is labelled `greet` gets another one with a greeting, which goes with it.
//!
//! `cargo run --example custom_controller`

use std::time::Duration;

use async_trait::async_trait;
use orlop::ControlPlane;
use orlop::core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop::core::object::ObjectKey;
use orlop::core::resource::Resource;
use serde_json::json;

const MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");

struct Greeter;

#[async_trait]
impl Controller for Greeter {
    fn name(&self) -> &str {
        "greeter"
    }

    fn interests(&self) -> Interests {
        Interests::new().for_each(MAPS).owns(MAPS)
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(subject) = ctx.store(&MAPS).get(key) else {
            return Ok(Action::Done);
        };
        let Some(whom) = subject.metadata().labels.get("greet") else {
            return Ok(Action::Done);
        };
        let name = format!("{}-greeting", key.name);
        if subject.is_terminating()
            || ctx
                .store(&MAPS)
                .get(&ObjectKey::new(&key.namespace, &name))
                .is_some()
        {
            return Ok(Action::Done);
        }
        let greeting = json!({
            "metadata": {"name": name, "ownerReferences": [ctx.owned_by(&subject)]},
            "data": {"text": format!("Hello, {whom}!")},
        });
        ctx.client()
            .resource(&MAPS)
            .namespace(&key.namespace)
            .create(&greeting)
            .await?;
        ctx.events().normal(&subject, "Greeted", "Made a greeting");
        Ok(Action::Done)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plane = ControlPlane::builder()
        .in_memory()
        .with_defaults()
        .controller(Greeter)
        .start()
        .await?;
    let client = plane.admin();
    let maps = client.resource(&MAPS).namespace("default");
    maps.create(&json!({"metadata": {"name": "world", "labels": {"greet": "world"}}}))
        .await?;
    let greeting = loop {
        match maps.find("world-greeting").await? {
            Some(greeting) => break greeting,
            None => plane.env().sleep(Duration::from_millis(20)).await,
        }
    };
    println!("{}", greeting.value()?["data"]["text"]);

    maps.delete("world", Default::default()).await?;
    while maps.find("world-greeting").await?.is_some() {
        plane.env().sleep(Duration::from_millis(20)).await;
    }
    println!("the greeting went with its subject");
    plane.shutdown().await;
    Ok(())
}
