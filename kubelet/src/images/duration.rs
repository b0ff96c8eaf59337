//! Durations as Kubernetes' events show them.

use std::fmt::Write;
use std::time::Duration;

/// A duration to the millisecond, with the largest unit that it fills first: `0s`, `313ms`, `1.661s`, `1m2.5s`, `1h0m1s`.
pub(super) fn text(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (seconds, rest) = (millis / 1000, millis % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut out = String::new();
    // Writing to a string cannot fail.
    if hours > 0 {
        let _ = write!(out, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(out, "{minutes}m");
    }
    let _ = write!(out, "{seconds}");
    if rest > 0 {
        let fraction = format!("{rest:03}");
        let _ = write!(out, ".{}", fraction.trim_end_matches('0'));
    }
    out.push('s');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_with_their_units() {
        for (millis, written) in [
            (0, "0s"),
            (313, "313ms"),
            (1000, "1s"),
            (1661, "1.661s"),
            (1500, "1.5s"),
            (62_050, "1m2.05s"),
            (3_601_000, "1h0m1s"),
        ] {
            assert_eq!(text(Duration::from_millis(millis)), written);
        }
    }
}
