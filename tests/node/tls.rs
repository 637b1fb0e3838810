//! Certificates for nodes that speak TLS.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// A certificate authority for one test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "The test's own authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key pair");
        let pem = params.self_signed(&key).expect("a certificate of the authority").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// The certificate of the authority, for the file named by `SSL_CERT_FILE`.
    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// The configuration of a server with these names or addresses.
    pub(super) fn server_config(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.issue(names, 2000, 2100)
    }

    /// The same with a certificate that is valid from the start of one year to the start of
    /// another.
    pub fn issue(&self, names: &[&str], from: i32, until: i32) -> Arc<ServerConfig> {
        let mut params = params(names);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key pair");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate of the node");
        config(certificate.der().clone(), &key)
    }
}

/// The configuration of a server with a self-signed certificate, as `openssl req -x509` makes it,
/// and that certificate, which is valid until the start of a year.
pub fn self_signed(names: &[&str], until: i32) -> (Arc<ServerConfig>, String) {
    let mut params = params(names);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().expect("a key pair");
    let certificate = params.self_signed(&key).expect("a certificate");
    (config(certificate.der().clone(), &key), certificate.pem())
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("DNS names or addresses");
    params.distinguished_name.push(DnType::CommonName, "The test's node");
    params
}

fn config(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .expect("the certificate is of this key");
    Arc::new(config)
}
