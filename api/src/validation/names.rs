//! The forms that names, keys and other short texts must have. Each check gives the complaints, none if the text is fine.

use std::net::IpAddr;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

/// The complaint about a text of more than `max` bytes.
pub(crate) fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// The complaint about a number out of range.
pub(crate) fn out_of_range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn pattern(message: &str, form: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples
        .iter()
        .map(|example| format!("'{example}', "))
        .collect();
    if examples.is_empty() {
        format!("{message} (regex used for validation is '{form}')")
    } else {
        format!(
            "{message} (e.g. {}regex used for validation is '{form}')",
            examples.join(" or ")
        )
    }
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Non-empty, all bytes of `inner`, the first of `first` and the last of `last`.
fn shaped(text: &str, first: fn(u8) -> bool, inner: fn(u8) -> bool, last: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&start), Some(&end)) => {
            first(start) && last(end) && bytes.iter().all(|&byte| inner(byte))
        }
        _ => false,
    }
}

fn label_shape(text: &str) -> bool {
    shaped(text, lower, |byte| lower(byte) || byte == b'-', lower)
}

/// A DNS label of RFC 1123.
pub(crate) fn dns_label(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > 63 {
        complaints.push(too_long(63));
    }
    if !label_shape(text) {
        if text.split('.').all(label_shape) {
            complaints.push("must not contain dots".to_owned());
        } else {
            complaints.push(pattern(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
                 end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            ));
        }
    }
    complaints
}

/// A DNS subdomain of RFC 1123.
pub(crate) fn dns_subdomain(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > 253 {
        complaints.push(too_long(253));
    }
    if !text.split('.').all(label_shape) {
        complaints.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
             and end with an alphanumeric character",
            SUBDOMAIN,
            &["example.com"],
        ));
    }
    complaints
}

/// A DNS subdomain in which labels may hold underscores, as DNS search paths may.
pub(crate) fn dns_subdomain_with_underscore(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > 253 {
        complaints.push(too_long(253));
    }
    let label = |label: &str| {
        let label = label.strip_prefix('_').unwrap_or(label);
        shaped(
            label,
            lower,
            |byte| lower(byte) || byte == b'-' || byte == b'_',
            lower,
        )
    };
    if !text.split('.').all(label) {
        complaints.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must \
             start and end with an alphanumeric character",
            r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    complaints
}

/// A subdomain below a wildcard: `*.example.com`.
pub(crate) fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > 253 {
        complaints.push(too_long(253));
    }
    if !text
        .strip_prefix("*.")
        .is_some_and(|rest| rest.split('.').all(label_shape))
    {
        complaints.push(pattern(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of \
             lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    complaints
}

/// A DNS label of RFC 1035: it starts with a letter.
pub(crate) fn dns1035_label(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > 63 {
        complaints.push(too_long(63));
    }
    if !shaped(
        text,
        |byte| byte.is_ascii_lowercase(),
        |byte| lower(byte) || byte == b'-',
        lower,
    ) {
        complaints.push(pattern(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    complaints
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// A key of labels, annotations, taints, finalizers: `name` or `prefix/name`.
pub(crate) fn qualified_name(text: &str) -> Vec<String> {
    const MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                           alphanumeric character";
    const FORM: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut complaints = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                complaints.push("prefix part must be non-empty".to_owned());
            } else {
                complaints.extend(
                    dns_subdomain(prefix)
                        .into_iter()
                        .map(|complaint| format!("prefix part {complaint}")),
                );
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                pattern(MESSAGE, FORM, EXAMPLES)
            )];
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        complaints.push(format!("name part {}", too_long(63)));
    }
    if !shaped(name, alphanumeric, word, alphanumeric) {
        complaints.push(format!("name part {}", pattern(MESSAGE, FORM, EXAMPLES)));
    }
    complaints
}

/// The value of a label; empty is fine.
pub(crate) fn label_value(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > 63 {
        complaints.push(too_long(63));
    }
    if !text.is_empty() && !shaped(text, alphanumeric, word, alphanumeric) {
        complaints.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
             and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    complaints
}

/// A key of ConfigMaps and Secrets.
pub(crate) fn config_map_key(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > 253 {
        complaints.push(too_long(253));
    }
    if text.is_empty() || !text.bytes().all(word) {
        complaints.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    if text == "." {
        complaints.push("must not be '.'".to_owned());
    } else if text == ".." {
        complaints.push("must not be '..'".to_owned());
    } else if text.starts_with("..") {
        complaints.push("must not start with '..'".to_owned());
    }
    complaints
}

/// The name of an environment variable.
pub(crate) fn env_var_name(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.is_empty() {
        complaints.push("environment variable name must be non-empty".to_owned());
    }
    if text.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        complaints.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned(),
        );
    }
    complaints
}

/// The name of a port.
pub(crate) fn port_name(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > 15 {
        complaints.push(too_long(15));
    }
    if text.is_empty() || !text.bytes().all(|byte| lower(byte) || byte == b'-') {
        complaints.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        complaints.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".to_owned());
    }
    complaints
}

/// The number of a port.
pub(crate) fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) {
        Vec::new()
    } else {
        vec![out_of_range(1, 65535)]
    }
}

/// `12%`.
pub(crate) fn percent(text: &str) -> Vec<String> {
    if text
        .strip_suffix('%')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    {
        Vec::new()
    } else {
        vec![pattern(
            "a valid percent string must be a numeric string followed by an ending '%'",
            "[0-9]+%",
            &["1%", "93%"],
        )]
    }
}

/// The name of an HTTP header.
pub(crate) fn http_header(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|byte| alphanumeric(byte) || byte == b'-') {
        Vec::new()
    } else {
        vec![pattern(
            "a valid HTTP header must consist of alphanumeric characters or '-'",
            "[-A-Za-z0-9]+",
            &["X-Header-Name"],
        )]
    }
}

/// A segment of a URL path; RBAC objects and a few others are named so freely.
pub(crate) fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|bad| text.contains(**bad))
        .map(|bad| format!("may not contain '{bad}'"))
        .collect()
}

/// The name of a sysctl, with dots or slashes.
pub(crate) fn sysctl_name(text: &str) -> bool {
    text.len() <= 253
        && text
            .split(['.', '/'])
            .all(|part| shaped(part, lower, |b| lower(b) || b == b'-' || b == b'_', lower))
}

/// A path behind a domain, such as `acme.io/foo`: the value it complains about, and the complaint.
pub(crate) fn domain_prefixed_path(text: &str) -> Vec<(String, String)> {
    let Some((host, path)) = text
        .split_once('/')
        .filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        return vec![(
            text.to_owned(),
            "must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned(),
        )];
    };
    let mut complaints: Vec<_> = dns_subdomain(host)
        .into_iter()
        .map(|complaint| (host.to_owned(), complaint))
        .collect();
    if !path
        .bytes()
        .all(|byte| alphanumeric(byte) || b"/-._~%!$&'()*+,;=:".contains(&byte))
    {
        complaints.push((
            path.to_owned(),
            pattern("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[]),
        ));
    }
    complaints
}

/// An IP address in its canonical form.
pub(crate) fn ip(text: &str) -> Vec<String> {
    match text.parse::<IpAddr>() {
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
        }
        Ok(_) => Vec::new(),
    }
}

/// An IP network, its prefix length included, as address and length.
pub(crate) fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    if length.is_empty() || length.len() > 3 || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (length <= most).then_some((address, length))
}

/// The bits of an address, left-aligned in 128.
pub(crate) fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address with the bits after the first `length` cleared.
pub(crate) fn masked(address: IpAddr, length: u8) -> u128 {
    if length == 0 {
        0
    } else {
        address_bits(address) & (u128::MAX << (128 - u32::from(length.min(128))))
    }
}

/// A CIDR.
pub(crate) fn cidr(text: &str) -> Vec<String> {
    match parse_cidr(text) {
        None => vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()],
        Some((IpAddr::V6(address), _)) if address.to_ipv4_mapped().is_some() => {
            vec!["must not have an IPv4-mapped IPv6 address".to_owned()]
        }
        Some(_) => Vec::new(),
    }
}

/// Whether a text is an IPv6 address.
pub(crate) fn is_ipv6(text: &str) -> bool {
    text.parse::<IpAddr>()
        .is_ok_and(|address| address.is_ipv6())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_each_form() {
        for (good, check) in [
            ("a-b", dns_label as fn(&str) -> Vec<String>),
            ("a.b-c.d", dns_subdomain),
            ("example.com/My_Name", qualified_name),
            ("", label_value),
            ("a.b_C-1", label_value),
            ("*.foo.bar", wildcard_subdomain),
            ("web", port_name),
            ("system:node:x", path_segment),
            ("93%", percent),
            ("10.0.0.0/8", cidr),
            ("fd00::1", ip),
        ] {
            assert!(check(good).is_empty(), "{good}: {:?}", check(good));
        }
        for (bad, check) in [
            ("A", dns_label as fn(&str) -> Vec<String>),
            ("a..b", dns_subdomain),
            ("a/b/c", qualified_name),
            ("-a", label_value),
            ("*.*.bar", wildcard_subdomain),
            ("80", port_name),
            ("..", path_segment),
            ("%", percent),
            ("10.0.0.0/33", cidr),
            ("10.0.0.01", ip),
        ] {
            assert!(!check(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn the_words_of_complaints() {
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            qualified_name("a b"),
            [
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
              alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
              '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ]
        );
        assert_eq!(
            config_map_key("a/b"),
            [
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
              'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
            ]
        );
        assert_eq!(
            dns_label(&"a".repeat(64)),
            ["must be no more than 63 bytes"]
        );
    }
}
