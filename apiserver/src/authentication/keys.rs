//! The keys that sign and verify service account tokens: ECDSA P-256 (ES256) and RSA (RS256), from and to PEM.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text holds no PEM block of a key.
    #[error("no key in the PEM text")]
    Missing,
    /// A block is broken, or its key is neither P-256 nor RSA of 2048 to 8192 bits.
    #[error(
        "the {0} cannot be used: it must be an ECDSA P-256 or an RSA key of at least 2048 bits"
    )]
    Unusable(&'static str),
    /// The operating system gave no randomness, or the key could not sign.
    #[error("signing failed")]
    Signing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Es256,
    Rs256,
}

const EC_P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
const RSA: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

/// The public half of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    /// An uncompressed point, or an `RSAPublicKey` (DER).
    public: Vec<u8>,
    id: String,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} key {}", self.algorithm(), self.id)
    }
}

impl VerifyingKey {
    fn new(algorithm: Algorithm, public: Vec<u8>) -> Self {
        // The id of a key is the digest of its SubjectPublicKeyInfo, as upstream has it.
        let identifier = match algorithm {
            Algorithm::Es256 => EC_P256,
            Algorithm::Rs256 => RSA,
        };
        let mut bits = vec![0];
        bits.extend_from_slice(&public);
        let mut info = identifier.to_vec();
        write_tlv(0x03, &bits, &mut info);
        let mut der = Vec::new();
        write_tlv(0x30, &info, &mut der);
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &der));
        Self {
            algorithm,
            public,
            id,
        }
    }

    /// The public keys of all blocks of a PEM text: `PUBLIC KEY`, `RSA PUBLIC KEY`, `CERTIFICATE`, and of private keys.
    ///
    /// # Errors
    /// When there is none, or one cannot be used.
    pub fn from_pem(text: &str) -> Result<Vec<Self>, KeyError> {
        let mut keys = Vec::new();
        for (label, der) in pem_blocks(text)? {
            match label.as_str() {
                "PUBLIC KEY" => {
                    keys.push(Self::from_spki(&der).ok_or(KeyError::Unusable("public key"))?)
                }
                "RSA PUBLIC KEY" => keys.push(Self::new(Algorithm::Rs256, der)),
                "CERTIFICATE" => {
                    let key = X509Certificate::from_der(&der)
                        .ok()
                        .and_then(|(_, c)| Self::from_spki(c.public_key().raw));
                    keys.push(key.ok_or(KeyError::Unusable("certificate's key"))?);
                }
                _ => {
                    if let Some(key) = SigningKey::from_block(&label, &der)? {
                        keys.push(key.verifying);
                    }
                }
            }
        }
        if keys.is_empty() {
            Err(KeyError::Missing)
        } else {
            Ok(keys)
        }
    }

    fn from_spki(der: &[u8]) -> Option<Self> {
        let (0x30, info, _) = read_tlv(der)? else {
            return None;
        };
        let algorithm = if info.starts_with(EC_P256) {
            Algorithm::Es256
        } else if info.starts_with(RSA) {
            Algorithm::Rs256
        } else {
            return None;
        };
        let (_, _, rest) = read_tlv(info)?;
        let (0x03, bits, _) = read_tlv(rest)? else {
            return None;
        };
        let public = bits.strip_prefix(&[0])?;
        (algorithm == Algorithm::Rs256 || (public.len() == 65 && public[0] == 4))
            .then(|| Self::new(algorithm, public.to_vec()))
    }

    /// The key's id: the `kid` in a token's header.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `ES256` or `RS256`.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
        }
    }

    /// Whether the signature of a message is this key's.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self.algorithm {
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, &self.public)
            .verify(message, signature)
            .is_ok()
    }

    /// The key as a JSON web key.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self.algorithm {
            Algorithm::Es256 => {
                let (x, y) = self.public[1..].split_at(32);
                json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": encode(x), "y": encode(y)})
            }
            Algorithm::Rs256 => {
                let (n, e) = rsa_numbers(&self.public).unwrap_or_default();
                json!({"use": "sig", "kty": "RSA", "kid": self.id, "alg": "RS256", "n": encode(n), "e": encode(e)})
            }
        }
    }
}

/// A private key that signs tokens.
pub struct SigningKey {
    pair: Pair,
    verifying: VerifyingKey,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.verifying.fmt(f)
    }
}

impl SigningKey {
    /// A new ECDSA P-256 key and its PEM text, to be kept.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate() -> Result<(Self, String), KeyError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| KeyError::Signing)?;
        let key = Self::from_block("PRIVATE KEY", document.as_ref())?.ok_or(KeyError::Missing)?;
        Ok((key, pem("PRIVATE KEY", document.as_ref())))
    }

    /// The first private key of a PEM text: `PRIVATE KEY` (PKCS #8), `EC PRIVATE KEY` or `RSA PRIVATE KEY`.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        for (label, der) in pem_blocks(text)? {
            if let Some(key) = Self::from_block(&label, &der)? {
                return Ok(key);
            }
        }
        Err(KeyError::Missing)
    }

    fn from_block(label: &str, der: &[u8]) -> Result<Option<Self>, KeyError> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = SystemRandom::new();
        let pair = match label {
            "PRIVATE KEY" => match EcdsaKeyPair::from_pkcs8(algorithm, der, &random) {
                Ok(pair) => Some(Pair::Ec(pair)),
                Err(_) => RsaKeyPair::from_pkcs8(der).ok().map(Pair::Rsa),
            },
            "EC PRIVATE KEY" => sec1(der).and_then(|(private, public)| {
                EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public, &random)
                    .ok()
                    .map(Pair::Ec)
            }),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(der).ok().map(Pair::Rsa),
            _ => return Ok(None),
        };
        let pair = pair.ok_or(KeyError::Unusable("private key"))?;
        let verifying = match &pair {
            Pair::Ec(pair) => {
                VerifyingKey::new(Algorithm::Es256, pair.public_key().as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                VerifyingKey::new(Algorithm::Rs256, pair.public_key().as_ref().to_vec())
            }
        };
        Ok(Some(Self { pair, verifying }))
    }

    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// Signs a message.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => Ok(pair
                .sign(&random, message)
                .map_err(|_| KeyError::Signing)?
                .as_ref()
                .to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| KeyError::Signing)?;
                Ok(signature)
            }
        }
    }
}

/// The blocks of a PEM text: label and DER.
fn pem_blocks(text: &str) -> Result<Vec<(String, Vec<u8>)>, KeyError> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = line
            .strip_prefix("-----BEGIN ")
            .and_then(|l| l.strip_suffix("-----"))
        {
            open = Some((label.to_owned(), String::new()));
        } else if line.starts_with("-----END ") {
            if let Some((label, body)) = open.take() {
                blocks.push((
                    label,
                    STANDARD
                        .decode(body)
                        .map_err(|_| KeyError::Unusable("PEM block"))?,
                ));
            }
        } else if let Some((_, body)) = &mut open {
            body.push_str(line);
        }
    }
    Ok(blocks)
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap_or_default())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// The first element of a DER text: its tag, its content, and what comes behind it.
fn read_tlv(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (bytes, behind) = rest.split_at_checked(count)?;
        rest = behind;
        bytes
            .iter()
            .fold(0, |length, byte| (length << 8) | usize::from(*byte))
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}

fn write_tlv(tag: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    let bytes = content.len().to_be_bytes();
    let length = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    match length {
        [] => out.push(0),
        [one] if *one < 0x80 => out.push(*one),
        // A `usize` has at most eight bytes.
        many => {
            out.push(0x80 | many.len() as u8);
            out.extend_from_slice(many);
        }
    }
    out.extend_from_slice(content);
}

/// Private key and public point of a SEC 1 `ECPrivateKey`.
fn sec1(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (0x30, content, _) = read_tlv(der)? else {
        return None;
    };
    let (0x02, _, rest) = read_tlv(content)? else {
        return None;
    };
    let (0x04, private, mut rest) = read_tlv(rest)? else {
        return None;
    };
    while let Some((tag, content, behind)) = read_tlv(rest) {
        if tag == 0xa1 {
            let (0x03, bits, _) = read_tlv(content)? else {
                return None;
            };
            return Some((private, bits.strip_prefix(&[0])?));
        }
        rest = behind;
    }
    None
}

/// Modulus and exponent of an `RSAPublicKey`, without leading zeros.
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (0x30, content, _) = read_tlv(der)? else {
        return None;
    };
    let (0x02, modulus, rest) = read_tlv(content)? else {
        return None;
    };
    let (0x02, exponent, _) = read_tlv(rest)? else {
        return None;
    };
    let trim = |number: &'_ [u8]| number.iter().take_while(|byte| **byte == 0).count();
    Some((&modulus[trim(modulus)..], &exponent[trim(exponent)..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_signs_and_comes_back_from_its_pem() {
        let (key, text) = SigningKey::generate().unwrap();
        let again = SigningKey::from_pem(&text).unwrap();
        assert_eq!(key.verifying_key(), again.verifying_key());
        let signature = again.sign(b"message").unwrap();
        assert_eq!(signature.len(), 64);
        assert!(key.verifying_key().verifies(b"message", &signature));
        assert!(!key.verifying_key().verifies(b"massage", &signature));
        let public = VerifyingKey::from_pem(&text).unwrap();
        assert_eq!(public, [key.verifying_key().clone()]);
        let jwk = key.verifying_key().jwk();
        assert_eq!(
            (
                jwk["kty"].as_str(),
                jwk["crv"].as_str(),
                jwk["alg"].as_str()
            ),
            (Some("EC"), Some("P-256"), Some("ES256"))
        );
        assert_eq!(
            URL_SAFE_NO_PAD
                .decode(jwk["x"].as_str().unwrap())
                .unwrap()
                .len(),
            32
        );
    }

    #[test]
    fn keys_of_openssl_are_read() {
        // `openssl ecparam -name prime256v1 -genkey -noout`, and its public half by `openssl pkey -pubout`.
        const PRIVATE: &str = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIDlM7MOJ2UfNXX8ZscCtA9UJbw+vkDlvpAHqywtACHHCoAoGCCqGSM49\nAwEHoUQDQgAEFiFgJ9Z3kYnh8mknua4L/luVNClNLG+l6uN+VbNNSFaw/x//+KVK\npqWWwBOKLcr9TNX0Nlxf+QwKLZlf0vIWcw==\n-----END EC PRIVATE KEY-----\n";
        const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFiFgJ9Z3kYnh8mknua4L/luVNClN\nLG+l6uN+VbNNSFaw/x//+KVKpqWWwBOKLcr9TNX0Nlxf+QwKLZlf0vIWcw==\n-----END PUBLIC KEY-----\n";
        let key = SigningKey::from_pem(PRIVATE).unwrap();
        assert_eq!(
            VerifyingKey::from_pem(PUBLIC).unwrap(),
            [key.verifying_key().clone()]
        );
        let signature = key.sign(b"m").unwrap();
        assert!(key.verifying_key().verifies(b"m", &signature));
        // `openssl rsa -pubout` of a key of 2048 bits.
        const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAm3qaBL1CTYO72uNQLjyM\n8DuPSYDE6Wt+WyHD7O99B4ZCrLVgzPbJm4PltnVthYUXvWB3A1uR+LzB4i1zf1bU\nYgHNZseROIzPENxJvX1ZaQ52mP7lHN56ZJmHWMIEG8sQMYoevTgAccjgTd0+dDpS\nORgp/mOAcOK62MlwTWU0qNnMnPeGR2ApRbiuPehORKT0Am8LhScIUJNYYtJjvFCM\ndO8nNpYApdnDTA2/3/14H9L/WiEuoGg0e4MLrczoIxX7r70xth6Mcy33AU+KiUYH\n0iYMBYFVhI+GHUH2glYLmAjd0CFQaInAXvJQfIwRLOwUKhDCIBHGKBYPySpqbEQ5\nEQIDAQAB\n-----END PUBLIC KEY-----\n";
        let rsa = VerifyingKey::from_pem(RSA_PUBLIC).unwrap().remove(0);
        assert_eq!(rsa.algorithm(), "RS256");
        let jwk = rsa.jwk();
        assert_eq!(jwk["e"], "AQAB");
        assert_eq!(
            URL_SAFE_NO_PAD
                .decode(jwk["n"].as_str().unwrap())
                .unwrap()
                .len(),
            256
        );
        assert!(!rsa.verifies(b"m", &signature));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(SigningKey::from_pem("").err(), Some(KeyError::Missing));
        assert_eq!(
            VerifyingKey::from_pem("hello").err(),
            Some(KeyError::Missing)
        );
        let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(
            SigningKey::from_pem(broken).err(),
            Some(KeyError::Unusable("private key"))
        );
        let broken = "-----BEGIN PUBLIC KEY-----\n***\n-----END PUBLIC KEY-----\n";
        assert_eq!(
            VerifyingKey::from_pem(broken).err(),
            Some(KeyError::Unusable("PEM block"))
        );
    }

    #[test]
    fn der_lengths_round_trip() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; length];
            let mut der = Vec::new();
            write_tlv(0x30, &content, &mut der);
            der.push(9);
            assert_eq!(
                read_tlv(&der),
                Some((0x30, content.as_slice(), [9].as_slice())),
                "{length}"
            );
            assert!(length == 0 || read_tlv(&der[..der.len() - 2]).is_none());
        }
        assert_eq!(read_tlv(&[0x30, 0x85, 1, 1, 1, 1, 1]), None);
        assert_eq!(read_tlv(&[0x30, 5, 1]), None);
    }
}
