//! The little of DER that is needed where the libraries stop.

/// Tags of the elements that are written here.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Object identifiers, whole elements.
pub(super) const OID_COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 4, 3];
pub(super) const OID_ORGANIZATION: &[u8] = &[0x06, 3, 0x55, 4, 10];
const OID_RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const OID_EC_PUBLIC_KEY: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const OID_P256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const OID_P384: &[u8] = &[0x06, 5, 0x2b, 0x81, 4, 0, 34];
const NULL: &[u8] = &[0x05, 0];

/// One element: tag, length, content.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    if let Ok(short @ 0..=0x7f) = u8::try_from(length) {
        out.push(short);
    } else {
        let bytes = length.to_be_bytes();
        let skip = bytes.iter().take_while(|byte| **byte == 0).count();
        // At most eight bytes of length.
        out.push(0x80 | (bytes.len() - skip) as u8);
        out.extend_from_slice(&bytes[skip..]);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// An X.501 name: every organization in its own part, then the common name, the order in which Go writes them.
pub(super) fn name<'a>(
    organizations: impl IntoIterator<Item = &'a str>,
    common_name: &str,
) -> Vec<u8> {
    let part = |oid: &[u8], text: &str| {
        let value = element(UTF8_STRING, &[text.as_bytes()]);
        element(SET, &[&element(SEQUENCE, &[oid, &value])])
    };
    let mut parts: Vec<u8> = organizations
        .into_iter()
        .flat_map(|text| part(OID_ORGANIZATION, text))
        .collect();
    if !common_name.is_empty() {
        parts.extend(part(OID_COMMON_NAME, common_name));
    }
    element(SEQUENCE, &[&parts])
}

/// PKCS #8 around an RSA key as OpenSSL and kubeadm write it (PKCS #1).
pub(super) fn pkcs8_from_pkcs1(pkcs1: &[u8]) -> Vec<u8> {
    let algorithm = element(SEQUENCE, &[OID_RSA, NULL]);
    element(
        SEQUENCE,
        &[
            &element(INTEGER, &[&[0]]),
            &algorithm,
            &element(OCTET_STRING, &[pkcs1]),
        ],
    )
}

/// PKCS #8 around an elliptic curve key in SEC 1's form. The curve is told by the length of the key.
pub(super) fn pkcs8_from_sec1(sec1: &[u8]) -> Vec<u8> {
    // SEQUENCE, INTEGER 1, OCTET STRING of the curve's size; the P-256 form has a one-byte length everywhere but in front.
    let p384 = sec1.windows(5).next().is_some()
        && sec1
            .windows(5)
            .take(4)
            .any(|w| w == [INTEGER, 1, 1, OCTET_STRING, 48]);
    let curve = if p384 { OID_P384 } else { OID_P256 };
    let algorithm = element(SEQUENCE, &[OID_EC_PUBLIC_KEY, curve]);
    element(
        SEQUENCE,
        &[
            &element(INTEGER, &[&[0]]),
            &algorithm,
            &element(OCTET_STRING, &[sec1]),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_short_as_can_be() {
        assert_eq!(element(SEQUENCE, &[]), [0x30, 0]);
        assert_eq!(element(OCTET_STRING, &[&[7; 127]])[..2], [4, 127]);
        assert_eq!(element(OCTET_STRING, &[&[7; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(
            element(OCTET_STRING, &[&[7; 200], &[7; 100]])[..4],
            [4, 0x82, 1, 44]
        );
    }
}
