//! `scale`: how many replicas, the same for all kinds that have them.

use orlop_api::{strategy, validation};
use orlop_core::client::{FieldValidation, Patch, WriteOptions};
use orlop_core::object::Object;
use orlop_core::resource::GroupVersionKind;
use orlop_core::status::Status;
use orlop_merge::apply::scale::{ReplicasPaths, to_parent, to_scale};
use orlop_merge::apply::{FieldManager, Managers, Path, PathElement};
use orlop_merge::json_patch::JsonPatch;
use orlop_merge::{merge_patch, strategic};
use serde_json::Value;

use super::super::managed_fields;
use super::super::patch::json_patch_refusal;
use super::super::update::{Change, Preconditions};
use super::super::{At, Context, Registry, meta, storage_kind};

/// The kind of the subresource.
const SCALE: GroupVersionKind = GroupVersionKind::new("autoscaling", "v1", "Scale");

impl Registry {
    /// The scale of an object.
    pub(crate) async fn get_scale(&self, at: &At) -> Result<Object, Status> {
        let Some(parent) = self.current(at.info, &at.namespace, &at.name).await? else {
            return Err(Status::not_found(&at.info.resource, &at.name));
        };
        as_object(self.scale_of(at, &parent)?)
    }

    fn scale_of(&self, at: &At, parent: &Object) -> Result<Value, Status> {
        let value = parent.value().map_err(Status::internal)?;
        strategy::scale::read(&storage_kind(at.info), &value)
            .ok_or_else(|| Status::internal(format!("{} has no scale", at.info.resource.plural)))
    }

    /// Replaces the scale.
    pub(crate) async fn update_scale(
        &self,
        cx: &mut Context,
        at: &At,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Object, Status> {
        let mut scale = Self::decode(cx, &SCALE, body, options.field_validation)?;
        super::super::create::place(at, &mut scale)?;
        let uid = Some(meta::text(&scale, "uid").to_owned()).filter(|uid| !uid.is_empty());
        let make = |_: &mut Context, _: &Value| Ok(scale.clone());
        self.write_scale(
            cx,
            at,
            &make,
            false,
            options,
            &Preconditions {
                uid,
                revision: None,
            },
        )
        .await
    }

    /// Patches the scale.
    pub(crate) async fn patch_scale(
        &self,
        cx: &mut Context,
        at: &At,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Object, Status> {
        let validation = options.field_validation;
        let manager = cx.manager(&options.field_manager).to_owned();
        let now = meta::time(self.now());
        let make = |cx: &mut Context, old: &Value| match patch {
            Patch::Apply(applied) => {
                let mut applied = applied.clone();
                Registry::check_applied(cx, &SCALE, &mut applied, validation)?;
                super::super::create::place(at, &mut applied)?;
                let merged = with_fields(|fields| {
                    fields.apply(old, &applied, &manager, options.force, &now)
                })?;
                let merged = merged.map_err(|error| {
                    managed_fields::refusal(&at.info.resource, &at.name, &error)
                })?;
                Registry::decode(cx, &SCALE, merged, FieldValidation::Ignore)
            }
            patch => patched(cx, old, patch, validation),
        };
        let applies = matches!(patch, Patch::Apply(_));
        self.write_scale(cx, at, &make, applies, options, &Preconditions::default())
            .await
    }

    async fn write_scale(
        &self,
        cx: &mut Context,
        at: &At,
        make: &MakeScale<'_>,
        applies: bool,
        options: &WriteOptions,
        preconditions: &Preconditions,
    ) -> Result<Object, Status> {
        let manager = cx.manager(&options.field_manager).to_owned();
        let kind = storage_kind(at.info);
        let now = meta::time(self.now());
        let edit = |cx: &mut Context, parent: &mut Value| {
            let internal = || Status::internal(format!("{} has no scale", at.info.resource.plural));
            let mut old = strategy::scale::read(&kind, parent).ok_or_else(internal)?;
            let paths = replicas_paths(&kind);
            let managers = Managers::of(parent).unwrap_or_default();
            to_scale(&managers, &paths).write_to(&mut old);
            let mut new = make(cx, &old)?;
            let name = meta::text(&new, "name");
            if !name.is_empty() && name != at.name {
                return Err(Status::bad_request(format!(
                    "the name of the object ({name}) does not match the name on the URL ({})",
                    at.name
                )));
            }
            let errors = validation::validate_update(&SCALE, &new, &old, None);
            if !errors.is_empty() {
                return Err(Status::invalid("autoscaling", "Scale", &at.name, &errors));
            }
            if !applies {
                with_fields(|fields| fields.update_no_errors(&old, &mut new, &manager, &now))?;
            }
            let scaled = Managers::of(&new).unwrap_or_default();
            if !strategy::scale::write(&kind, parent, &new) {
                return Err(internal());
            }
            to_parent(&managers, &scaled, &kind.api_version(), &paths).write_to(parent);
            let given = meta::text(&new, "resourceVersion").to_owned();
            meta::set(parent, "resourceVersion", Some(given.into()));
            Ok(())
        };
        let parent = self
            .change(cx, at, &Change::Scale(&edit), options, preconditions)
            .await?;
        as_object(self.scale_of(at, &parent)?)
    }
}

/// Runs a closure with the field manager of scales.
fn with_fields<T>(then: impl FnOnce(&FieldManager<'_>) -> T) -> Result<T, Status> {
    let schema =
        orlop_api::schema::of(&SCALE).ok_or_else(|| Status::internal("Scale has no schema"))?;
    Ok(then(
        &FieldManager::new(&schema, "autoscaling/v1").subresource("scale"),
    ))
}

/// Makes the new scale of the old one.
type MakeScale<'a> = dyn Fn(&mut Context, &Value) -> Result<Value, Status> + Send + Sync + 'a;

fn as_object(scale: Value) -> Result<Object, Status> {
    Object::from_value(scale).map_err(Status::internal)
}

fn replicas_paths(kind: &GroupVersionKind) -> ReplicasPaths {
    let path = Path(vec![
        PathElement::field("spec"),
        PathElement::field("replicas"),
    ]);
    ReplicasPaths::from([(kind.api_version(), Some(path))])
}

fn patched(
    cx: &mut Context,
    old: &Value,
    patch: &Patch,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let mut scale = old.clone();
    match patch {
        Patch::Json(operations) => {
            let patch =
                JsonPatch::from_value(operations).map_err(|error| json_patch_refusal(&error))?;
            patch
                .apply(&mut scale)
                .map_err(|error| json_patch_refusal(&error))?;
        }
        Patch::Merge(patch) => merge_patch::apply(&mut scale, patch),
        Patch::Strategic(patch) => {
            let schema = orlop_api::schema::of(&SCALE)
                .ok_or_else(|| Status::internal("Scale has no schema"))?;
            scale = strategic::apply(&schema, &scale, patch)
                .map_err(|error| Status::bad_request(error.to_string()))?;
        }
        // Applied by the book of owners; see where the patch comes in.
        Patch::Apply(_) => return Err(Status::internal("a scale is applied with its owners")),
    }
    Registry::decode(cx, &SCALE, scale, validation)
}
