//! Values of flags, in the forms that Kubernetes' programs take.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::Failure;

/// A duration as Go writes it, such as `15s` or `1m30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration such as 15s or 1m30s");
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest == "0" {
        return Ok(total);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let milliseconds = match &rest[..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(bad()),
        };
        let part = number.checked_mul(milliseconds).map(Duration::from_millis);
        total = part
            .and_then(|part| total.checked_add(part))
            .ok_or_else(bad)?;
        rest = &rest[unit..];
    }
    if text.is_empty() {
        Err(bad())
    } else {
        Ok(total)
    }
}

/// A range of ports such as `30000-32767`.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let parse = || {
        let (first, last) = text.split_once('-')?;
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first > 0 && first <= last).then_some(first..=last)
    };
    parse().ok_or_else(|| format!("{text:?} is no range of ports such as 30000-32767"))
}

/// What a file holds that a flag names.
pub(super) fn file(flag: &str, path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("{flag} {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, milliseconds) in [
            ("15s", 15_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("2h", 7_200_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)));
        }
        for bad in ["", "5", "s", "5x", "-1s", "1.5s", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_of_ports_has_two_ends() {
        assert_eq!(ports("30000-32767"), Ok(30_000..=32_767));
        for bad in ["", "1", "2-1", "0-5", "1-70000"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
