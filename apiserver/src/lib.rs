//! The Kubernetes API as a tower service: authentication, authorization, admission, registry, watch cache, discovery.
