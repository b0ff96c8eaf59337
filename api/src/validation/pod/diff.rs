//! What changed between two specs, in the form in which Kubernetes shows it to people: the fields of its own structs, with
//! those that did not change folded away.

use serde_json::Value;

use crate::doc;

/// The changes of a struct of a type from `old` to `new`, field by field.
#[must_use]
pub(crate) fn diff(type_name: &str, old: &Value, new: &Value) -> String {
    let mut out = format!("  {type_name}{{\n");
    fields(&mut out, old, new, 1, true);
    out.push_str("  }\n");
    out
}

fn fields(out: &mut String, old: &Value, new: &Value, depth: usize, go_names: bool) {
    let empty = serde_json::Map::new();
    let (before, after) = (
        old.as_object().unwrap_or(&empty),
        new.as_object().unwrap_or(&empty),
    );
    let mut keys: Vec<&String> = before
        .keys()
        .chain(after.keys().filter(|key| !before.contains_key(*key)))
        .collect();
    keys.sort();
    let mut equal = 0;
    for key in keys {
        let (a, b) = (doc::get(old, key), doc::get(new, key));
        if doc::same(a, b) {
            equal += 1;
            continue;
        }
        flush_equal(
            out,
            &mut equal,
            depth,
            if go_names { "field" } else { "entry" },
        );
        let label = if go_names {
            format!("{}:", go_name(key))
        } else {
            format!("{}:", orlop_core::field::quote(key))
        };
        change(out, &label, a, b, depth);
    }
    flush_equal(
        out,
        &mut equal,
        depth,
        if go_names { "field" } else { "entry" },
    );
}

fn flush_equal(out: &mut String, equal: &mut usize, depth: usize, what: &str) {
    if *equal > 0 {
        let plural = match (what, *equal) {
            (_, 1) => what.to_owned(),
            ("entry", _) => "entries".to_owned(),
            _ => format!("{what}s"),
        };
        out.push_str(&format!(
            "  {}... // {equal} identical {plural}\n",
            "\t".repeat(depth)
        ));
        *equal = 0;
    }
}

fn change(out: &mut String, label: &str, old: &Value, new: &Value, depth: usize) {
    let tabs = "\t".repeat(depth);
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let is_map = a
                .keys()
                .chain(b.keys())
                .any(|key| key.contains(['/', '.', '-']));
            out.push_str(&format!("  {tabs}{label} {{\n"));
            fields(out, old, new, depth + 1, !is_map);
            out.push_str(&format!("  {tabs}}},\n"));
        }
        (Value::Array(a), Value::Array(b)) => {
            out.push_str(&format!("  {tabs}{label} {{\n"));
            let mut equal = 0;
            for i in 0..a.len().max(b.len()) {
                match (a.get(i), b.get(i)) {
                    (Some(x), Some(y)) if doc::same(x, y) => equal += 1,
                    (x, y) => {
                        flush_equal(out, &mut equal, depth + 1, "element");
                        change(
                            out,
                            "",
                            x.unwrap_or(&Value::Null),
                            y.unwrap_or(&Value::Null),
                            depth + 1,
                        );
                    }
                }
            }
            flush_equal(out, &mut equal, depth + 1, "element");
            out.push_str(&format!("  {tabs}}},\n"));
        }
        _ => {
            for (sign, value) in [("-", old), ("+", new)] {
                if value.is_null() && label.is_empty() {
                    continue;
                }
                let space = if label.is_empty() { "" } else { " " };
                out.push_str(&format!("{sign} {tabs}{label}{space}{},\n", literal(value)));
            }
        }
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::String(text) => orlop_core::field::quote(text),
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{}: {}", go_name(key), literal(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(literal).collect();
            format!("{{{}}}", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// The name of a field in upstream's structs: the JSON name with the first letter raised and known abbreviations in capitals.
fn go_name(key: &str) -> String {
    match key {
        "dnsPolicy" => return "DNSPolicy".to_owned(),
        "dnsConfig" => return "DNSConfig".to_owned(),
        "os" => return "OS".to_owned(),
        "tty" => return "TTY".to_owned(),
        _ => {}
    }
    let mut letters = key.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changed_fields_stand_out_and_equal_ones_fold() {
        let old =
            json!({"a": 1, "b": "x", "dnsPolicy": "Default", "restartPolicy": "Always", "z": [1]});
        let new =
            json!({"a": 1, "b": "x", "dnsPolicy": "Default", "restartPolicy": "Never", "z": [1]});
        assert_eq!(
            diff("core.PodSpec", &old, &new),
            "  core.PodSpec{\n  \t... // 3 identical fields\n- \tRestartPolicy: \"Always\",\n+ \tRestartPolicy: \
             \"Never\",\n  \t... // 1 identical field\n  }\n"
        );
    }
}
