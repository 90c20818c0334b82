//! What a `nats://` URL says.

use std::path::PathBuf;

use oncue::transport::OpenError;

use super::message;
use crate::{
    options::{self, PARTITIONS, PARTITIONS_RANGE, Security},
    without_secrets,
};

/// Longest text that streams and subjects begin with.
const MAX_PREFIX_BYTES: usize = 100;
const OPTIONS: &str = "known are `prefix`, `partitions`, `replicas`, `credentials`, `tls`, `ca`, `cert` and `key`";

/// How the server is told who comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// A user's name and password.
    User(String, String),
    Token(String),
    /// A file (`.creds`) with a user's JWT and the seed of its key.
    File(PathBuf),
}

/// `nats://[USER:PASSWORD@|TOKEN@]HOST:PORT[?prefix=NAME&partitions=N&replicas=N]`, and for security
/// `credentials=FILE&tls=true&ca=FILE&cert=FILE&key=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NatsUrl {
    /// As it may be shown.
    pub(super) shown: String,
    /// Where to connect.
    pub(super) server: String,
    pub(super) login: Option<Login>,
    /// What all streams and subjects begin with: several applications share a server.
    pub(super) prefix: Option<String>,
    pub(super) partitions: u16,
    pub(super) replicas: u8,
    /// Whether all is to be encrypted.
    pub(super) tls: bool,
    pub(super) security: Security,
}

impl NatsUrl {
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        let shown = without_secrets(url);
        let wrong = |reason: String| OpenError::Url { url: shown.clone(), reason };
        let (server, options) = url.split_once('?').unwrap_or((url, ""));
        if server.trim_start_matches("nats://").is_empty() {
            return Err(wrong("no host: write `nats://HOST:PORT`".to_owned()));
        }
        let login = server.trim_start_matches("nats://").rsplit_once('@').map(|(user, _)| match user.split_once(':') {
            Some((user, password)) => {
                Login::User(message::unescaped(user).into_owned(), message::unescaped(password).into_owned())
            }
            None => Login::Token(message::unescaped(user).into_owned()),
        });
        let (shown, server) = (shown.clone(), without_secrets(server));
        let mut parsed = Self {
            shown,
            server,
            login,
            prefix: None,
            partitions: PARTITIONS,
            replicas: 1,
            tls: false,
            security: Security::default(),
        };
        for (name, value) in options::options(options) {
            match name {
                "prefix" => parsed.prefix = Some(options::prefix(value, MAX_PREFIX_BYTES).map_err(wrong)?),
                "partitions" => parsed.partitions = options::number(name, value, PARTITIONS_RANGE).map_err(wrong)?,
                "replicas" => {
                    let replicas = options::number(name, value, 1..=5).map_err(wrong)?;
                    parsed.replicas = u8::try_from(replicas).unwrap_or(1);
                }
                "credentials" if parsed.login.is_some() => {
                    return Err(wrong("`credentials` is instead of a name or token before the host".to_owned()));
                }
                "credentials" => parsed.login = Some(Login::File(options::file(name, value).map_err(wrong)?)),
                "tls" if matches!(value, "true" | "false") => parsed.tls = value == "true",
                "tls" => return Err(wrong(format!("`tls` is `true` or `false`, not `{value}`"))),
                "ca" | "cert" | "key" => {
                    parsed.security.take(name, value).map_err(wrong)?;
                    // Whoever names certificates wants encryption.
                    parsed.tls = true;
                }
                _ => return Err(wrong(format!("unknown option `{name}`: {OPTIONS}"))),
            }
        }
        parsed.security.check().map_err(wrong)?;
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_and_secrets_are_not_shown() {
        let url = NatsUrl::parse("nats://me:secret@host:4222?prefix=shop&partitions=8&replicas=3").unwrap();
        assert_eq!(url.shown, "nats://host:4222?prefix=shop&partitions=8&replicas=3");
        assert_eq!(url.server, "nats://host:4222");
        assert_eq!(url.login, Some(Login::User("me".to_owned(), "secret".to_owned())));
        assert_eq!((url.prefix.as_deref(), url.partitions, url.replicas), (Some("shop"), 8, 3));
        let refused = |url: &str| NatsUrl::parse(url).unwrap_err().to_string();
        assert!(refused("nats://me:secret@host?colour=red").starts_with("`nats://host?colour=red`: unknown option"));
        assert!(refused("nats://host?partitions=0").contains("from 1 to 1024"));
        assert!(refused("nats://host?prefix=a.b").contains("a prefix is"));
        assert!(refused("nats://").contains("no host"));
        assert!(refused("nats://host?ca=/no/such/file").contains("there is no such file"));
        let url = NatsUrl::parse("nats://very%20secret@host").unwrap();
        assert_eq!((&*url.shown, url.login), ("nats://host", Some(Login::Token("very secret".to_owned()))));
        assert!(refused("nats://host?credentials=/no/such/file").contains("there is no such file"));
        assert!(refused("nats://me:secret@host?credentials=/no/such/file").contains("instead of a name"));
        assert!(refused("nats://host?tls=perhaps").contains("`true` or `false`"));
    }
}
