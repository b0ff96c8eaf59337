//! Kubernetes' patch algorithms over JSON and a schema: JSON patch, merge patch, strategic merge patch and server-side apply.
