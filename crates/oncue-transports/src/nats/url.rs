//! What a `nats://` URL says.

use std::path::PathBuf;

use oncue::transport::OpenError;

use super::message;
use crate::without_secrets;

/// Partitions of topics that are made from now on.
const PARTITIONS: u16 = 4;
const OPTIONS: &str = "known are `prefix`, `partitions`, `replicas`, `tls`, `ca`, `cert` and `key`";

/// What a server is convinced by, and how one is convinced of it. Files are PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) tls: bool,
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

/// `nats://[USER:PASSWORD@]HOST:PORT[?prefix=NAME&partitions=N&replicas=N]`, and for security
/// `tls=true&ca=FILE&cert=FILE&key=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NatsUrl {
    /// As it may be shown.
    pub(super) shown: String,
    /// Where to connect.
    pub(super) server: String,
    /// Who, and the password.
    pub(super) user: Option<(String, String)>,
    /// What all streams and subjects begin with: several applications share a server.
    pub(super) prefix: Option<String>,
    pub(super) partitions: u16,
    pub(super) replicas: u8,
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
        let user = server.trim_start_matches("nats://").rsplit_once('@').map(|(user, _)| {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            (message::unescaped(user), message::unescaped(password))
        });
        let (shown, server) = (shown.clone(), without_secrets(server));
        let mut parsed = Self {
            shown,
            server,
            user,
            prefix: None,
            partitions: PARTITIONS,
            replicas: 1,
            security: Security::default(),
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let number = |most: u16| {
                let number = value.parse::<u16>().ok().filter(|number| (1..=most).contains(number));
                number.ok_or_else(|| wrong(format!("`{name}` is a number from 1 to {most}, not `{value}`")))
            };
            match name {
                "prefix" if is_prefix(value) => parsed.prefix = Some(value.to_owned()),
                "prefix" => return Err(wrong(format!("a prefix is letters, digits, `-` and `_`, not `{value}`"))),
                "partitions" => parsed.partitions = number(1024)?,
                "replicas" => parsed.replicas = u8::try_from(number(5)?).unwrap_or(1),
                "tls" if matches!(value, "true" | "false") => parsed.security.tls = value == "true",
                "tls" => return Err(wrong(format!("`tls` is `true` or `false`, not `{value}`"))),
                "ca" | "cert" | "key" => {
                    let path = PathBuf::from(value);
                    if !path.is_file() {
                        return Err(wrong(format!("`{name}={value}`: there is no such file")));
                    }
                    let security = &mut parsed.security;
                    // Whoever names certificates wants encryption.
                    security.tls = true;
                    *match name {
                        "ca" => &mut security.ca,
                        "cert" => &mut security.cert,
                        _ => &mut security.key,
                    } = Some(path);
                }
                _ => return Err(wrong(format!("unknown option `{name}`: {OPTIONS}"))),
            }
        }
        if parsed.security.cert.is_some() != parsed.security.key.is_some() {
            return Err(wrong("`cert` and `key` go together: name both".to_owned()));
        }
        Ok(parsed)
    }
}

fn is_prefix(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=100).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_and_secrets_are_not_shown() {
        let url = NatsUrl::parse("nats://me:secret@host:4222?prefix=shop&partitions=8&replicas=3").unwrap();
        assert_eq!(url.shown, "nats://host:4222?prefix=shop&partitions=8&replicas=3");
        assert_eq!(url.server, "nats://host:4222");
        assert_eq!(url.user, Some(("me".to_owned(), "secret".to_owned())));
        assert_eq!((url.prefix.as_deref(), url.partitions, url.replicas), (Some("shop"), 8, 3));
        let refused = |url: &str| NatsUrl::parse(url).unwrap_err().to_string();
        assert!(refused("nats://me:secret@host?colour=red").starts_with("`nats://host?colour=red`: unknown option"));
        assert!(refused("nats://host?partitions=0").contains("from 1 to 1024"));
        assert!(refused("nats://host?prefix=a.b").contains("a prefix is"));
        assert!(refused("nats://").contains("no host"));
        assert!(refused("nats://host?ca=/no/such/file").contains("there is no such file"));
        assert!(refused("nats://host?tls=perhaps").contains("`true` or `false`"));
    }
}
