//! TLS for the websocket: an own CA, made anew at each start, and a certificate for this machine's loopback names.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::StartError;

/// The server's TLS settings, and the CA that clients must trust, as PEM.
pub(super) fn server_config() -> Result<(Arc<ServerConfig>, String), StartError> {
    let ca_key = KeyPair::generate().map_err(StartError::Certificate)?;
    let mut ca = CertificateParams::new(Vec::new()).map_err(StartError::Certificate)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "whatsapp-worker sandbox CA");
    let ca_pem = ca.self_signed(&ca_key).map_err(StartError::Certificate)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate().map_err(StartError::Certificate)?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let mut params = CertificateParams::new(names).map_err(StartError::Certificate)?;
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name.push(DnType::CommonName, "whatsapp-worker sandbox");
    let certificate = params.signed_by(&key, &issuer).map_err(StartError::Certificate)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(StartError::Tls)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(StartError::Tls)?;
    // Nobody resumes here, and a load test need not pay for tickets.
    config.send_tls13_tickets = 0;
    Ok((Arc::new(config), ca_pem))
}
