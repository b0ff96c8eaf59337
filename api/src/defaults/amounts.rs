//! Quantities and times in the one form in which Kubernetes writes them.

use orlop_core::quantity::{Quantity, Scale};
use serde_json::Value;

/// Maps of quantities.
const QUANTITY_MAPS: &[&str] = &[
    "limits",
    "requests",
    "capacity",
    "allocatable",
    "allocatedResources",
    "overhead",
    "podFixed",
    "hard",
    "used",
    "min",
    "max",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
];

/// Single quantities.
const QUANTITIES: &[&str] = &[
    "sizeLimit",
    "divisor",
    "averageValue",
    "maximumVolumeSize",
    "capacity",
];

/// Times to the second.
const TIMES: &[&str] = &[
    "completionTime",
    "creationTimestamp",
    "deletionTimestamp",
    "expirationTimestamp",
    "finishedAt",
    "firstTimestamp",
    "lastHeartbeatTime",
    "lastPhaseTransitionTime",
    "lastProbeTime",
    "lastScaleTime",
    "lastScheduleTime",
    "lastSuccessfulTime",
    "lastTimestamp",
    "lastTransitionTime",
    "lastUpdateTime",
    "startTime",
    "startedAt",
    "timeAdded",
];

/// Times to the microsecond.
const MICRO_TIMES: &[&str] = &["acquireTime", "renewTime", "eventTime", "lastObservedTime"];

/// Maps of texts that users fill: nothing in them is ours to change.
const OPAQUE: &[&str] = &[
    "annotations",
    "labels",
    "matchLabels",
    "nodeSelector",
    "data",
    "stringData",
    "binaryData",
    "parameters",
    "fieldsV1",
];

/// Brings every quantity and time of a document to its canonical form. What can't be read stays as it is, for the checks to
/// complain about.
pub(super) fn canonicalise(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(canonicalise),
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                let key = key.as_str();
                if OPAQUE.contains(&key) {
                    continue;
                }
                if QUANTITY_MAPS.contains(&key)
                    && let Value::Object(amounts) = value
                {
                    amounts
                        .values_mut()
                        .for_each(|amount| quantity(amount, true));
                } else if QUANTITIES.contains(&key) {
                    quantity(value, false);
                } else if TIMES.contains(&key) {
                    time(value, "%Y-%m-%dT%H:%M:%SZ");
                } else if MICRO_TIMES.contains(&key) {
                    time(value, "%Y-%m-%dT%H:%M:%S%.6fZ");
                } else {
                    canonicalise(value);
                }
            }
        }
        _ => {}
    }
}

/// One quantity. Amounts of resources are rounded up to thousandths.
pub(super) fn quantity(value: &mut Value, round: bool) {
    let parsed = match &*value {
        Value::String(text) => Quantity::parse(text),
        Value::Number(number) => Quantity::parse(&number.to_string()),
        _ => return,
    };
    if let Ok(parsed) = parsed {
        let parsed = if round {
            parsed.round_up(Scale::Milli)
        } else {
            parsed
        };
        *value = Value::String(parsed.to_string());
    }
}

fn time(value: &mut Value, form: &str) {
    if let Some(parsed) = value
        .as_str()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok())
    {
        *value = Value::String(parsed.strftime(form).to_string());
    }
}
