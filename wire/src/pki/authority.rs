//! A certificate authority.

use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SigningKey,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;

use super::der;
use super::identity::CertificateIdentity;
use super::keys::{KeyAndCertificate, belongs, certificates_from_pem, key_pair_from_pem};
use crate::Error;

/// How far back the validity of what is issued begins, for clients whose clock is late.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// A name that a server certificate is good for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubjectName {
    /// A DNS name, which may begin with `*.`.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

impl From<&str> for SubjectName {
    fn from(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Dns(text.to_owned()), Self::Ip)
    }
}

impl From<IpAddr> for SubjectName {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

impl std::fmt::Display for SubjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// What a certificate is for.
#[derive(Clone, Copy)]
enum Purpose {
    Server,
    Client,
}

/// A certificate authority: its certificate and the key that signs.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    identity: CertificateIdentity,
    pem: KeyAndCertificate,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// A new authority that signs its own certificate, with a new key, valid from now on for a time.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn create(common_name: &str, now: Timestamp, validity: Duration) -> Result<Self, Error> {
        Self::create_with_key(KeyPair::generate()?, common_name, now, validity)
    }

    /// The same with a key that is there already (PEM).
    ///
    /// # Errors
    /// [`Error::Pem`], [`Error::Issue`].
    pub fn create_for_key(
        key: &str,
        common_name: &str,
        now: Timestamp,
        validity: Duration,
    ) -> Result<Self, Error> {
        Self::create_with_key(
            key_pair_from_pem("CA key", key)?,
            common_name,
            now,
            validity,
        )
    }

    fn create_with_key(
        key: KeyPair,
        common_name: &str,
        now: Timestamp,
        validity: Duration,
    ) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        set_validity(&mut params, earlier(now, BACKDATE), later(now, validity));
        params.serial_number = Some(serial_number()?);
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        let certificate = params.self_signed(&key)?;
        Self::assemble(&certificate.pem(), key)
    }

    /// An authority from its certificate and key (PEM; the key in any of the three usual forms).
    ///
    /// # Errors
    /// [`Error::Pem`] or [`Error::Certificate`] for what cannot be used, [`Error::Mismatch`] when the two do not belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, Error> {
        Self::assemble(certificate, key_pair_from_pem("CA key", key)?)
    }

    fn assemble(pem: &str, key: KeyPair) -> Result<Self, Error> {
        let all = certificates_from_pem("CA certificate", pem.as_bytes())?;
        // There is at least one.
        let certificate = all
            .into_iter()
            .next()
            .ok_or_else(|| Error::pem("CA certificate", "empty"))?;
        let identity = CertificateIdentity::from_der(&certificate)?;
        if !belongs(&key, &certificate) {
            return Err(Error::Mismatch(identity.common_name));
        }
        if !identity.is_authority {
            return Err(Error::Certificate(format!(
                "{} is no certificate authority",
                identity.common_name
            )));
        }
        let pem = KeyAndCertificate {
            certificate: pem.to_owned(),
            key: key.serialize_pem(),
        };
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self {
            issuer,
            certificate,
            identity,
            pem,
        })
    }

    /// Reads an authority from two files.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem), and [`Error::File`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let pem = KeyAndCertificate::load(certificate, key)?;
        Self::from_pem(&pem.certificate, &pem.key)
    }

    /// Writes the authority to two files; the key is readable by its owner only.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn store(&self, certificate: &Path, key: &Path) -> Result<(), Error> {
        self.pem.store(certificate, key)
    }

    /// The authority's certificate, PEM: what its clients need to believe it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem.certificate
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What its certificate says.
    #[must_use]
    pub fn identity(&self) -> &CertificateIdentity {
        &self.identity
    }

    /// Whether a certificate bears this authority's signature. Says nothing of its validity in time.
    #[must_use]
    pub fn signed(&self, certificate: &[u8]) -> bool {
        let (Ok((_, own)), Ok((_, other))) = (
            x509_parser::parse_x509_certificate(&self.certificate),
            x509_parser::parse_x509_certificate(certificate),
        ) else {
            return false;
        };
        own.subject().as_raw() == other.issuer().as_raw()
            && verify(own.public_key().subject_public_key.as_ref(), &other)
    }

    /// A certificate and a new key for a server that is reached by these names.
    ///
    /// # Errors
    /// [`Error::Issue`], also for a name that cannot stand in a certificate.
    pub fn issue_server(
        &self,
        common_name: &str,
        names: impl IntoIterator<Item = SubjectName>,
        now: Timestamp,
        validity: Duration,
    ) -> Result<KeyAndCertificate, Error> {
        let names = names
            .into_iter()
            .map(|name| match name {
                SubjectName::Dns(name) => Ok(SanType::DnsName(name.try_into()?)),
                SubjectName::Ip(ip) => Ok(SanType::IpAddress(ip)),
            })
            .collect::<Result<Vec<_>, rcgen::Error>>()?;
        self.issue(Purpose::Server, common_name, &[], names, now, validity)
    }

    /// A certificate and a new key for a user in groups.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn issue_client<G: Into<String>>(
        &self,
        user: &str,
        groups: impl IntoIterator<Item = G>,
        now: Timestamp,
        validity: Duration,
    ) -> Result<KeyAndCertificate, Error> {
        let groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        self.issue(Purpose::Client, user, &groups, Vec::new(), now, validity)
    }

    fn issue(
        &self,
        purpose: Purpose,
        common_name: &str,
        organizations: &[String],
        names: Vec<SanType>,
        now: Timestamp,
        validity: Duration,
    ) -> Result<KeyAndCertificate, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![match purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.subject_alt_names = names;
        let subject = der::name(organizations.iter().map(String::as_str), common_name);
        Ok(KeyAndCertificate {
            certificate: self.certify(params, &subject, &key, now, validity)?,
            key: key.serialize_pem(),
        })
    }

    /// A certificate (PEM) of these parameters for a subject (an X.501 name) and the holder of a key.
    pub(super) fn certify(
        &self,
        mut params: CertificateParams,
        subject: &[u8],
        key: &impl PublicKeyData,
        now: Timestamp,
        validity: Duration,
    ) -> Result<String, Error> {
        // Nothing outlives, or comes before, the authority that vouches for it.
        let from = earlier(now, BACKDATE).max(self.identity.not_before);
        set_validity(
            &mut params,
            from,
            later(now, validity).min(self.identity.not_after),
        );
        params.serial_number = Some(serial_number()?);
        // Replaced below. Something must stand there, to be sure of the form of what is around it.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "");
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer)?;
        let certificate = self.with_subject(certificate.der(), subject)?;
        Ok(to_pem("CERTIFICATE", &certificate))
    }

    /// The same certificate with another subject, signed anew. `rcgen` holds one organization at most, and groups are many.
    fn with_subject(
        &self,
        certificate: &CertificateDer<'_>,
        subject: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|error| Error::Certificate(error.to_string()))?;
        let whole: &[u8] = certificate;
        // These slices lie inside of the certificate.
        let range = |part: &[u8]| -> Range<usize> {
            let start = part.as_ptr() as usize - whole.as_ptr() as usize;
            start..start + part.len()
        };
        let tbs = range(parsed.tbs_certificate.as_ref());
        let old = range(parsed.tbs_certificate.subject.as_raw());
        // Behind the tag and the length of the inner sequence, which has more than 255 bytes always.
        let header = 2 + usize::from(whole[tbs.start + 1].saturating_sub(0x80));
        let inner = der::element(
            der::SEQUENCE,
            &[
                &whole[tbs.start + header..old.start],
                subject,
                &whole[old.end..tbs.end],
            ],
        );
        let signature = self.issuer.key().sign(&inner)?;
        // What stands between the inner sequence and the signature says by which algorithm it is made, which stays.
        let (rest, algorithm_header) = (&whole[tbs.end..], 2);
        let algorithm = &rest[..algorithm_header + usize::from(rest[1])];
        let signature = der::element(der::BIT_STRING, &[&[0], &signature]);
        Ok(der::element(
            der::SEQUENCE,
            &[&inner, algorithm, &signature],
        ))
    }
}

/// Whether a certificate is signed by a public key, in one of the algorithms with which an authority here can sign.
fn verify(public_key: &[u8], certificate: &x509_parser::certificate::X509Certificate<'_>) -> bool {
    use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
    let algorithm: &dyn VerificationAlgorithm = match certificate
        .signature_algorithm
        .algorithm
        .to_id_string()
        .as_str()
    {
        "1.2.840.10045.4.3.2" => &signature::ECDSA_P256_SHA256_ASN1,
        "1.2.840.10045.4.3.3" => &signature::ECDSA_P384_SHA384_ASN1,
        "1.2.840.113549.1.1.11" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "1.2.840.113549.1.1.12" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "1.2.840.113549.1.1.13" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "1.3.101.112" => &signature::ED25519,
        _ => return false,
    };
    UnparsedPublicKey::new(algorithm, public_key)
        .verify(
            certificate.tbs_certificate.as_ref(),
            &certificate.signature_value.data,
        )
        .is_ok()
}

/// PEM with lines of 64 characters.
pub(super) fn to_pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// 128 random bits, positive.
fn serial_number() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = (bytes[0] & 0x7f) | 1;
    Ok(SerialNumber::from_slice(&bytes))
}

/// From when until when, in whole seconds. Nothing before 1970.
fn set_validity(params: &mut CertificateParams, from: Timestamp, to: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since =
        |at: Timestamp| Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default());
    params.not_before = epoch + since(from);
    params.not_after = epoch + since(to);
}

/// A moment later, or the end of time.
fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// A moment earlier, or the beginning of time.
fn earlier(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_sub(by).unwrap_or(Timestamp::MIN)
}
