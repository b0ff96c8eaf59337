//! Kubernetes' controllers and the manager that runs any Controller.
