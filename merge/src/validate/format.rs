//! Strings that must have a form: base64, RFC 3339 times and quantities. The messages are those of Go's decoders.

use crate::schema::Format;

/// What is wrong with a string of this format.
pub(super) fn check(format: Format, text: &str) -> Result<(), String> {
    match format {
        Format::Byte => {
            base64(text.as_bytes()).map_err(|at| format!("illegal base64 data at input byte {at}"))
        }
        Format::DateTime => time(text),
        _ => Ok(()),
    }
}

/// Checks the text of a quantity: a decimal number with a suffix that is known.
pub(super) fn quantity(text: &str) -> Result<(), String> {
    const SUFFIX: &[u8] = b"eEinumkKMGTP";
    let wrong_form = || {
        Err(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                .to_owned(),
        )
    };
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let text = text.trim();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned.is_empty() {
        return wrong_form();
    }
    let whole = digits(unsigned);
    let mut number = whole;
    if unsigned[whole..].starts_with('.') {
        number += 1 + digits(&unsigned[whole + 1..]);
    }
    let suffix = &unsigned[number..];
    let letters = suffix
        .bytes()
        .take_while(|byte| SUFFIX.contains(byte))
        .count();
    let exponent = &suffix[letters..];
    let sign = usize::from(exponent.starts_with(['+', '-']));
    if sign + digits(&exponent[sign..]) != exponent.len() {
        return wrong_form();
    }
    let known = match (&suffix[..letters], exponent) {
        ("" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E", "") => true,
        ("Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei", "") => true,
        ("e" | "E", exponent) => exponent.parse::<i64>().is_ok(),
        _ => false,
    };
    if !known {
        return Err("unable to parse quantity's suffix".to_owned());
    }
    if !unsigned[..number].bytes().any(|byte| byte.is_ascii_digit()) {
        return Err("unable to parse numeric part of quantity".to_owned());
    }
    Ok(())
}

/// Checks padded standard base64, in which line ends count for nothing. An error is the place that Go names.
fn base64(bytes: &[u8]) -> Result<(), usize> {
    let mut at = 0;
    let mut next = || {
        loop {
            let byte = bytes.get(at).copied()?;
            at += 1;
            if !matches!(byte, b'\r' | b'\n') {
                return Some((at - 1, byte));
            }
        }
    };
    loop {
        for digit in 0..4 {
            match next() {
                None if digit == 0 => return Ok(()),
                None => return Err(bytes.len() - digit),
                Some((_, byte)) if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/') => {}
                Some((_, b'=')) if digit >= 2 => {
                    if digit == 2 {
                        match next() {
                            Some((_, b'=')) => {}
                            // Go names the byte before the one that is wrong.
                            Some((place, _)) => return Err(place - 1),
                            None => return Err(bytes.len()),
                        }
                    }
                    return match next() {
                        None => Ok(()),
                        Some((place, _)) => Err(place),
                    };
                }
                Some((place, _)) => return Err(place),
            }
        }
    }
}

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";

/// Checks a time as Go parses RFC 3339.
fn time(text: &str) -> Result<(), String> {
    let cannot = |rest: &str, element: &str| {
        format!("parsing time {text:?} as \"{LAYOUT}\": cannot parse {rest:?} as {element:?}")
    };
    let out_of_range = |what: &str| format!("parsing time {text:?}: {what} out of range");
    let mut rest = text;
    let mut numbers = [0_u32; 6];
    let elements = [
        ("", "2006"),
        ("-", "01"),
        ("-", "02"),
        ("T", "15"),
        (":", "04"),
        (":", "05"),
    ];
    for (i, (separator, element)) in elements.into_iter().enumerate() {
        rest = rest
            .strip_prefix(separator)
            .ok_or_else(|| cannot(rest, separator))?;
        let digits = rest
            .get(..element.len())
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or_else(|| cannot(rest, element))?;
        numbers[i] = digits.parse().map_err(|_| cannot(rest, element))?;
        rest = &rest[element.len()..];
        let range = match i {
            1 => (!(1..=12).contains(&numbers[1])).then_some("month"),
            3 => (numbers[3] > 23).then_some("hour"),
            4 => (numbers[4] > 59).then_some("minute"),
            5 => (numbers[5] > 59).then_some("second"),
            _ => None,
        };
        if let Some(what) = range {
            return Err(out_of_range(what));
        }
    }
    // Fractions of a second may follow, whatever the layout.
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let end = fraction
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(fraction.len());
        if end > 0 {
            rest = &fraction[end..];
        }
    }
    let after = match rest.as_bytes() {
        [b'Z', ..] => &rest[1..],
        [b'+' | b'-', h1, h2, b':', m1, m2, ..]
            if [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit()) =>
        {
            &rest[6..]
        }
        _ => return Err(cannot(rest, "Z07:00")),
    };
    if !after.is_empty() {
        return Err(format!("parsing time {text:?}: extra text: {after:?}"));
    }
    let [year, month, day, ..] = numbers;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=days).contains(&day) {
        return Err(out_of_range("day"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_a_number_and_a_known_suffix() {
        let good = [
            "1", "-1.5", "+.5", "1.", "100m", "1Ki", "5E", "1e3", "1E-3", " 1Gi ", "12e+6", "0",
        ];
        for text in good {
            assert_eq!(quantity(text), Ok(()), "{text:?}");
        }
        let form = "quantities must match";
        let bad = [
            ("", form),
            ("1x", form),
            ("a", form),
            ("1.1.1", form),
            ("1 Gi", form),
            ("1Ki.", form),
            ("é", form),
            ("1KK", "unable to parse quantity's suffix"),
            ("1i", "unable to parse quantity's suffix"),
            ("1-3", "unable to parse quantity's suffix"),
            (".", "unable to parse numeric part of quantity"),
        ];
        for (text, start) in bad {
            let error = quantity(text).unwrap_err();
            assert!(error.starts_with(start), "{text:?}: {error}");
        }
    }

    #[test]
    fn base64_as_go_reads_it() {
        let good = ["", "YQ==", "YWI=", "YWJj", "YWJj\nYQ==\n", "+/+/"];
        for text in good {
            assert_eq!(base64(text.as_bytes()), Ok(()), "{text:?}");
        }
        let bad = [
            ("not base64", 3),
            ("YQ", 0),
            ("YQ=", 3),
            ("YWJjYQ=x", 6),
            ("YWJj=", 4),
            ("YQ==x", 4),
            ("Y", 0),
            ("*", 0),
            ("YWJjYWI", 4),
        ];
        for (text, at) in bad {
            assert_eq!(base64(text.as_bytes()), Err(at), "{text:?}");
        }
    }

    #[test]
    fn times_as_go_reads_them() {
        let good = [
            "2026-01-01T00:00:00Z",
            "2024-02-29T23:59:59.123456Z",
            "2026-01-01T00:00:00+02:00",
        ];
        for text in good {
            assert_eq!(time(text), Ok(()), "{text}");
        }
        let bad = [
            (
                "yesterday",
                "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"",
            ),
            (
                "",
                "parsing time \"\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"2006\"",
            ),
            (
                "2026-01-01",
                "parsing time \"2026-01-01\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"T\"",
            ),
            (
                "2026-13-01T00:00:00Z",
                "parsing time \"2026-13-01T00:00:00Z\": month out of range",
            ),
            (
                "2026-02-29T00:00:00Z",
                "parsing time \"2026-02-29T00:00:00Z\": day out of range",
            ),
            (
                "2026-02-28T24:00:00Z",
                "parsing time \"2026-02-28T24:00:00Z\": hour out of range",
            ),
            (
                "2026-02-28T00:00:00",
                "parsing time \"2026-02-28T00:00:00\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"Z07:00\"",
            ),
            (
                "2026-02-28T00:00:00Zx",
                "parsing time \"2026-02-28T00:00:00Zx\": extra text: \"x\"",
            ),
        ];
        for (text, expected) in bad {
            assert_eq!(time(text), Err(expected.to_owned()));
        }
    }
}
