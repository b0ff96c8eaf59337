//! `DefaultBinder`: binds through the API.

use futures::future::BoxFuture;
use orlop_core::resource::Resource;
use orlop_core::scheduling::{Bind, BindContext, CycleState, SchedulerPlugin, Verdict};
use serde_json::json;

const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");

/// Binds a pod by posting to its `binding` subresource. The pod's uid goes along, so that a pod that was deleted and made anew in the
/// meantime is not bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultBinder;

impl SchedulerPlugin for DefaultBinder {
    fn name(&self) -> &str {
        "DefaultBinder"
    }

    fn as_bind(&self) -> Option<&dyn Bind> {
        Some(self)
    }
}

impl Bind for DefaultBinder {
    fn bind<'a>(
        &'a self,
        _: &'a mut CycleState,
        context: &'a BindContext,
    ) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            let pod = &context.pod;
            let mut metadata = json!({"name": pod.name(), "namespace": pod.namespace()});
            if !pod.uid().is_empty() {
                metadata["uid"] = json!(&**pod.uid());
            }
            let binding = json!({
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": metadata,
                "target": {"kind": "Node", "name": &*context.node},
            });
            let pods = context.client.resource(&PODS).namespace(pod.namespace());
            match pods
                .create_subresource(pod.name(), "binding", &binding)
                .await
            {
                Ok(_) => Verdict::Success,
                Err(status) => Verdict::Error(status.into()),
            }
        })
    }
}
