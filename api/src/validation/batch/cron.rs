//! Schedules in the five fields of cron, and their shorthands.

/// The months and the days of the week by name.
const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Field {
    low: i64,
    high: i64,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        low: 0,
        high: 59,
        names: &[],
    },
    Field {
        low: 0,
        high: 23,
        names: &[],
    },
    Field {
        low: 1,
        high: 31,
        names: &[],
    },
    Field {
        low: 1,
        high: 12,
        names: &MONTHS,
    },
    Field {
        low: 0,
        high: 6,
        names: &DAYS,
    },
];

/// Checks a schedule.
///
/// # Errors
/// What is wrong with it, in the words of the parser that Kubernetes uses.
pub(crate) fn check(schedule: &str) -> Result<(), String> {
    if schedule.is_empty() {
        return Err("empty spec string".to_owned());
    }
    let mut rest = schedule;
    if let Some(zoned) = schedule
        .strip_prefix("CRON_TZ=")
        .or_else(|| schedule.strip_prefix("TZ="))
    {
        rest = zoned.split_once(' ').map_or("", |(_, rest)| rest).trim();
    }
    if rest.starts_with('@') {
        return descriptor(rest);
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    }
    fields.iter().zip(&FIELDS).try_for_each(|(text, field)| {
        text.split(',')
            .filter(|part| !part.is_empty())
            .try_for_each(|part| range(part, field))
    })
}

fn descriptor(text: &str) -> Result<(), String> {
    match text {
        "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight" | "@hourly" => {
            Ok(())
        }
        _ => match text.strip_prefix("@every ") {
            Some(duration) if duration_is_good(duration) => Ok(()),
            Some(duration) => Err(format!(
                "failed to parse duration {text}: time: invalid duration {}",
                orlop_core::field::quote(duration)
            )),
            None => Err(format!("unrecognized descriptor: {text}")),
        },
    }
}

/// A duration of Go's: signed numbers with units, such as `1h30m`.
fn duration_is_good(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    if text == "0" {
        return true;
    }
    let mut rest = text;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number = &rest[..digits];
        if number.is_empty() || number == "." || number.matches('.').count() > 1 {
            return false;
        }
        rest = &rest[digits..];
        let Some(unit) = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"]
            .iter()
            .filter(|unit| rest.starts_with(**unit))
            .max_by_key(|u| u.len())
        else {
            return false;
        };
        rest = &rest[unit.len()..];
        parts += 1;
    }
    parts > 0
}

/// One of the alternatives of a field: `*`, `7`, `1-5`, each with an optional step.
fn range(text: &str, field: &Field) -> Result<(), String> {
    let with_step: Vec<&str> = text.split('/').collect();
    let bounds: Vec<&str> = with_step[0].split('-').collect();
    let single = bounds.len() == 1;
    let (start, mut end) = if matches!(bounds[0], "*" | "?") {
        (field.low, field.high)
    } else {
        let start = number(bounds[0], field)?;
        let end = match bounds[..] {
            [_] => start,
            [_, end] => number(end, field)?,
            _ => return Err(format!("too many hyphens: {text}")),
        };
        (start, end)
    };
    let step = match with_step[..] {
        [_] => 1,
        [_, step] => {
            let step = whole(step)?;
            if single && !matches!(bounds[0], "*" | "?") {
                end = field.high;
            }
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < field.low {
        return Err(format!(
            "beginning of range ({start}) below minimum ({}): {text}",
            field.low
        ));
    }
    if end > field.high {
        return Err(format!(
            "end of range ({end}) above maximum ({}): {text}",
            field.high
        ));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

fn number(text: &str, field: &Field) -> Result<i64, String> {
    let lower = text.to_lowercase();
    match field.names.iter().position(|name| *name == lower) {
        Some(position) => Ok(i64::try_from(position).unwrap_or_default() + field.low),
        None => whole(text),
    }
}

fn whole(text: &str) -> Result<i64, String> {
    let number: i64 = text.parse().map_err(|_| {
        format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {}: invalid syntax",
            orlop_core::field::quote(text)
        )
    })?;
    if number < 0 {
        Err(format!("negative number ({number}) not allowed: {text}"))
    } else {
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_schedules() {
        for schedule in [
            "* * * * *",
            "*/5 0-23/2 1,15 jan-mar mon",
            "@hourly",
            "@every 1h30m",
            "CRON_TZ=UTC 0 0 * * *",
            "0 0 ? * 6",
        ] {
            assert_eq!(check(schedule), Ok(()), "{schedule}");
        }
    }

    #[test]
    fn bad_schedules_and_why() {
        for (schedule, why) in [
            ("nope", "expected exactly 5 fields, found 1: [nope]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "5-2 * * * *",
                "beginning of range (5) beyond end of range (2): 5-2",
            ),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("@never", "unrecognized descriptor: @never"),
            (
                "@every 1x",
                "failed to parse duration @every 1x: time: invalid duration \"1x\"",
            ),
        ] {
            assert_eq!(check(schedule), Err(why.to_owned()), "{schedule}");
        }
    }
}
