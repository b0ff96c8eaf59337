//! The ciphers, over the bytes behind a value's prefix.

use aes::cipher::block_padding::NoPadding;
use aes::cipher::consts::U12;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AeadInOut, AesGcm};
use crypto_secretbox::aead::generic_array::GenericArray;
use crypto_secretbox::{AeadInPlace, XSalsa20Poly1305};

/// What stands before a ciphertext of AES-GCM.
const GCM_NONCE: usize = 12;
/// AES' block, which is also the length of CBC's IV.
const BLOCK: usize = 16;
const BOX_NONCE: usize = 24;
/// What authenticates a ciphertext, of GCM and of a box.
const TAG: usize = 16;

const TOO_SHORT: &str = "the stored data was shorter than the required size";
const FORGED: &str = "cipher: message authentication failed";

/// Why a value cannot be decrypted. It never says what is in it.
pub(super) type Undecipherable = &'static str;

/// The operating system gave no randomness.
#[derive(Debug)]
pub(super) struct NoRandomness;

/// AES with a key of any of its lengths.
#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "a handful of keys, never moved")]
enum Aes {
    Short(Aes128),
    Middle(Aes192),
    Long(Aes256),
}

impl Aes {
    fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => Aes128::new_from_slice(key).ok().map(Self::Short),
            24 => Aes192::new_from_slice(key).ok().map(Self::Middle),
            32 => Aes256::new_from_slice(key).ok().map(Self::Long),
            _ => None,
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "a handful of keys, never moved")]
enum Gcm {
    Short(AesGcm<Aes128, U12>),
    Middle(AesGcm<Aes192, U12>),
    Long(AesGcm<Aes256, U12>),
}

/// A key with its algorithm. It shows nothing of itself.
pub(super) struct Cipher(Algorithm);

#[allow(clippy::large_enum_variant, reason = "a handful of keys, never moved")]
enum Algorithm {
    Gcm(Gcm),
    Cbc(Aes),
    Box(XSalsa20Poly1305),
}

/// Does the same with each length of AES' key.
macro_rules! each_length {
    ($of:ident, $value:expr, $aes:ident => $do:expr) => {
        match $value {
            $of::Short($aes) => $do,
            $of::Middle($aes) => $do,
            $of::Long($aes) => $do,
        }
    };
}

impl Cipher {
    /// AES-GCM. `None` for a key of another length than 16, 24 or 32 bytes.
    pub(super) fn gcm(key: &[u8]) -> Option<Self> {
        let gcm = match Aes::new(key)? {
            Aes::Short(aes) => Gcm::Short(aes.into()),
            Aes::Middle(aes) => Gcm::Middle(aes.into()),
            Aes::Long(aes) => Gcm::Long(aes.into()),
        };
        Some(Self(Algorithm::Gcm(gcm)))
    }

    /// AES-CBC with the padding of PKCS #7. `None` for a key of another length than 16, 24 or 32 bytes.
    pub(super) fn cbc(key: &[u8]) -> Option<Self> {
        Some(Self(Algorithm::Cbc(Aes::new(key)?)))
    }

    /// XSalsa20 and Poly1305, as NaCl's `secretbox`. `None` for a key of another length than 32 bytes.
    pub(super) fn secretbox(key: &[u8]) -> Option<Self> {
        let key: &[u8; 32] = key.try_into().ok()?;
        let secretbox = <XSalsa20Poly1305 as crypto_secretbox::KeyInit>::new(key.into());
        Some(Self(Algorithm::Box(secretbox)))
    }

    /// Whether a key should not encrypt more than so many values: random nonces of 12 bytes must not meet.
    pub(super) fn wears_out(&self) -> bool {
        matches!(self.0, Algorithm::Gcm(_))
    }

    fn nonce_length(&self) -> usize {
        match self.0 {
            Algorithm::Gcm(_) => GCM_NONCE,
            Algorithm::Cbc(_) => BLOCK,
            Algorithm::Box(_) => BOX_NONCE,
        }
    }

    /// Encrypts a value with a random nonce and appends the outcome.
    pub(super) fn seal(
        &self,
        value: &[u8],
        authenticated: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), NoRandomness> {
        let mut nonce = [0; BOX_NONCE];
        let nonce = &mut nonce[..self.nonce_length()];
        getrandom::fill(nonce).map_err(|_| NoRandomness)?;
        // A value has no more bytes than memory, far from where the algorithms' own limits lie.
        self.seal_with(nonce, value, authenticated, out)
            .map_err(|_| NoRandomness)
    }

    /// The same, with a nonce that is given.
    pub(super) fn seal_with(
        &self,
        nonce: &[u8],
        value: &[u8],
        authenticated: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Undecipherable> {
        out.reserve(nonce.len() + value.len() + TAG);
        out.extend_from_slice(nonce);
        let begin = out.len();
        match &self.0 {
            Algorithm::Gcm(gcm) => {
                out.extend_from_slice(value);
                let nonce: &[u8; GCM_NONCE] = nonce.try_into().map_err(|_| TOO_SHORT)?;
                let tag = each_length!(Gcm, gcm, aes => aes.encrypt_inout_detached(
                    nonce.into(),
                    authenticated,
                    (&mut out[begin..]).into(),
                ));
                out.extend_from_slice(&tag.map_err(|_| FORGED)?);
            }
            Algorithm::Cbc(aes) => {
                out.extend_from_slice(value);
                let padding = BLOCK - value.len() % BLOCK;
                // Below 17, so that it fits.
                out.resize(out.len() + padding, padding as u8);
                let length = out.len() - begin;
                let sealed = each_length!(Aes, aes, aes => {
                    cbc::Encryptor::inner_iv_slice_init(aes.clone(), nonce)
                        .map_err(|_| TOO_SHORT)?
                        .encrypt_padded::<NoPadding>(&mut out[begin..], length)
                        .map(|_| ())
                });
                sealed.map_err(|_| FORGED)?;
            }
            Algorithm::Box(secretbox) => {
                out.resize(begin + TAG, 0);
                out.extend_from_slice(value);
                let tag = secretbox
                    .encrypt_in_place_detached(
                        GenericArray::from_slice(nonce),
                        b"",
                        &mut out[begin + TAG..],
                    )
                    .map_err(|_| FORGED)?;
                out[begin..begin + TAG].copy_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// Decrypts what [`seal`](Self::seal) appended.
    pub(super) fn open(
        &self,
        data: &[u8],
        authenticated: &[u8],
    ) -> Result<Vec<u8>, Undecipherable> {
        let (nonce, data) = data
            .split_at_checked(self.nonce_length())
            .ok_or(TOO_SHORT)?;
        match &self.0 {
            Algorithm::Gcm(gcm) => {
                let length = data.len().checked_sub(TAG).ok_or(FORGED)?;
                let (sealed, tag) = data.split_at(length);
                let nonce: &[u8; GCM_NONCE] = nonce.try_into().map_err(|_| TOO_SHORT)?;
                let tag: &[u8; TAG] = tag.try_into().map_err(|_| FORGED)?;
                let mut value = sealed.to_vec();
                let opened = each_length!(Gcm, gcm, aes => aes.decrypt_inout_detached(
                    nonce.into(),
                    authenticated,
                    value.as_mut_slice().into(),
                    tag.into(),
                ));
                opened.map_err(|_| FORGED)?;
                Ok(value)
            }
            Algorithm::Cbc(aes) => {
                if !data.len().is_multiple_of(BLOCK) {
                    return Err("the stored data is not a multiple of the block size");
                }
                let mut value = data.to_vec();
                let opened = each_length!(Aes, aes, aes => {
                    cbc::Decryptor::inner_iv_slice_init(aes.clone(), nonce)
                        .map_err(|_| TOO_SHORT)?
                        .decrypt_padded::<NoPadding>(&mut value)
                        .map(|_| ())
                });
                opened.map_err(|_| FORGED)?;
                let length = unpadded(&value)?;
                value.truncate(length);
                Ok(value)
            }
            Algorithm::Box(secretbox) => {
                let (tag, sealed) = data.split_at_checked(TAG).ok_or(FORGED)?;
                let mut value = sealed.to_vec();
                secretbox
                    .decrypt_in_place_detached(
                        GenericArray::from_slice(nonce),
                        b"",
                        &mut value,
                        GenericArray::from_slice(tag),
                    )
                    .map_err(|_| FORGED)?;
                Ok(value)
            }
        }
    }
}

/// How long a value is without the padding of PKCS #7, which may be longer than a block here as it may be in kube-apiserver.
fn unpadded(value: &[u8]) -> Result<usize, Undecipherable> {
    let padding = value.last().copied().unwrap_or(0);
    let length = value
        .len()
        .checked_sub(usize::from(padding))
        .filter(|_| padding > 0)
        .ok_or("invalid PKCS7 data (empty or not padded)")?;
    if value[length..].iter().any(|byte| *byte != padding) {
        return Err("invalid padding on input");
    }
    Ok(length)
}
