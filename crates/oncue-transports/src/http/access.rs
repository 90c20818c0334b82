//! Who may come to a node: anyone, or who encrypts, shows a certificate, or has a name and its password.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::header::{AUTHORIZATION, HeaderMap};
use thiserror::Error;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};

/// A file that says who may come cannot be used.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
pub struct AccessError {
    path: PathBuf,
    reason: String,
}

/// Who may come to a node. Without more: anyone, in the clear.
#[derive(Clone, Default)]
pub struct Access {
    pub(super) tls: Option<TlsAcceptor>,
    users: Option<Arc<HashMap<String, String>>>,
}

impl Access {
    /// By TLS alone, as whom the certificates in `cert` (PEM, its own first) and the key in `key` (PEM) say. With `ca` (PEM),
    /// only who shows a certificate of one of these authorities.
    ///
    /// # Errors
    /// A file cannot be read, or holds something else.
    pub fn encrypted(mut self, cert: &Path, key: &Path, ca: Option<&Path>) -> Result<Self, AccessError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let config = config.map_err(|error| wrong(cert, &error))?;
        let config = match ca {
            None => config.with_no_client_auth(),
            Some(path) => {
                let mut authorities = RootCertStore::empty();
                for authority in certificates(path)? {
                    authorities.add(authority).map_err(|error| wrong(path, &error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider).build();
                config.with_client_cert_verifier(verifier.map_err(|error| wrong(path, &error))?)
            }
        };
        let own = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
        let config = config.with_single_cert(certificates(cert)?, own).map_err(|error| wrong(cert, &error))?;
        self.tls = Some(TlsAcceptor::from(Arc::new(config)));
        Ok(self)
    }

    /// With one of the names and passwords of a file, `NAME:PASSWORD` on each line; empty lines and those that begin with
    /// `#` are left out. Nobody but its owner may read it.
    ///
    /// # Errors
    /// It cannot be read, others can read it, it has no line or one that is something else.
    pub fn users(mut self, path: &Path) -> Result<Self, AccessError> {
        let text = fs::read_to_string(path).map_err(|error| wrong(path, &error))?;
        if is_open_to_others(path) {
            return Err(wrong(path, &format!("others can read these passwords: `chmod 600 {}`", path.display())));
        }
        let mut users = HashMap::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let user = line.split_once(':').filter(|(name, password)| !name.is_empty() && !password.is_empty());
            let (name, password) = user.ok_or_else(|| wrong(path, &format!("line {number} is not `NAME:PASSWORD`")))?;
            if users.insert(name.to_owned(), password.to_owned()).is_some() {
                return Err(wrong(path, &format!("line {number}: there is a second password of `{name}`")));
            }
        }
        if users.is_empty() {
            return Err(wrong(path, &"nobody is in it: write `NAME:PASSWORD` on a line"));
        }
        self.users = Some(Arc::new(users));
        Ok(self)
    }

    /// Whether what a request says of who sends it is enough.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(users) = &self.users else { return true };
        let said = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
        let said = said.and_then(|said| String::from_utf8(BASE64_STANDARD.decode(said.trim()).ok()?).ok());
        let Some((name, password)) = said.as_deref().and_then(|said| said.split_once(':')) else { return false };
        users.get(name).is_some_and(|known| is_same(known.as_bytes(), password.as_bytes()))
    }
}

fn wrong(path: &Path, reason: &dyn ToString) -> AccessError {
    AccessError { path: path.to_owned(), reason: reason.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, &error))?;
    let read = read.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(path, &error))?;
    if read.is_empty() { Err(wrong(path, &"there is no certificate in it; it is to be PEM")) } else { Ok(read) }
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_: &Path) -> bool {
    false
}

/// Takes as long wherever they differ, so that nobody finds a password letter by letter.
fn is_same(known: &[u8], said: &[u8]) -> bool {
    let differs = known.iter().zip(said).fold(0, |differs, (known, said)| differs | (known ^ said));
    known.len() == said.len() && std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        use std::os::unix::fs::PermissionsExt as _;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn who_is_named_is_let_in_with_the_password_alone() {
        let users = file("# of the shop\nshop:se:cret\n\nbank:other\n", 0o600);
        let access = Access::default().users(users.path()).unwrap();
        let admits = |said: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(said)).parse().unwrap());
            access.admits(&headers)
        };
        assert!(admits("shop:se:cret") && admits("bank:other"));
        for said in ["shop:se", "shop:se:cret ", "shop:other", "bank:", "nobody:other", "shop", ""] {
            assert!(!admits(said), "{said}");
        }
        assert!(!access.admits(&HeaderMap::new()) && Access::default().admits(&HeaderMap::new()));
    }

    #[test]
    fn files_that_say_something_else_are_refused_with_what_is_wrong() {
        let refused = |text: &str, mode| {
            let file = file(text, mode);
            Access::default().users(file.path()).err().unwrap().to_string()
        };
        assert!(refused("shop:secret", 0o640).contains("chmod 600"));
        assert!(refused("shop:secret\nbank", 0o600).ends_with("line 2 is not `NAME:PASSWORD`"));
        assert!(refused("shop:a\nshop:b", 0o600).contains("line 2: there is a second password of `shop`"));
        assert!(refused("# nobody\n", 0o600).contains("nobody is in it"));
        let file = file("no certificate", 0o600);
        let error = Access::default().encrypted(file.path(), file.path(), None).err().unwrap().to_string();
        assert!(error.starts_with(&file.path().display().to_string()), "{error}");
    }
}
