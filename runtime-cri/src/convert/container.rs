//! Containers.

use std::path::PathBuf;

use jiff::Timestamp;
use orlop_core::runtime::{
    Container, ContainerConfig, ContainerFilter, ContainerId, ContainerMetadata, ContainerState,
    Exit, ImageId, ImageSpec, Mount, MountPropagation, MountSource, RuntimeError, SandboxId, User,
};

use super::image::said_image_spec;
use super::{
    id_mappings, image_spec, moment, path_text, resources, said_id_mappings, said_resources,
    security,
};
use crate::messages as cri;
use crate::messages::signal;

/// A container to be made, in CRI's words.
pub(crate) fn container_config(
    config: &ContainerConfig,
) -> Result<cri::ContainerConfig, RuntimeError> {
    let envs = config.env.iter().map(|variable| cri::KeyValue {
        key: variable.name.clone(),
        value: variable.value.clone(),
    });
    let mounts: Result<Vec<_>, _> = config.mounts.iter().map(mount).collect();
    let mut devices = Vec::with_capacity(config.devices.len());
    for device in &config.devices {
        devices.push(cri::Device {
            container_path: path_text(&device.container_path)?,
            host_path: path_text(&device.host_path)?,
            permissions: device.permissions.clone(),
        });
    }
    let cdi_devices = config.cdi_devices.iter();
    let log_path = config.log_path.as_deref().map(path_text).transpose()?;
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: config.metadata.name.clone(),
            attempt: config.metadata.attempt,
        }),
        image: Some(image_spec(&config.image)),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: envs.collect(),
        mounts: mounts?,
        devices,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        log_path: log_path.unwrap_or_default(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources(&config.resources)),
            security_context: Some(security::container_security(&config.security)),
        }),
        cdi_devices: cdi_devices
            .map(|name| cri::CdiDevice { name: name.clone() })
            .collect(),
        stop_signal: signal::number(config.stop_signal.as_ref()),
    })
}

fn mount(mount: &Mount) -> Result<cri::Mount, RuntimeError> {
    let (host_path, image, image_sub_path) = match &mount.source {
        MountSource::Host(path) => (path_text(path)?, None, String::new()),
        MountSource::Image { image, sub_path } => {
            (String::new(), Some(image_spec(image)), sub_path.clone())
        }
    };
    let propagation = match mount.propagation {
        MountPropagation::Private => cri::MountPropagation::Private,
        MountPropagation::HostToContainer => cri::MountPropagation::HostToContainer,
        MountPropagation::Bidirectional => cri::MountPropagation::Bidirectional,
    };
    Ok(cri::Mount {
        container_path: path_text(&mount.container_path)?,
        host_path,
        readonly: mount.read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation.into(),
        uid_mappings: id_mappings(&mount.uids),
        gid_mappings: id_mappings(&mount.gids),
        recursive_read_only: mount.recursive_read_only,
        image,
        image_sub_path,
        mount_options: mount.options.clone(),
    })
}

fn said_mount(said: cri::Mount) -> Mount {
    let propagation = match said.propagation() {
        cri::MountPropagation::Private => MountPropagation::Private,
        cri::MountPropagation::HostToContainer => MountPropagation::HostToContainer,
        cri::MountPropagation::Bidirectional => MountPropagation::Bidirectional,
    };
    let source = match said.image {
        Some(image) => MountSource::Image {
            image: said_image_spec(image),
            sub_path: said.image_sub_path,
        },
        None => MountSource::Host(said.host_path.into()),
    };
    Mount {
        container_path: said.container_path.into(),
        source,
        read_only: said.readonly,
        recursive_read_only: said.recursive_read_only,
        selinux_relabel: said.selinux_relabel,
        propagation,
        uids: said_id_mappings(&said.uid_mappings),
        gids: said_id_mappings(&said.gid_mappings),
        options: said.mount_options,
    }
}

/// Which containers are meant, in CRI's words.
pub(crate) fn container_filter(filter: &ContainerFilter) -> cri::ContainerFilter {
    let state = filter.state.map(|state| match state {
        ContainerState::Created => cri::ContainerState::Created,
        ContainerState::Running => cri::ContainerState::Running,
        ContainerState::Exited => cri::ContainerState::Exited,
        ContainerState::Unknown => cri::ContainerState::Unknown,
    });
    cri::ContainerFilter {
        id: filter
            .id
            .as_ref()
            .map(|id| id.as_str().to_owned())
            .unwrap_or_default(),
        state: state.map(|state| cri::ContainerStateValue {
            state: state.into(),
        }),
        pod_sandbox_id: filter
            .sandbox
            .as_ref()
            .map(|id| id.as_str().to_owned())
            .unwrap_or_default(),
        label_selector: filter.labels.clone(),
    }
}

/// How far a container has come.
fn list_state(state: cri::ContainerState) -> ContainerState {
    match state {
        cri::ContainerState::Created => ContainerState::Created,
        cri::ContainerState::Running => ContainerState::Running,
        cri::ContainerState::Exited => ContainerState::Exited,
        cri::ContainerState::Unknown => ContainerState::Unknown,
    }
}

/// What a list tells of a container. Its times, its end, its mounts and more are still to be [looked up](looked_up).
pub(crate) fn listed(said: cri::Container) -> Container {
    let state = list_state(said.state());
    let metadata = said.metadata.unwrap_or_default();
    // Before there was a field for it, the reference was the id.
    let image_id = match said.image_id.as_str() {
        "" => said.image_ref.clone(),
        _ => said.image_id,
    };
    Container {
        id: ContainerId::new(said.id),
        sandbox: SandboxId::new(said.pod_sandbox_id),
        metadata: ContainerMetadata {
            name: metadata.name,
            attempt: metadata.attempt,
        },
        state,
        created: moment(said.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        started: None,
        finished: None,
        exit: None,
        image: said.image.map_or_else(ImageSpec::default, said_image_spec),
        image_ref: said.image_ref,
        image_id: ImageId::new(image_id),
        labels: said.labels,
        annotations: said.annotations,
        mounts: Vec::new(),
        log_path: None,
        resources: None,
        user: None,
        stop_signal: orlop_core::runtime::Signal::default(),
    }
}

/// Completes a container from a list, or from an earlier look, with what was looked up now.
pub(crate) fn looked_up(mut container: Container, status: cri::ContainerStatus) -> Container {
    container.state = list_state(status.state());
    let has_run = container.state != ContainerState::Created;
    container.started = moment(status.started_at).filter(|_| has_run);
    let has_ended = container.state == ContainerState::Exited;
    container.finished = moment(status.finished_at).filter(|_| has_ended);
    container.exit = has_ended.then(|| Exit {
        code: status.exit_code,
        reason: match (status.reason.as_str(), status.exit_code) {
            ("", 0) => "Completed".to_owned(),
            ("", _) => "Error".to_owned(),
            _ => status.reason,
        },
        message: status.message,
    });
    if !status.image_id.is_empty() {
        container.image_id = ImageId::new(status.image_id);
    }
    // A list has the image as it was asked for, which is its id where the image was resolved first; a look has its name.
    if let Some(image) = status.image.filter(|image| !image.image.is_empty()) {
        container.image.image = image.image;
    }
    container.image_ref = status.image_ref;
    container.mounts = status.mounts.into_iter().map(said_mount).collect();
    container.log_path = (!status.log_path.is_empty()).then(|| PathBuf::from(status.log_path));
    let linux = status.resources.and_then(|resources| resources.linux);
    container.resources = linux.as_ref().map(said_resources);
    container.user = status.user.and_then(|user| user.linux).map(|user| User {
        uid: user.uid,
        gid: user.gid,
        supplemental_groups: user.supplemental_groups,
    });
    container.stop_signal = signal::named(status.stop_signal).unwrap_or_default();
    container
}
