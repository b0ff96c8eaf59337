//! [`Quantity`]: the amounts of resources, such as `500m` of a core or `1.5Gi` of memory.
//!
//! Amounts are exact, down to a thousand-millionth (`1n`); what is written finer is rounded away from zero, so that who asks for
//! something never gets nothing. Three families of suffixes exist, and an amount stays in the one that it was written in:
//!
//! | family | suffixes |
//! |---|---|
//! | [`Format::DecimalSi`] | `n u m` none `k M G T P E`, powers of 1000 |
//! | [`Format::BinarySi`] | `Ki Mi Gi Ti Pi Ei`, powers of 1024 |
//! | [`Format::DecimalExponent`] | `e3`, `E-3`, … |
//!
//! ```
//! use orlop_core::quantity::Quantity;
//! let memory: Quantity = "1.5Gi".parse()?;
//! assert_eq!(memory.to_string(), "1536Mi");
//! assert_eq!(memory.text(), "1.5Gi");
//! assert_eq!(memory.value(), 1_610_612_736);
//! assert_eq!("100m".parse::<Quantity>()?.milli_value(), 100);
//! assert!("1Gi".parse::<Quantity>()? > "1G".parse()?);
//! # Ok::<(), orlop_core::quantity::ParseError>(())
//! ```

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that is not a quantity. The messages are Kubernetes' own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The text has not the form of a number and a suffix.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// There is no such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The family of suffixes in which a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `m`, none, `k`, `M`, …: powers of a thousand. The default.
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, …: powers of 1024.
    BinarySi,
    /// `e3`, `e6`, …: powers of ten.
    DecimalExponent,
}

/// The unit of a scaled value, as a power of ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the SI's own names
pub enum Scale {
    Nano = -9,
    Micro = -6,
    Milli = -3,
    One = 0,
    Kilo = 3,
    Mega = 6,
    Giga = 9,
    Tera = 12,
    Peta = 15,
    Exa = 18,
}

/// How many of the smallest unit make one.
const NANOS: i128 = 1_000_000_000;
/// The most that a quantity with a binary suffix can be: larger ones are cut.
const BINARY_MAX: i128 = i64::MAX as i128 * NANOS;
const DECIMAL_SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// An exact amount, which remembers how it was written.
///
/// Equality, order and hash are those of the amount: `1000m` equals `1`. Printing and serialising give Kubernetes' canonical form (the
/// largest suffix of the family that needs no fraction), [`text`](Self::text) what was read. Sums saturate at about ±1.7 × 10²⁹.
#[derive(Clone, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
    /// What was read, if it was read.
    text: Option<Arc<str>>,
    /// Whether `text` is what Kubernetes would print for it.
    printed: bool,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self::from_nanos(0, Format::DecimalSi);

    const fn from_nanos(nanos: i128, format: Format) -> Self {
        Self {
            nanos,
            format,
            text: None,
            printed: false,
        }
    }

    /// A whole number of units.
    #[must_use]
    pub const fn new(value: i64, format: Format) -> Self {
        Self::from_nanos(value as i128 * NANOS, format)
    }

    /// A number of thousandths.
    #[must_use]
    pub const fn from_milli(value: i64) -> Self {
        Self::from_nanos(value as i128 * (NANOS / 1000), Format::DecimalSi)
    }

    /// A number of units of a scale.
    #[must_use]
    pub const fn from_scaled(value: i64, scale: Scale) -> Self {
        let factor = 10i128.pow((scale as i32 + 9) as u32);
        Self::from_nanos((value as i128).saturating_mul(factor), Format::DecimalSi)
    }

    /// Reads a quantity.
    ///
    /// # Errors
    /// [`ParseError`] when the text is no number with a suffix.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse(text)
    }

    /// The text that was read, or the canonical form of a quantity that was computed.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match &self.text {
            Some(text) => Cow::Borrowed(text),
            None => Cow::Owned(self.to_string()),
        }
    }

    /// The family of suffixes in which it is printed.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The same amount, printed in another family.
    #[must_use]
    pub fn with_format(&self, format: Format) -> Self {
        Self::from_nanos(self.nanos, format)
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    #[must_use]
    pub const fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// The amount in whole units, rounded away from zero, and cut to what 64 bits hold.
    #[must_use]
    pub const fn value(&self) -> i64 {
        self.scaled_value(Scale::One)
    }

    /// The amount in thousandths, rounded away from zero, and cut to what 64 bits hold.
    #[must_use]
    pub const fn milli_value(&self) -> i64 {
        self.scaled_value(Scale::Milli)
    }

    /// The amount in units of a scale, rounded away from zero, and cut to what 64 bits hold.
    #[must_use]
    pub const fn scaled_value(&self, scale: Scale) -> i64 {
        let unit = 10i128.pow((scale as i32 + 9) as u32);
        let (whole, rest) = (self.nanos / unit, self.nanos % unit);
        let rounded = whole + rest.signum();
        if rounded > i64::MAX as i128 {
            i64::MAX
        } else if rounded < i64::MIN as i128 {
            i64::MIN
        } else {
            rounded as i64
        }
    }

    /// The amount in whole units, if it is a whole number that 64 bits hold.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        (self.nanos % NANOS == 0)
            .then(|| i64::try_from(self.nanos / NANOS).ok())
            .flatten()
    }

    /// The amount as a floating point number, about.
    #[must_use]
    pub fn approximate(&self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// The amount times a whole number.
    #[must_use]
    pub const fn times(&self, factor: i64) -> Self {
        Self::from_nanos(self.nanos.saturating_mul(factor as i128), self.format)
    }

    /// Rounds away from zero to whole units of a scale.
    #[must_use]
    pub const fn round_up(&self, scale: Scale) -> Self {
        let unit = 10i128.pow((scale as i32 + 9) as u32);
        let (whole, rest) = (self.nanos / unit, self.nanos % unit);
        Self::from_nanos((whole + rest.signum()).saturating_mul(unit), self.format)
    }

    fn write_decimal(&self, f: &mut fmt::Formatter<'_>, exponent_form: bool) -> fmt::Result {
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while mantissa % 1000 == 0 && (exponent_form || exponent < 18) {
            mantissa /= 1000;
            exponent += 3;
        }
        if !exponent_form {
            let suffix = DECIMAL_SUFFIXES[((exponent + 9) / 3) as usize];
            write!(f, "{mantissa}{suffix}")
        } else if exponent == 0 {
            write!(f, "{mantissa}")
        } else {
            write!(f, "{mantissa}e{exponent}")
        }
    }
}

impl fmt::Display for Quantity {
    /// The canonical form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.text.as_deref().filter(|_| self.printed) {
            return f.write_str(text);
        }
        if self.is_zero() {
            return f.write_str("0");
        }
        match self.format {
            // Small ones and fractions would lose something in powers of 1024.
            Format::BinarySi if self.nanos.abs() < 1024 * NANOS || self.nanos % NANOS != 0 => {
                self.write_decimal(f, false)
            }
            Format::BinarySi => {
                let (mut mantissa, mut power) = (self.nanos / NANOS, 0);
                while mantissa % 1024 == 0 && power < BINARY_SUFFIXES.len() - 1 {
                    mantissa /= 1024;
                    power += 1;
                }
                write!(f, "{mantissa}{}", BINARY_SUFFIXES[power])
            }
            Format::DecimalSi => self.write_decimal(f, false),
            Format::DecimalExponent => self.write_decimal(f, true),
        }
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quantity({self})")
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl AddAssign<&Quantity> for Quantity {
    /// Adds. Nothing takes on the family of what is added to it.
    fn add_assign(&mut self, other: &Quantity) {
        let format = if self.is_zero() {
            other.format
        } else {
            self.format
        };
        *self = Self::from_nanos(self.nanos.saturating_add(other.nanos), format);
    }
}

impl SubAssign<&Quantity> for Quantity {
    /// Subtracts. Nothing takes on the family of what is subtracted from it.
    fn sub_assign(&mut self, other: &Quantity) {
        let format = if self.is_zero() {
            other.format
        } else {
            self.format
        };
        *self = Self::from_nanos(self.nanos.saturating_sub(other.nanos), format);
    }
}

impl Add<&Quantity> for &Quantity {
    type Output = Quantity;

    fn add(self, other: &Quantity) -> Quantity {
        let mut sum = self.clone();
        sum += other;
        sum
    }
}

impl Sub<&Quantity> for &Quantity {
    type Output = Quantity;

    fn sub(self, other: &Quantity) -> Quantity {
        let mut rest = self.clone();
        rest -= other;
        rest
    }
}

impl Neg for &Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity::from_nanos(self.nanos.saturating_neg(), self.format)
    }
}

impl<'a> Sum<&'a Quantity> for Quantity {
    fn sum<I: Iterator<Item = &'a Quantity>>(iter: I) -> Self {
        iter.fold(Self::ZERO, |mut sum, next| {
            sum += next;
            sum
        })
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// Reads text, a number, or nothing at all (zero).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity: text or a number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                parse(text.trim()).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Quantity, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_unit<E: de::Error>(self) -> Result<Quantity, E> {
                Ok(Quantity::ZERO)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// The canonical form of a quantity's text, as the API server writes it back; borrowed when the text has it already.
///
/// ```
/// use orlop_core::quantity::canonicalise;
/// assert_eq!(canonicalise("1000m").unwrap(), "1");
/// assert_eq!(canonicalise("0.5Gi").unwrap(), "512Mi");
/// ```
///
/// # Errors
/// [`ParseError`] when the text is no quantity.
pub fn canonicalise(text: &str) -> Result<Cow<'_, str>, ParseError> {
    let quantity = parse(text)?;
    if quantity.printed {
        return Ok(Cow::Borrowed(text));
    }
    let canonical = quantity.to_string();
    Ok(if canonical == text {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(canonical)
    })
}

/// What a suffix multiplies by.
enum Factor {
    /// A power of ten.
    Ten(i32),
    /// A power of two.
    Two(u32),
}

fn interpret(suffix: &str) -> Option<(Factor, Format)> {
    if let Some(place) = DECIMAL_SUFFIXES.iter().position(|known| *known == suffix) {
        return Some((Factor::Ten(place as i32 * 3 - 9), Format::DecimalSi));
    }
    if let Some(power) = BINARY_SUFFIXES.iter().position(|known| *known == suffix) {
        return Some((Factor::Two(power as u32 * 10), Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let exponent: i64 = exponent.parse().ok()?;
    // Past this every amount is either the smallest or the largest one.
    let exponent = exponent.clamp(-100_000, 100_000) as i32;
    Some((Factor::Ten(exponent), Format::DecimalExponent))
}

/// The length of the prefix made of the given characters.
fn span(text: &str, allowed: impl Fn(char) -> bool) -> usize {
    text.find(|c| !allowed(c)).unwrap_or(text.len())
}

fn parse(text: &str) -> Result<Quantity, ParseError> {
    if text.is_empty() {
        return Err(ParseError::Format);
    }
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let rest = rest.trim_start_matches('0');
    let (whole, rest) = rest.split_at(span(rest, |c| c.is_ascii_digit()));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(span(rest, |c| c.is_ascii_digit())),
        None => ("", rest),
    };
    let tail = &suffix[span(suffix, |c| "eEinumkKMGTP".contains(c))..];
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if tail.contains(|c: char| !c.is_ascii_digit()) {
        return Err(ParseError::Format);
    }
    let (factor, mut format) = interpret(suffix).ok_or(ParseError::Suffix)?;

    let amount = match factor {
        Factor::Ten(exponent) => decimal(whole, fraction, exponent),
        Factor::Two(exponent) => binary(whole, fraction, exponent),
    };
    let printed = printed_as_written(whole, fraction, &factor, amount);
    let amount = match format {
        Format::BinarySi => amount.min(BINARY_MAX),
        _ => amount,
    };
    if format == Format::BinarySi && amount > 0 && amount < NANOS {
        format = Format::DecimalSi;
    }
    Ok(Quantity {
        nanos: if negative { -amount } else { amount },
        format,
        text: Some(text.into()),
        printed,
    })
}

/// Whether Kubernetes prints the text as it was written. It does so for texts that look canonical at a glance (small, a power of a
/// thousand, no zeros that a larger suffix could take over), even where they are not quite: `+5` and `1.500` stay.
fn printed_as_written(whole: &str, fraction: &str, factor: &Factor, amount: i128) -> bool {
    let digits = whole.len().max(1) + fraction.len();
    match *factor {
        Factor::Ten(exponent) => {
            let scale = exponent - fraction.len() as i32;
            let last_three = match fraction.len() {
                0 => whole.ends_with("000"),
                1 => fraction == "0" && whole.ends_with("00"),
                2 => fraction == "00" && whole.ends_with('0'),
                _ => fraction.ends_with("000"),
            };
            digits <= 18 && scale >= -9 && scale % 3 == 0 && !last_three && !whole.is_empty()
        }
        Factor::Two(exponent) => {
            let precise = 15 > digits as i32 + (exponent as f32 * 3.0 / 10.0) as i32;
            precise
                && fraction.is_empty()
                && amount <= BINARY_MAX
                && whole.parse::<i64>().is_ok_and(|value| value & 7 != 0)
        }
    }
}

/// `whole.fraction × 10^exponent` in the smallest unit, rounded up.
fn decimal(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let shift = 9i64 + i64::from(exponent) - fraction.len() as i64;
    let length = whole.len() + fraction.len();
    let kept = if shift < 0 {
        length.saturating_sub(shift.unsigned_abs() as usize)
    } else {
        length
    };
    let mut digits = whole
        .bytes()
        .chain(fraction.bytes())
        .map(|b| i128::from(b - b'0'));
    let mut amount: i128 = 0;
    for digit in digits.by_ref().take(kept) {
        amount = amount.saturating_mul(10).saturating_add(digit);
    }
    if digits.any(|digit| digit != 0) {
        amount = amount.saturating_add(1);
    }
    for _ in 0..shift.max(0) {
        if amount == 0 || amount == i128::MAX {
            break;
        }
        amount = amount.saturating_mul(10);
    }
    amount
}

/// `whole.fraction × 2^exponent` in the smallest unit, rounded up.
fn binary(whole: &str, fraction: &str, exponent: u32) -> i128 {
    let unit = NANOS << exponent;
    let whole = whole.bytes().fold(0i128, |sum, b| {
        sum.saturating_mul(10).saturating_add(i128::from(b - b'0'))
    });
    // From the last digit to the first, each time a tenth of what stands behind: exact but for the remainders, which only round.
    let (part, inexact) = fraction
        .bytes()
        .rev()
        .fold((0i128, false), |(part, inexact), b| {
            let sum = part + i128::from(b - b'0') * unit;
            (sum / 10, inexact || sum % 10 != 0)
        });
    whole
        .saturating_mul(unit)
        .saturating_add(part + i128::from(inexact))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn q(text: &str) -> Quantity {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("0m", "0"),
            ("1000m", "1"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1024Ki", "1Mi"),
            ("1023Ki", "1023Ki"),
            ("8Ki", "8Ki"),
            ("1024Ei", "9223372036854775807"),
            ("512Ki", "512Ki"),
            ("1000", "1k"),
            ("1100", "1100"),
            ("1500000", "1500k"),
            ("1000000k", "1G"),
            ("5e3", "5e3"),
            ("5E3", "5E3"),
            ("12.5e3", "12500"),
            ("1000e3", "1e6"),
            ("100e-3", "100e-3"),
            ("1E", "1E"),
            ("1000E", "1000E"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1.2345678901", "1234567891n"),
            ("0.1Ki", "102400m"),
            ("1.1Ki", "1126400m"),
            (".5", "500m"),
            ("1.", "1."),
            ("-1.5Gi", "-1536Mi"),
            ("+5", "+5"),
            ("1.500", "1.500"),
            ("1000Ki", "1000Ki"),
            ("10.000", "10"),
            ("9223372036854775807", "9223372036854775807"),
        ] {
            assert_eq!(q(text).to_string(), canonical, "{text}");
            assert_eq!(canonicalise(text).unwrap(), canonical, "{text}");
            assert_eq!(q(text).text(), text);
        }
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "", "1 Gi", "abc", "1.1.M", "1+1.0M", "1Gi ", "0.1am", "1Mi3x", "1,5", "é",
        ] {
            assert_eq!(Quantity::parse(text), Err(ParseError::Format), "{text}");
        }
        for text in ["1i", "1mi", "1e", "-3.01e-", "1K", "1e99999999999999999999"] {
            assert_eq!(Quantity::parse(text), Err(ParseError::Suffix), "{text}");
        }
        assert_eq!(
            ParseError::Format.to_string(),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        );
    }

    #[test]
    fn whole_and_scaled_values_round_away_from_zero() {
        assert_eq!(q("1m").value(), 1);
        assert_eq!(q("-1m").value(), -1);
        assert_eq!(q("1001u").milli_value(), 2);
        assert_eq!(q("2Gi").scaled_value(Scale::Mega), 2148);
        assert_eq!(q("100E").value(), i64::MAX);
        assert_eq!(q("-100E").milli_value(), i64::MIN);
        assert_eq!(q("1e400").value(), i64::MAX);
        assert_eq!(q("1e-400"), q("1n"));
        assert_eq!(q("1500m").as_i64(), None);
        assert_eq!(q("3k").as_i64(), Some(3000));
        assert_eq!(Quantity::from_scaled(3, Scale::Giga), q("3G"));
        assert_eq!(q("1500m").round_up(Scale::One), q("2"));
    }

    #[test]
    fn sums_keep_the_family_of_the_first() {
        assert_eq!((&q("1Gi") + &q("1M")).to_string(), "1074741824");
        assert_eq!((&q("0") + &q("1Gi")).to_string(), "1Gi");
        assert_eq!((&q("1") - &q("100m")).to_string(), "900m");
        assert_eq!(
            [q("1Gi"), q("1Gi")].iter().sum::<Quantity>().to_string(),
            "2Gi"
        );
        assert_eq!((-&q("1Gi")).to_string(), "-1Gi");
        assert_eq!(q("100m").times(30).to_string(), "3");
    }

    #[test]
    fn json_has_text_and_accepts_numbers() {
        let read: Vec<Quantity> =
            serde_json::from_str(r#"["1000m", 2, 1.5, -3, null, " 1Ki "]"#).unwrap();
        assert_eq!(
            serde_json::to_string(&read).unwrap(),
            r#"["1","2","1500m","-3","0","1Ki"]"#
        );
        let error = serde_json::from_str::<Quantity>(r#""x""#)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("quantities must match the regular expression"),
            "{error}"
        );
    }

    fn written() -> impl Strategy<Value = String> {
        let suffix = prop::sample::select(vec![
            "n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
            "e3", "E-2", "e+6",
        ]);
        ("-?[0-9]{1,8}(\\.[0-9]{0,12})?", suffix).prop_map(|(number, suffix)| number + suffix)
    }

    proptest! {
        #[test]
        fn printing_and_reading_keep_the_amount(text in written()) {
            let read = q(&text);
            let printed = read.to_string();
            prop_assert_eq!(&q(&printed), &read);
            // Canonical forms are their own canonical form.
            prop_assert_eq!(q(&printed).to_string(), printed);
        }

        #[test]
        fn order_is_that_of_the_amounts(a in written(), b in written()) {
            let (a, b) = (q(&a), q(&b));
            prop_assert_eq!(a.cmp(&b), a.nanos.cmp(&b.nanos));
            let difference = &a - &b;
            prop_assert_eq!(difference.is_negative(), a < b);
            prop_assert!(a > b || a.value() <= b.value());
        }

        #[test]
        fn sums_are_commutative_and_undone(a in written(), b in written(), c in written()) {
            let (a, b, c) = (q(&a), q(&b), q(&c));
            prop_assert_eq!(&a + &b, &b + &a);
            prop_assert_eq!(&(&a + &b) + &c, &a + &(&b + &c));
            prop_assert_eq!(&(&a + &b) - &b, a);
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,12}") {
            let _ = Quantity::parse(&text);
        }
    }
}
