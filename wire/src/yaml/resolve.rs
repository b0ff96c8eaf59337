//! What a plain word means.

use serde_json::{Number, Value};

/// The namespace of the tags that everybody knows.
pub(super) const CORE: &str = "tag:yaml.org,2002:";

/// What a plain scalar resolves to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Resolved {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer above the signed ones.
    Unsigned(u64),
    Float(f64),
    /// Written like a time. In a document it is a string; written out, such a string is quoted.
    Timestamp,
    /// The key `<<`.
    Merge,
    Text,
}

impl Resolved {
    /// The tag's short name.
    pub(super) fn tag(&self) -> &'static str {
        match self {
            Self::Null => "!!null",
            Self::Bool(_) => "!!bool",
            Self::Int(_) | Self::Unsigned(_) => "!!int",
            Self::Float(_) => "!!float",
            Self::Timestamp => "!!timestamp",
            Self::Merge => "!!merge",
            Self::Text => "!!str",
        }
    }
}

/// Resolves a plain scalar by the rules of YAML 1.1 as Go's library has them.
pub(super) fn resolve(text: &str) -> Resolved {
    if let Some(word) = word(text) {
        return word;
    }
    match text.as_bytes().first() {
        Some(b'.') => match text.parse() {
            Ok(float) if is_float(text) => Resolved::Float(float),
            _ => Resolved::Text,
        },
        Some(b'0'..=b'9' | b'+' | b'-') => number(text),
        _ => Resolved::Text,
    }
}

fn word(text: &str) -> Option<Resolved> {
    Some(match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Resolved::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Resolved::Bool(false)
        }
        "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
        ".nan" | ".NaN" | ".NAN" => Resolved::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Resolved::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Resolved::Float(f64::NEG_INFINITY),
        "<<" => Resolved::Merge,
        _ => return None,
    })
}

fn number(text: &str) -> Resolved {
    if is_timestamp(text) {
        return Resolved::Timestamp;
    }
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.as_bytes().first() {
        Some(b'-') => (true, &plain[1..]),
        Some(b'+') => (false, &plain[1..]),
        _ => (false, plain.as_str()),
    };
    match integer(digits) {
        Some(Ok(magnitude)) => match (negative, i64::try_from(magnitude)) {
            (false, Ok(value)) => return Resolved::Int(value),
            (true, Ok(value)) => return Resolved::Int(-value),
            (true, Err(_)) if magnitude == 1 << 63 => return Resolved::Int(i64::MIN),
            // Without a sign only: Go's unsigned numbers have none.
            (false, Err(_)) if digits.len() == plain.len() => return Resolved::Unsigned(magnitude),
            _ => {}
        },
        // More than 64 bits in another base than ten.
        Some(Err(value)) if !is_float(&plain) => {
            return Resolved::Float(if negative { -value } else { value });
        }
        _ => {}
    }
    match plain.parse() {
        Ok(value) if is_float(&plain) => Resolved::Float(value),
        _ => Resolved::Text,
    }
}

/// An integer without a sign, in the base that its prefix tells; an approximation if it has more than 64 bits.
fn integer(digits: &str) -> Option<Result<u64, f64>> {
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return None;
    }
    Some(u64::from_str_radix(digits, base).map_err(|_| {
        let digits = digits.chars().filter_map(|digit| digit.to_digit(base));
        digits.fold(0.0, |value, digit| {
            value * f64::from(base) + f64::from(digit)
        })
    }))
}

/// Digits with at most one dot among or around them, and an exponent perhaps.
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    mantissa_fits && exponent_fits
}

/// A date, or a date and a time: the forms of YAML's timestamps that Go's library knows.
fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 5 || !bytes[..4].iter().all(u8::is_ascii_digit) || bytes[4] != b'-' {
        return false;
    }
    let year: i16 = text[..4].parse().unwrap_or_default();
    let mut rest = &text[5..];
    let Some(month) = short(&mut rest, 1..=12) else {
        return false;
    };
    let Some(day) = rest.strip_prefix('-').and_then(|after| {
        rest = after;
        short(&mut rest, 1..=31)
    }) else {
        return false;
    };
    if jiff::civil::Date::new(year, month, day).is_err() {
        return false;
    }
    match rest.as_bytes().first() {
        None => true,
        Some(b'T' | b't') => clock(&rest[1..]).is_some_and(is_zone),
        Some(b' ') => clock(&rest[1..]).is_some_and(str::is_empty),
        _ => false,
    }
}

/// One or two digits in a range.
fn short(rest: &mut &str, range: std::ops::RangeInclusive<i8>) -> Option<i8> {
    let count = rest.bytes().take(2).take_while(u8::is_ascii_digit).count();
    let value = rest[..count]
        .parse()
        .ok()
        .filter(|value| range.contains(value))?;
    *rest = &rest[count..];
    Some(value)
}

/// Hours, minutes, seconds and perhaps a fraction; what comes after.
fn clock(text: &str) -> Option<&str> {
    let mut rest = text;
    short(&mut rest, 0..=23)?;
    for _ in 0..2 {
        rest = rest.strip_prefix(':')?;
        short(&mut rest, 0..=59)?;
    }
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return None;
        }
        rest = &fraction[count..];
    }
    Some(rest)
}

fn is_zone(text: &str) -> bool {
    match text.as_bytes() {
        [b'Z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            [h1, h2, m1, m2].into_iter().all(u8::is_ascii_digit)
                && (*h1, *h2) <= (b'2', b'4')
                && *m1 <= b'6'
        }
        _ => false,
    }
}

/// A float as JSON has it: a whole one is an integer, as Go's `encoding/json` writes it. `None` for what is no number.
pub(super) fn float(value: f64) -> Option<Value> {
    // Whole numbers in this range are exact in both types.
    if value.fract() == 0.0 && (-9.2e18..=9.2e18).contains(&value) {
        return Some(Value::from(value as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

/// A float as Go's `%g` writes it: the shortest digits that read back as the same, with an exponent below 10⁻⁴ and from 10⁶ on.
pub(super) fn go_float(shortest: &str) -> String {
    // The shortest digits in scientific form: `-d.ddde-x`.
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or(("", mantissa), |rest| ("-", rest));
    let digits = mantissa.replace('.', "");
    if !(-4..6).contains(&exponent) {
        let mark = if exponent < 0 { '-' } else { '+' };
        let point = if digits.len() > 1 { "." } else { "" };
        return format!(
            "{sign}{}{point}{}e{mark}{:02}",
            &digits[..1],
            &digits[1..],
            exponent.abs()
        );
    }
    let Ok(whole) = usize::try_from(exponent) else {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or_default());
        return format!("{sign}0.{zeros}{digits}");
    };
    if digits.len() > whole + 1 {
        format!("{sign}{}.{}", &digits[..=whole], &digits[whole + 1..])
    } else {
        format!("{sign}{digits}{}", "0".repeat(whole + 1 - digits.len()))
    }
}
