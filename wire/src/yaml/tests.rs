use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(text: &str) -> Value {
    from_slice(text.as_bytes()).unwrap()
}

fn refused(text: &str) -> String {
    from_slice(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn plain_words_resolve_as_in_yaml_1_1() {
    for (text, value) in [
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("y", json!(true)),
        ("N", json!(false)),
        ("tRue", json!("tRue")),
        ("~", json!(null)),
        ("", json!(null)),
        ("Null", json!(null)),
        ("12", json!(12)),
        ("+12", json!(12)),
        ("-12", json!(-12)),
        ("0777", json!(511)),
        ("0o17", json!(15)),
        ("0x1F", json!(31)),
        ("-0b11", json!(-3)),
        ("1_000", json!(1000)),
        ("089", json!(89)),
        ("9223372036854775807", json!(9_223_372_036_854_775_807_i64)),
        (
            "18446744073709551615",
            json!(18_446_744_073_709_551_615_u64),
        ),
        ("-9223372036854775808", json!(i64::MIN)),
        ("1.0", json!(1)),
        ("1e3", json!(1000)),
        ("1.5", json!(1.5)),
        (".5", json!(0.5)),
        ("1.", json!(1)),
        ("1.2.3", json!("1.2.3")),
        ("1e", json!("1e")),
        ("0x", json!("0x")),
        ("-", json!("-")),
        ("100m", json!("100m")),
        ("2001-12-14", json!("2001-12-14")),
        ("2001-12-14T21:59:43Z", json!("2001-12-14T21:59:43Z")),
        ("12:30", json!("12:30")),
        ("'12'", json!("12")),
        ("\"yes\"", json!("yes")),
        ("!!str 12", json!("12")),
        ("!!int '12'", json!(12)),
        ("!!float 12", json!(12)),
        ("!!binary aGk=", json!("hi")),
        ("!mine 12", json!("12")),
    ] {
        let text = format!("a: {text}");
        if text == "a: -" {
            continue;
        }
        assert_eq!(read(&text)["a"], value, "{text}");
    }
    assert_eq!(
        refused("a: .nan"),
        "error converting YAML to JSON: json: unsupported value: NaN"
    );
    assert_eq!(
        refused("!!int abc"),
        "error converting YAML to JSON: yaml: cannot decode !!str `abc` as a !!int"
    );
}

#[test]
fn keys_become_strings() {
    assert_eq!(
        read("1: a\ntrue: b\n1.5: c\n0x10: d\n"),
        json!({"1": "a", "true": "b", "1.5": "c", "16": "d"})
    );
    assert_eq!(
        refused("~: a"),
        "error converting YAML to JSON: unsupported map key of type: %!s(<nil>), key: <nil>, value: \"a\""
    );
    assert!(
        refused("? [a]\n: b").starts_with("error converting YAML to JSON: yaml: invalid map key: ")
    );
}

#[test]
fn json_is_yaml() {
    let value = json!({"a": [1, -2, {"b": null}], "c": "x: y # z\n\u{1f600}\\", "d": {}, "e": [], "f": true});
    assert_eq!(read(&value.to_string()), value);
    assert_eq!(read(&serde_json::to_string_pretty(&value).unwrap()), value);
}

#[test]
fn anchors_merges_and_only_the_first_document() {
    assert_eq!(
        read("base: &b {x: 1, v: 2}\none:\n  <<: *b\n  v: 3\ntwo: {<<: [*b, {z: 9, x: 7}]}\n"),
        json!({"base": {"x": 1, "v": 2}, "one": {"x": 1, "v": 3}, "two": {"x": 1, "v": 2, "z": 9}})
    );
    assert_eq!(read("\"<<\": 1"), json!({"<<": 1}));
    assert_eq!(read("a: 1\n---\nb: 2\n"), json!({"a": 1}));
    assert_eq!(read("# nothing\n"), Value::Null);
    assert_eq!(read("---\n---\nb: 2\n"), Value::Null);
    assert_eq!(
        refused("<<: 1"),
        "error converting YAML to JSON: yaml: map merge requires map or sequence of maps as the value"
    );
    assert_eq!(
        refused("a: *x"),
        "error converting YAML to JSON: yaml: unknown anchor 'x' referenced"
    );
}

#[test]
fn what_multiplies_itself_is_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert_eq!(
        refused(&bomb),
        "error converting YAML to JSON: yaml: document contains excessive aliasing"
    );
    assert_eq!(
        refused("a: &a [*a]"),
        "error converting YAML to JSON: yaml: anchor value contains itself"
    );
    assert!(refused(&"[".repeat(100_000)).contains("exceeded max depth"));
    assert!(refused(&"- ".repeat(100_000)).contains("exceeded max depth"));
}

#[test]
fn errors_name_the_line() {
    for (text, message) in [
        ("a: b: c", "mapping values are not allowed in this context"),
        (
            "a: 1\nb: c: d\n",
            "line 2: mapping values are not allowed in this context",
        ),
        ("a: \"x", "found unexpected end of stream"),
        (
            "a:\n\tb: c",
            "line 2: found character that cannot start any token",
        ),
        ("a: @x", "found character that cannot start any token"),
        ("a: [1, 2", "did not find expected ',' or ']'"),
        ("a: 1\n\u{1}", "control characters are not allowed"),
    ] {
        let found = refused(text);
        assert!(
            found.starts_with("error converting YAML to JSON: yaml: ") && found.contains(message),
            "{text:?}: {found}"
        );
    }
    assert!(
        from_slice(b"a: \xff")
            .unwrap_err()
            .message()
            .contains("invalid leading UTF-8 octet")
    );
    assert_eq!(
        from_slice(b"\xff\xfea\0:\0 \0b\0").unwrap(),
        json!({"a": "b"})
    );
}

#[test]
fn keys_that_come_twice_are_noted() {
    let document = document_from_slice(b"a: 1\nb: {c: 1, c: 2}\na: 3\n1: x\n1: z\n").unwrap();
    assert_eq!(document.value, json!({"a": 3, "b": {"c": 2}, "1": "z"}));
    assert_eq!(
        document.strict().unwrap_err().to_string(),
        "error converting YAML to JSON: yaml: unmarshal errors:\n  line 2: key \"c\" already set in map\n  \
         line 3: key \"a\" already set in map\n  line 5: key 1 already set in map"
    );
    assert!(document_from_slice(b"a: 1").unwrap().strict().is_ok());
}

#[test]
fn documents_are_written_as_kubectl_shows_them() {
    let value = json!({
        "apiVersion": "v1",
        "data": {"a2": "x", "a10": "y", "A": "z", "empty": "", "script": "#!/bin/sh\necho hi\n", "tail": "no newline\nat the end",
                 "tabs": "a\tb\nc\n", "keep": "x\n\n", "lead": "  x\ny\n", "spaces": "x \ny\n"},
        "metadata": {"creationTimestamp": "2024-01-02T03:04:05Z", "annotations": {}, "finalizers": []},
        "spec": {"containers": [{"name": "web", "args": ["-v", "--x=y", "true", "12", "1e3", "0x1f", "12:30", "~", "a: b", "a:b",
                 "# c", "a #b", "a#b", "- x", "-x", "*x", "'q'", "\"q\"", "it's", " pad", "%d", "@x", "{}", "[x", "x]", "é", "😀",
                 "null", "no", "2024-01-02", "1.2.3", ":", "?", "=", "<<", "---", "100%"]}],
                 "ratio": 0.25, "big": 1e21, "n": -3, "none": null, "nested": [[1, 2], []]}
    });
    let expected = r##"apiVersion: v1
data:
  A: z
  a2: x
  a10: "y"
  empty: ""
  keep: |+
    x

  lead: |2
      x
    y
  script: |
    #!/bin/sh
    echo hi
  spaces: "x \ny\n"
  tabs: "a\tb\nc\n"
  tail: |-
    no newline
    at the end
metadata:
  annotations: {}
  creationTimestamp: "2024-01-02T03:04:05Z"
  finalizers: []
spec:
  big: 1e+21
  containers:
  - args:
    - -v
    - --x=y
    - "true"
    - "12"
    - "1e3"
    - "0x1f"
    - "12:30"
    - "~"
    - 'a: b'
    - a:b
    - '# c'
    - 'a #b'
    - a#b
    - '- x'
    - -x
    - '*x'
    - '''q'''
    - '"q"'
    - it's
    - ' pad'
    - '%d'
    - '@x'
    - '{}'
    - '[x'
    - x]
    - é
    - "\U0001F600"
    - "null"
    - "no"
    - "2024-01-02"
    - 1.2.3
    - ':'
    - '?'
    - =
    - "<<"
    - '---'
    - 100%
    name: web
  "n": -3
  nested:
  - - 1
    - 2
  - []
  none: null
  ratio: 0.25
"##;
    assert_eq!(to_string(&value), expected);
    assert_eq!(read(expected)["data"], value["data"]);
    assert_eq!(to_string(&json!({})), "{}\n");
    assert_eq!(to_string(&json!([])), "[]\n");
    assert_eq!(to_string(&json!("x")), "x\n");
}

#[test]
fn long_lines_are_folded_and_long_keys_are_not_simple() {
    let words = "word ".repeat(40).trim_end().to_owned();
    let text = to_string(
        &json!({"a": words, "b": format!("{words}: {words}"), "c": format!("{words}\u{7}")}),
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 90),
        "{text}"
    );
    assert_eq!(
        read(&text),
        json!({"a": words, "b": format!("{words}: {words}"), "c": format!("{words}\u{7}")})
    );
    let key = "k".repeat(200);
    let long = json!({key.clone(): {"a": [1]}, format!("{key}2"): [1, [2]], "x\ny": "z"});
    assert!(to_string(&long).starts_with("? kkk"));
    assert_eq!(read(&to_string(&long)), long);
}

fn documents() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[ -~\\n]{0,12}",
        "\\PC{0,8}",
        "[a-z#:?\\- '\"\\n\\t0-9_.]{0,10}",
        "([a-z]{1,9} ){0,40}",
        Just("2020-01-01".to_owned()),
        Just("0o7".to_owned())
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e6..1e6_f64).prop_map(|f| Value::from(f + 0.5_f64.copysign(f))
            .as_f64()
            .map_or(Value::Null, Value::from)),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(value in documents()) {
        let text = to_string(&value);
        let back = from_slice(text.as_bytes()).map_err(|error| TestCaseError::fail(format!("{error}:\n{text}")))?;
        // Whole floats are integers in JSON as Go writes it.
        let whole = |v: &Value| v.as_f64().is_some_and(|f| f.fract() == 0.0);
        if !whole(&value) {
            prop_assert_eq!(back, value, "{}", text);
        }
    }

    #[test]
    fn no_text_brings_the_reader_down(text in "[\\PC\\n\\t&*!|>%@`{}\\[\\],:?#\\-]{0,60}") {
        let _ = from_slice(text.as_bytes());
    }
}
