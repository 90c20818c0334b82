//! What an `amqp://` or `amqps://` URL says.

use lapin::uri::{AMQPScheme, AMQPUri};
use oncue::transport::OpenError;

use crate::{
    options::{self, PARTITIONS, PARTITIONS_RANGE, Security},
    without_secrets,
};

/// MiB of a ledger's stream that the broker keeps.
const LEDGER_MIB: u16 = 256;
const OPTIONS: &str = "known are `prefix`, `partitions`, `ledger_mib`, `ca`, `cert` and `key`";
const BYTES_OF_MIB: u64 = 1 << 20;
/// With a topic's longest name, a queue's is not too long.
const MAX_PREFIX_BYTES: usize = 54;

/// `amqp://[USER:PASSWORD@]HOST:PORT[/VHOST][?prefix=NAME&partitions=N&ledger_mib=N]`; `amqps://`, which encrypts, also has
/// `ca=FILE&cert=FILE&key=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AmqpUrl {
    /// As it may be shown.
    pub(super) shown: String,
    /// Where to connect, and as whom.
    pub(super) server: AMQPUri,
    /// What all streams begin with: several applications share a virtual host.
    pub(super) prefix: Option<String>,
    pub(super) partitions: u16,
    /// Bytes of a ledger's stream that the broker keeps.
    pub(super) ledger_bytes: u64,
    pub(super) security: Security,
}

impl AmqpUrl {
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        let shown = without_secrets(url);
        let wrong = |reason: String| OpenError::Url { url: shown.clone(), reason };
        let (address, options) = url.split_once('?').unwrap_or((url, ""));
        let host =
            address.split_once("://").map_or("", |(_, rest)| rest.rsplit_once('@').map_or(rest, |(_, host)| host));
        if host.is_empty() || host.starts_with(['/', ':', '[']) {
            return Err(wrong("no name of a host: write `amqp://HOST:PORT`".to_owned()));
        }
        // What it says of a wrong one may hold the password.
        let server = address.parse::<AMQPUri>().map_err(|_| wrong("no address: write `amqp://HOST:PORT`".to_owned()));
        let mut server = server?;
        if server.vhost.is_empty() {
            "/".clone_into(&mut server.vhost);
        }
        let mut parsed = Self {
            shown: shown.clone(),
            server,
            prefix: None,
            partitions: PARTITIONS,
            ledger_bytes: u64::from(LEDGER_MIB) * BYTES_OF_MIB,
            security: Security::default(),
        };
        for (name, value) in options::options(options) {
            match name {
                "prefix" => parsed.prefix = Some(options::prefix(value, MAX_PREFIX_BYTES).map_err(wrong)?),
                "partitions" => parsed.partitions = options::number(name, value, PARTITIONS_RANGE).map_err(wrong)?,
                "ledger_mib" => {
                    let mib = options::number(name, value, 64..=u16::MAX).map_err(wrong)?;
                    parsed.ledger_bytes = u64::from(mib) * BYTES_OF_MIB;
                }
                "ca" | "cert" | "key" => {
                    if parsed.server.scheme == AMQPScheme::AMQP {
                        return Err(wrong(format!("`{name}` is of encryption: write `amqps://`")));
                    }
                    parsed.security.take(name, value).map_err(wrong)?;
                }
                _ => return Err(wrong(format!("unknown option `{name}`: {OPTIONS}"))),
            }
        }
        parsed.security.check().map_err(wrong)?;
        Ok(parsed)
    }

    /// The queue of a name.
    pub(super) fn queue(&self, name: &str) -> String {
        self.prefix.as_ref().map_or_else(|| name.to_owned(), |prefix| format!("{prefix}.{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_and_secrets_are_not_shown() {
        let url = AmqpUrl::parse("amqp://me:s%40cret@host:5673/shop?prefix=a&partitions=8&ledger_mib=64").unwrap();
        assert_eq!(url.shown, "amqp://host:5673/shop?prefix=a&partitions=8&ledger_mib=64");
        let authority = &url.server.authority;
        assert_eq!((authority.host.as_str(), authority.port, url.server.vhost.as_str()), ("host", 5673, "shop"));
        assert_eq!((authority.userinfo.username.as_str(), authority.userinfo.password.as_str()), ("me", "s@cret"));
        assert_eq!((url.queue("events").as_str(), url.partitions, url.ledger_bytes), ("a.events", 8, 64 << 20));
        assert_eq!(AmqpUrl::parse("amqp://127.0.0.1/").unwrap().server.vhost, "/");
        assert_eq!(AmqpUrl::parse("amqp://127.0.0.1").unwrap().server.authority.host, "127.0.0.1");
        let refused = |url: &str| AmqpUrl::parse(url).unwrap_err().to_string();
        assert!(refused("amqp://me:secret@host?colour=red").starts_with("`amqp://host?colour=red`: unknown option"));
        assert!(refused("amqp://me:secret@host:port").starts_with("`amqp://host:port`: no address"));
        assert!(refused("amqp://host?partitions=0").contains("from 1 to 1024"));
        assert!(refused("amqp://host?prefix=a.b").contains("a prefix is"));
        assert!(refused("amqp://").contains("no name of a host"));
        assert!(refused("amqp://me:secret@[::1]:5672").contains("no name of a host"));
        assert!(refused("amqp://host?ca=/no/such/file").contains("write `amqps://`"));
        assert!(refused("amqps://host?ca=/no/such/file").contains("there is no such file"));
    }
}
