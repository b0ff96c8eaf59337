//! Requests for certificates (PKCS #10): made, read, and answered.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::prelude::FromDer;

use super::authority::{CertificateAuthority, SubjectName};
use super::identity::ip_address;
use crate::Error;

/// What somebody asks to be certified.
///
/// ```
/// use std::time::Duration;
/// use orlop_wire::pki::{CertificateAuthority, CertificateIdentity, CertificateRequest};
/// # fn main() -> Result<(), orlop_wire::Error> {
/// let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
/// let ca = CertificateAuthority::create("kubernetes", now, Duration::from_secs(86_400))?;
/// let (request, _key) = CertificateRequest::create("system:node:n1", Some("system:nodes"), [])?;
/// let request = CertificateRequest::from_pem(&request)?;
/// let certificate = ca.sign_request(&request, ["client auth"], now, Duration::from_secs(3600))?;
/// let identity = CertificateIdentity::from_pem(&certificate)?;
/// assert_eq!(identity.common_name, "system:node:n1");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The subject's common name; empty without one.
    pub common_name: String,
    /// The subject's organizations in their order.
    pub organizations: Vec<String>,
    /// The DNS names.
    pub dns_names: Vec<String>,
    /// The IP addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// The e-mail addresses.
    pub email_addresses: Vec<String>,
    /// The URIs.
    pub uris: Vec<String>,
    der: Vec<u8>,
}

impl CertificateRequest {
    /// Makes a request and a new key: both PEM, the request first.
    ///
    /// # Errors
    /// [`Error::Issue`], also for a name that cannot stand in a certificate.
    pub fn create(
        common_name: &str,
        organization: Option<&str>,
        names: impl IntoIterator<Item = SubjectName>,
    ) -> Result<(String, String), Error> {
        let key = KeyPair::generate()?;
        let request = Self::create_for_key(&key.serialize_pem(), common_name, organization, names)?;
        Ok((request, key.serialize_pem()))
    }

    /// Makes a request for a key that is there already (PEM).
    ///
    /// # Errors
    /// [`Error::Pem`], [`Error::Issue`].
    pub fn create_for_key(
        key: &str,
        common_name: &str,
        organization: Option<&str>,
        names: impl IntoIterator<Item = SubjectName>,
    ) -> Result<String, Error> {
        let key = super::keys::key_pair_from_pem("key", key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(organization) = organization {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organization);
        }
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        for name in names {
            params.subject_alt_names.push(match name {
                SubjectName::Dns(name) => SanType::DnsName(name.try_into()?),
                SubjectName::Ip(ip) => SanType::IpAddress(ip),
            });
        }
        Ok(params.serialize_request(&key)?.pem()?)
    }

    /// Reads a request (PEM, `CERTIFICATE REQUEST`). Who made it holds the key: its signature is checked.
    ///
    /// # Errors
    /// [`Error::Pem`], [`Error::Certificate`], and [`Error::Issue`] for a wrong signature or an algorithm that is not known.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| Error::pem("certificate request", error))?;
        let malformed =
            |error: &dyn std::fmt::Display| Error::Certificate(format!("request: {error}"));
        let (_, parsed) =
            X509CertificationRequest::from_der(&der).map_err(|error| malformed(&error))?;
        parsed
            .verify_signature()
            .map_err(|error| malformed(&error))?;
        let subject = &parsed.certification_request_info.subject;
        let text = |oid| {
            let parts = subject
                .iter_attributes()
                .filter(move |part| *part.attr_type() == oid);
            parts
                .filter_map(|part| part.as_str().ok())
                .map(str::to_owned)
        };
        let mut request = Self {
            // Of several, the last one counts: so does Go.
            common_name: text(OID_X509_COMMON_NAME).last().unwrap_or_default(),
            organizations: text(OID_X509_ORGANIZATION_NAME).collect(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            email_addresses: Vec::new(),
            uris: Vec::new(),
            der: der.as_ref().to_vec(),
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else {
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => request.dns_names.push((*name).to_owned()),
                    GeneralName::RFC822Name(name) => {
                        request.email_addresses.push((*name).to_owned());
                    }
                    GeneralName::URI(name) => request.uris.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => {
                        request.ip_addresses.extend(ip_address(bytes));
                    }
                    _ => {}
                }
            }
        }
        Ok(request)
    }
}

impl CertificateAuthority {
    /// Certifies what a request asks for: its subject, names and key; nothing else of what is in it. The usages are by the names that
    /// `CertificateSigningRequest`s use; those of them that certificates do not have are left out.
    ///
    /// # Errors
    /// [`Error::Issue`] for a name or key that cannot be certified, [`Error::Certificate`] for a subject that cannot.
    pub fn sign_request<'a>(
        &self,
        request: &CertificateRequest,
        usages: impl IntoIterator<Item = &'a str>,
        now: Timestamp,
        validity: Duration,
    ) -> Result<String, Error> {
        let der = CertificateSigningRequestDer::from(request.der.as_slice());
        let key = CertificateSigningRequestParams::from_der(&der)?.public_key;
        let mut params = CertificateParams::default();
        for name in &request.dns_names {
            let name = SanType::DnsName(name.as_str().try_into()?);
            params.subject_alt_names.push(name);
        }
        for name in &request.email_addresses {
            let name = SanType::Rfc822Name(name.as_str().try_into()?);
            params.subject_alt_names.push(name);
        }
        for uri in &request.uris {
            let uri = SanType::URI(uri.as_str().try_into()?);
            params.subject_alt_names.push(uri);
        }
        let addresses = request.ip_addresses.iter().copied();
        params
            .subject_alt_names
            .extend(addresses.map(SanType::IpAddress));
        params.is_ca = IsCa::ExplicitNoCa;
        for usage in usages {
            if let Some(usage) = key_usage(usage) {
                params.key_usages.push(usage);
            } else if let Some(usage) = extended_key_usage(usage) {
                params.extended_key_usages.push(usage);
            }
        }
        let (_, parsed) = X509CertificationRequest::from_der(&request.der)
            .map_err(|error| Error::Certificate(error.to_string()))?;
        let subject = parsed.certification_request_info.subject.as_raw();
        self.certify(params, subject, &key, now, validity)
    }
}

fn key_usage(usage: &str) -> Option<KeyUsagePurpose> {
    Some(match usage {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        "cert sign" => KeyUsagePurpose::KeyCertSign,
        "crl sign" => KeyUsagePurpose::CrlSign,
        "encipher only" => KeyUsagePurpose::EncipherOnly,
        "decipher only" => KeyUsagePurpose::DecipherOnly,
        _ => return None,
    })
}

fn extended_key_usage(usage: &str) -> Option<ExtendedKeyUsagePurpose> {
    Some(match usage {
        "any" => ExtendedKeyUsagePurpose::Any,
        "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
        "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
        "code signing" => ExtendedKeyUsagePurpose::CodeSigning,
        "email protection" | "s/mime" => ExtendedKeyUsagePurpose::EmailProtection,
        "timestamping" => ExtendedKeyUsagePurpose::TimeStamping,
        "ocsp signing" => ExtendedKeyUsagePurpose::OcspSigning,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{CertificateIdentity, certificates_from_pem};

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn authority() -> CertificateAuthority {
        CertificateAuthority::create("ca", now(), Duration::from_secs(86_400)).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_certified() {
        let names = ["n1".into(), "10.0.0.1".into()];
        let (pem, key) =
            CertificateRequest::create("system:node:n1", Some("system:nodes"), names).unwrap();
        let request = CertificateRequest::from_pem(&pem).unwrap();
        assert_eq!(request.common_name, "system:node:n1");
        assert_eq!(request.organizations, ["system:nodes"]);
        assert_eq!(request.dns_names, ["n1"]);
        assert_eq!(
            request.ip_addresses,
            ["10.0.0.1".parse::<IpAddr>().unwrap()]
        );
        let usages = [
            "key encipherment",
            "digital signature",
            "server auth",
            "made up",
        ];
        let ca = authority();
        let certificate = ca
            .sign_request(&request, usages, now(), Duration::from_secs(3600))
            .unwrap();
        let identity = CertificateIdentity::from_pem(&certificate).unwrap();
        assert_eq!(identity.common_name, "system:node:n1");
        assert_eq!(identity.organizations, ["system:nodes"]);
        assert!(identity.covers(["n1", "10.0.0.1"]));
        assert!(!identity.is_authority);
        assert_eq!(identity.not_after, now() + Duration::from_secs(3600));
        let der = certificates_from_pem("it", certificate.as_bytes()).unwrap();
        assert!(ca.signed(&der[0]));
        let key = crate::pki::keys::key_pair_from_pem("key", &key).unwrap();
        assert!(crate::pki::keys::belongs(&key, &der[0]));
        let (_, parsed) = x509_parser::parse_x509_certificate(&der[0]).unwrap();
        assert!(
            parsed
                .extended_key_usage()
                .unwrap()
                .unwrap()
                .value
                .server_auth
        );
        assert!(
            !parsed
                .extended_key_usage()
                .unwrap()
                .unwrap()
                .value
                .client_auth
        );
        assert!(
            parsed
                .key_usage()
                .unwrap()
                .unwrap()
                .value
                .key_encipherment()
        );
    }

    #[test]
    fn nothing_outlives_its_authority() {
        let (pem, _) = CertificateRequest::create("a", None, []).unwrap();
        let request = CertificateRequest::from_pem(&pem).unwrap();
        let (ca, long) = (authority(), Duration::from_secs(10 * 86_400));
        let certificate = ca.sign_request(&request, [], now(), long).unwrap();
        let identity = CertificateIdentity::from_pem(&certificate).unwrap();
        assert_eq!(identity.not_after, ca.identity().not_after);
        assert_eq!(identity.organizations, [""; 0]);
    }

    #[test]
    fn forged_requests_are_refused() {
        let (pem, _) = CertificateRequest::create("alice", None, []).unwrap();
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut bytes = der.as_ref().to_vec();
        let at = bytes.windows(5).position(|part| part == b"alice").unwrap();
        bytes[at..at + 5].copy_from_slice(b"mally");
        let forged = crate::pki::authority::to_pem("CERTIFICATE REQUEST", &bytes);
        assert!(CertificateRequest::from_pem(&forged).is_err());
        for text in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(CertificateRequest::from_pem(text).is_err());
        }
    }
}
