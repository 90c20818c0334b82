//! Certificates of a test's own: an authority, a broker on loopback and a client that it vouches for, and another authority.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The names of the files.
pub(super) const AUTHORITY: &str = "ca.pem";
pub(super) const STRANGER: &str = "stranger.pem";
pub(super) const BROKER: (&str, &str) = ("broker.pem", "broker.key");
pub(super) const CLIENT: (&str, &str) = ("client.pem", "client.key");

pub(super) fn make(folder: &Path) {
    let authority = issuer("authority");
    fs::write(folder.join(AUTHORITY), authority.pem()).unwrap();
    fs::write(folder.join(STRANGER), issuer("stranger").pem()).unwrap();
    for (names, (certificate, key)) in [(vec!["localhost", "127.0.0.1"], BROKER), (vec!["client"], CLIENT)] {
        let own = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.iter().copied().map(str::to_owned).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        fs::write(folder.join(certificate), params.signed_by(&own, &authority).unwrap().pem()).unwrap();
        fs::write(folder.join(key), own.serialize_pem()).unwrap();
    }
}

/// One of the same name as what it signs looks as if it were signed by itself.
fn issuer(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}
