//! The columns of the built-in kinds, read from the crate's data.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use orlop_core::resource::GroupVersionKind;

use super::Column;
use crate::{resources, schema};

static COLUMNS: LazyLock<BTreeMap<&'static str, Vec<Column>>> = LazyLock::new(|| {
    let mut all = BTreeMap::<&str, Vec<Column>>::new();
    let mut kind = "";
    for line in include_str!("../../data/columns.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        match line.strip_prefix("  ") {
            None => kind = line,
            Some(line) => all.entry(kind).or_default().push(parse(line)),
        }
    }
    all
});

static DEFAULT: LazyLock<[Column; 2]> = LazyLock::new(|| {
    let created = Column {
        name: "Created At".into(),
        ty: "date".into(),
        ..age()
    };
    [name(), created]
});

fn name() -> Column {
    column(
        "Name",
        "string/name",
        0,
        "@apimachinery.pkg.apis.meta.v1.ObjectMeta.name",
    )
}

fn age() -> Column {
    column(
        "Age",
        "string",
        0,
        "@apimachinery.pkg.apis.meta.v1.ObjectMeta.creationTimestamp",
    )
}

fn column(name: &'static str, ty: &'static str, priority: i32, about: &'static str) -> Column {
    let (ty, format) = ty.split_once('/').unwrap_or((ty, ""));
    let described = about.strip_prefix('@').map(|path| {
        let field = path
            .rsplit_once('.')
            .and_then(|(definition, field)| schema::description(definition, field));
        Cow::Borrowed(field.unwrap_or_default())
    });
    Column {
        name: name.into(),
        ty: ty.into(),
        format: format.into(),
        description: described.unwrap_or(Cow::Borrowed(about)),
        priority,
    }
}

fn parse(line: &'static str) -> Column {
    match line {
        "Name" => name(),
        "Age" => age(),
        _ => {
            let mut parts = line.splitn(4, '|');
            let mut part = || parts.next().unwrap_or_default();
            let (name, ty, wide, about) = (part(), part(), part(), part());
            column(name, ty, i32::from(wide == "w"), about)
        }
    }
}

/// Whether a kind has columns of its own. Names of kinds are unique only among the built-in ones.
pub(super) fn is_known(kind: &GroupVersionKind) -> bool {
    let built_in = resources::find_gvk(kind).is_some()
        || *kind == GroupVersionKind::new("autoscaling", "v1", "Scale")
        || *kind == GroupVersionKind::new("", "v1", "Status");
    built_in && COLUMNS.contains_key(&*kind.kind)
}

/// The columns of a kind's table: `Name` and `Created At` for a kind without columns of its own.
#[must_use]
pub fn columns(kind: &GroupVersionKind) -> &'static [Column] {
    if is_known(kind) {
        COLUMNS.get(&*kind.kind).map_or(&[], Vec::as_slice)
    } else {
        &*DEFAULT
    }
}

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static [Column])> {
    COLUMNS
        .iter()
        .map(|(kind, columns)| (*kind, columns.as_slice()))
}
