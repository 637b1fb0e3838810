//! TLS: which certificates are trusted, the transport, and errors in plain words.

use std::fmt;
use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use chrono::DateTime;
use log::debug;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    StreamOwned,
};
use rustls_platform_verifier::Verifier;
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use super::line::MAX_HEAD;
use super::{NodeError, Trouble};

/// A transport that speaks TLS over another transport.
pub struct Secured {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Secured {
    /// Performs the handshake with the server of this name or address.
    ///
    /// # Errors
    ///
    /// Fails if the certificates of this machine can't be read, the handshake fails, or the
    /// server's certificate is not trusted.
    pub fn new(
        inner: Box<dyn Transport>,
        host: &str,
        details: &ConnectionDetails<'_>,
    ) -> Result<Secured, NodeError> {
        let config = config().map_err(|what| NodeError::new(Trouble::Unusable, what))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            NodeError::new(Trouble::Unusable, "TLS: no certificate can be issued for its name")
        })?;
        let mut tls = ClientConnection::new(config, name).map_err(|e| error(&e, host))?;
        let mut line = TransportAdapter::new(inner, details.current_time.clone());
        if let Err(e) = tls.complete_io(&mut line) {
            return Err(match e.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(inner) => error(inner, host),
                None => e.into(),
            });
        }
        let size = details.config.input_buffer_size().max(MAX_HEAD);
        let buffers = LazyBuffers::new(size, details.config.output_buffer_size());
        Ok(Secured { buffers, stream: StreamOwned::new(tls, line) })
    }
}

impl Transport for Secured {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("inner", &self.stream.sock.inner()).finish()
    }
}

/// The configuration that all connections share. Certificates are read only once.
fn config() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    CONFIG.get_or_init(|| new_config().map(Arc::new)).clone()
}

fn new_config() -> Result<ClientConfig, String> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let failed = |e: rustls::Error| {
        format!(
            "TLS: {e} (install ca-certificates, or set SSL_CERT_FILE to a file of certificates)"
        )
    };
    let verifier = Verifier::new(provider.clone()).map_err(failed)?;
    let named = rustls_native_certs::load_native_certs().certs;
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let verifier = Arc::new(SystemAndListed { verifier, named });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Trusts what the system trusts. It also accepts a server certificate that is itself listed as
/// trusted, even if it is a CA certificate: `openssl req -x509` creates such certificates for
/// servers, and OpenSSL accepts them.
#[derive(Debug)]
struct SystemAndListed {
    verifier: Verifier,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for SystemAndListed {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.verifier.verify_server_cert(certificate, others, name, ocsp, now) {
            // This error comes only after the dates were found valid, so only the name remains to
            // be checked.
            Err(e) if is_of_an_authority(&e) && self.named.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                debug!("TLS: the certificate is a trusted CA certificate itself");
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

fn is_of_an_authority(error: &rustls::Error) -> bool {
    is_other(error, "CaUsedAsEndEntity")
}

/// Whether this is the given error of the certificate library, which has no type for it.
fn is_other(error: &rustls::Error, what: &str) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            format!("{other:?}").contains(what)
        }
        _ => false,
    }
}

/// Describes a TLS failure with this host, and what to do about it where that is known.
pub fn error(error: &rustls::Error, host: &str) -> NodeError {
    let what = match error {
        rustls::Error::InvalidCertificate(why) => certificate_error(error, why, host),
        rustls::Error::InvalidMessage(_) => {
            "it does not speak TLS on this port (should the URL be http?)".into()
        }
        rustls::Error::AlertReceived(alert) => format!("it refuses the connection ({alert:?})"),
        rustls::Error::PeerIncompatible(_) => {
            "it supports no version of TLS, or no cipher, that is considered safe".into()
        }
        other => other.to_string(),
    };
    // A peer without a valid certificate for the node is not the node, so it doesn't count as an
    // answer.
    let answered = matches!(
        error,
        rustls::Error::InvalidMessage(_)
            | rustls::Error::AlertReceived(_)
            | rustls::Error::PeerIncompatible(_)
    );
    let error = NodeError::new(Trouble::Unusable, format!("TLS: {what}"));
    NodeError { answered, ..error }
}

fn certificate_error(error: &rustls::Error, why: &CertificateError, host: &str) -> String {
    use CertificateError::*;
    let kind = if host.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
    let how_to_make =
        format!("make one with openssl req -x509 -addext subjectAltName={kind}:{host}");
    match why {
        ExpiredContext { not_after, .. } => format!("its certificate expired{}", on(*not_after)),
        Expired => "its certificate has expired".into(),
        NotValidYetContext { not_before, .. } => format!(
            "its certificate isn't valid yet: its validity starts{} (is this machine's clock right?)",
            on(*not_before)
        ),
        NotValidYet => "its certificate isn't valid yet (is this machine's clock right?)".into(),
        NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!("its certificate has no name in subjectAltName ({how_to_make})")
        }
        NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            format!("its certificate is for {}, not for {host}", names.join(", "))
        }
        NotValidForName => format!("its certificate is not for {host}"),
        // `BadSignature` if a CA of the same name is trusted.
        UnknownIssuer | BadSignature => {
            "its certificate is from a CA that isn't trusted here (set SSL_CERT_FILE to a file \
             with that CA's certificate)"
                .into()
        }
        Revoked => "its certificate was revoked".into(),
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "its certificate isn't meant for a server".into()
        }
        _ if is_of_an_authority(error) => {
            "its certificate is self-signed, and isn't trusted here (set SSL_CERT_FILE to a \
             file with it)"
                .into()
        }
        _ if is_other(error, "UnsupportedCertVersion") => {
            format!("its certificate is outdated: X.509 before version 3 ({how_to_make})")
        }
        other => format!("its certificate isn't valid: {other}"),
    }
}

/// ` on 2018-11-10`, or nothing for an invalid date.
fn on(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    let date = seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    date.map_or(String::new(), |date| date.format(" on %Y-%m-%d").to_string())
}

/// A name without the kind that the library prints around it: `DnsName("a.example")`.
fn bare(name: &str) -> &str {
    name.split_once('(').map_or(name, |(_, name)| name.trim_end_matches(')').trim_matches('"'))
}
