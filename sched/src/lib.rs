//! The Kubernetes scheduling framework: queue, cache, snapshot in columns and the in-tree plugins.
