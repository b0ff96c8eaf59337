//! Patches, as far as tests need them.

use serde_json::Value;

use crate::client::Patch;
use crate::status::Status;

/// Applies a patch. A strategic merge patch is taken as a merge patch, except that lists of owner references and conditions are merged by
/// uid and type; server-side apply is refused.
pub(super) fn apply(target: &mut Value, patch: &Patch) -> Result<(), Status> {
    match patch {
        Patch::Merge(patch) => merge(target, patch, false),
        Patch::Strategic(patch) => merge(target, patch, true),
        Patch::Json(patch) => {
            let steps = patch
                .as_array()
                .ok_or_else(|| Status::bad_request("a JSON patch is a list"))?;
            for step in steps {
                json_step(target, step)?;
            }
        }
        Patch::Apply(_) => {
            return Err(Status::failure(
                415,
                crate::status::reason::UNSUPPORTED_MEDIA_TYPE,
                "no server-side apply here",
            ));
        }
    }
    Ok(())
}

fn merge(target: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(fields) = target else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
            continue;
        }
        let key = match name.as_str() {
            "ownerReferences" => Some("uid"),
            "conditions" => Some("type"),
            _ => None,
        };
        match (key.filter(|_| strategic), value.as_array()) {
            (Some(key), Some(items)) => merge_list(
                fields.entry(name.clone()).or_insert(Value::Null),
                items,
                key,
            ),
            _ => merge(
                fields.entry(name.clone()).or_insert(Value::Null),
                value,
                strategic,
            ),
        }
    }
}

fn merge_list(target: &mut Value, items: &[Value], key: &str) {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(list) = target else { return };
    for item in items {
        let at = list.iter().position(|known| known[key] == item[key]);
        if item["$patch"] == "delete" {
            if let Some(at) = at {
                list.remove(at);
            }
        } else if let Some(at) = at {
            merge(&mut list[at], item, true);
        } else {
            list.push(item.clone());
        }
    }
}

fn json_step(target: &mut Value, step: &Value) -> Result<(), Status> {
    let path = step["path"].as_str().unwrap_or_default();
    let (parent, last) = path
        .rsplit_once('/')
        .ok_or_else(|| Status::bad_request("a JSON pointer begins with a slash"))?;
    let last = last.replace("~1", "/").replace("~0", "~");
    let missing = || {
        Status::failure(
            422,
            crate::status::reason::INVALID,
            format!("no such path: {path}"),
        )
    };
    if step["op"] == "test" {
        return if target.pointer(path).unwrap_or(&Value::Null) == &step["value"] {
            Ok(())
        } else {
            Err(missing())
        };
    }
    match (
        target.pointer_mut(parent).ok_or_else(missing)?,
        step["op"].as_str(),
    ) {
        (Value::Object(fields), Some("add" | "replace")) => {
            fields.insert(last, step["value"].clone());
        }
        (Value::Object(fields), Some("remove")) => {
            fields.remove(&last).ok_or_else(missing)?;
        }
        (Value::Array(items), Some("add")) if last == "-" => items.push(step["value"].clone()),
        (Value::Array(items), Some(op)) => {
            let at: usize = last.parse().map_err(|_| missing())?;
            match op {
                "add" if at <= items.len() => items.insert(at, step["value"].clone()),
                "replace" if at < items.len() => items[at] = step["value"].clone(),
                "remove" if at < items.len() => {
                    items.remove(at);
                }
                _ => return Err(missing()),
            }
        }
        _ => return Err(missing()),
    }
    Ok(())
}
