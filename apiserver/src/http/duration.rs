//! Durations as Go writes them, such as `1m30s`: the form of the `timeout` parameter.

use std::time::Duration;

use orlop_core::field::quote;

/// Reads a duration. Negative ones are none at all.
///
/// # Errors
/// What is wrong with the text, in Go's words.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = &rest[..end];
        rest = &rest[end..];
        seconds += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                "" => return Err(format!("time: missing unit in duration {}", quote(text))),
                other => {
                    return Err(format!(
                        "time: unknown unit {} in duration {}",
                        quote(other),
                        quote(text)
                    ));
                }
            };
    }
    if negative {
        return Ok(Duration::ZERO);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        assert_eq!(parse("32s"), Ok(Duration::from_secs(32)));
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("1.5h"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        assert_eq!(parse("-3s"), Ok(Duration::ZERO));
        for (text, why) in [
            ("abc", "time: invalid duration \"abc\""),
            ("10", "time: missing unit in duration \"10\""),
            ("10x", "time: unknown unit \"x\" in duration \"10x\""),
            ("1e9", "time: unknown unit \"e\" in duration \"1e9\""),
            (".s", "time: invalid duration \".s\""),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()));
        }
        assert!(parse(&format!("{}h", "9".repeat(400))).is_err());
    }
}
