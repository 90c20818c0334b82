//! What a `kafka://` URL says.

use std::fmt::Write as _;

use oncue::transport::OpenError;
use percent_encoding::percent_decode_str;

use crate::{
    options::{self, PARTITIONS, PARTITIONS_RANGE, Security},
    without_secrets,
};

/// With a topic's longest name, a Kafka topic's is not too long.
const MAX_PREFIX_BYTES: usize = 48;
const OPTIONS: &str = "known are `prefix`, `partitions`, `replicas`, `sasl`, `tls`, `ca`, `cert` and `key`";
/// How a user may show who they are, without encryption and with it.
const MECHANISMS: [&str; 3] = ["plain", "scram-sha-256", "scram-sha-512"];

/// `kafka://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…][?prefix=NAME&partitions=N&replicas=N&sasl=MECHANISM]`, and for
/// encryption `tls=true&ca=FILE&cert=FILE&key=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KafkaUrl {
    /// As it may be shown.
    pub(super) shown: String,
    /// Where to connect first: as many brokers of a cluster as one likes to name.
    pub(super) servers: String,
    /// Who, and the password.
    pub(super) user: Option<(String, String)>,
    /// The name of the mechanism by which the broker is convinced of that.
    pub(super) mechanism: String,
    /// What all topics begin with: several applications share a cluster.
    pub(super) prefix: Option<String>,
    pub(super) partitions: u16,
    /// Copies of what is made; the broker's own default without any.
    pub(super) replicas: Option<u16>,
    /// Whether all is to be encrypted.
    pub(super) tls: bool,
    pub(super) security: Security,
}

impl KafkaUrl {
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        let shown = without_secrets(url);
        let wrong = |reason: String| OpenError::Url { url: shown.clone(), reason };
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let address = address.strip_prefix("kafka://").unwrap_or(address);
        let (user, servers) = address.rsplit_once('@').map_or((None, address), |(user, servers)| (Some(user), servers));
        let servers = servers.strip_suffix('/').unwrap_or(servers);
        if servers.is_empty() || servers.split(',').any(|server| !is_address(server)) {
            return Err(wrong("no address: write `kafka://HOST:PORT`, or several with commas between".to_owned()));
        }
        let unescaped = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = user.map(|user| {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            (unescaped(user), unescaped(password))
        });
        let mut parsed = Self {
            shown: shown.clone(),
            servers: servers.to_owned(),
            user,
            mechanism: MECHANISMS[0].to_ascii_uppercase(),
            prefix: None,
            partitions: PARTITIONS,
            replicas: None,
            tls: false,
            security: Security::default(),
        };
        for (name, value) in options::options(query) {
            parsed.take(name, value).map_err(wrong)?;
        }
        parsed.security.check().map_err(wrong)?;
        parsed.check_built().map_err(wrong)?;
        Ok(parsed)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "prefix" => self.prefix = Some(options::prefix(value, MAX_PREFIX_BYTES)?),
            "partitions" => self.partitions = options::number(name, value, PARTITIONS_RANGE)?,
            "replicas" => self.replicas = Some(options::number(name, value, 1..=99)?),
            "sasl" if MECHANISMS.contains(&value) => self.mechanism = value.to_ascii_uppercase(),
            "sasl" => return Err(format!("`sasl` is `{}`, not `{value}`", MECHANISMS.join("`, `"))),
            "tls" if matches!(value, "true" | "false") => self.tls = value == "true",
            "tls" => return Err(format!("`tls` is `true` or `false`, not `{value}`")),
            "ca" | "cert" | "key" => {
                self.security.take(name, value)?;
                // Whoever names certificates wants encryption.
                self.tls = true;
            }
            _ => return Err(format!("unknown option `{name}`: {OPTIONS}")),
        }
        Ok(())
    }

    /// Encryption and SCRAM are a feature of their own.
    fn check_built(&self) -> Result<(), String> {
        let wanted = if self.tls { "encryption" } else { self.mechanism.as_str() };
        if cfg!(feature = "kafka-tls") || (!self.tls && self.mechanism == "PLAIN") {
            return Ok(());
        }
        Err(format!(
            "this program was built without {wanted} for Kafka: build it with `--features kafka-tls`, which needs the \
             development files of OpenSSL (Debian: `apt-get install libssl-dev`)"
        ))
    }

    /// The Kafka topic of a topic.
    pub(super) fn topic(&self, name: &str) -> String {
        self.prefix.as_ref().map_or_else(|| name.to_owned(), |prefix| format!("{prefix}.{name}"))
    }

    /// The Kafka topic of a ledger, whose name may hold what a topic's may not.
    pub(super) fn ledger(&self, name: &str) -> String {
        let mut escaped = String::new();
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.') {
                escaped.push(char::from(byte));
            } else {
                // A string takes it.
                let _ = write!(escaped, "_{byte:02x}");
            }
        }
        self.topic(&escaped)
    }
}

fn is_address(server: &str) -> bool {
    let (host, port) = server.rsplit_once(':').unwrap_or((server, "9092"));
    !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_and_secrets_are_not_shown() {
        let url = KafkaUrl::parse("kafka://me:s%40cret@a:9092,b:9093?prefix=shop&partitions=8&replicas=3").unwrap();
        assert_eq!(url.shown, "kafka://a:9092,b:9093?prefix=shop&partitions=8&replicas=3");
        assert_eq!((url.servers.as_str(), url.mechanism.as_str()), ("a:9092,b:9093", "PLAIN"));
        assert_eq!(url.user, Some(("me".to_owned(), "s@cret".to_owned())));
        assert_eq!((url.partitions, url.replicas), (8, Some(3)));
        let refused = |url: &str| KafkaUrl::parse(url).unwrap_err().to_string();
        assert!(refused("kafka://me:secret@host?colour=red").starts_with("`kafka://host?colour=red`: unknown option"));
        assert!(refused("kafka://me:secret@host:port").starts_with("`kafka://host:port`: no address"));
        assert!(refused("kafka://host:9092/topic").contains("no address"));
        assert!(refused("kafka://").contains("no address"));
        assert!(refused("kafka://host?partitions=0").contains("from 1 to 1024"));
        assert!(refused("kafka://host?prefix=a.b").contains("a prefix is"));
        assert!(refused("kafka://host?sasl=kerberos").contains("`scram-sha-256`"));
        assert!(refused("kafka://host?ca=/no/such/file").contains("there is no such file"));
        assert!(refused("kafka://host?tls=perhaps").contains("`true` or `false`"));
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn what_was_not_built_is_named_with_what_it_needs() {
        for url in ["kafka://host?tls=true", "kafka://me:secret@host?sasl=scram-sha-256"] {
            let error = KafkaUrl::parse(url).unwrap_err().to_string();
            assert!(error.contains("--features kafka-tls") && error.contains("libssl-dev"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn names_are_topics_of_kafka() {
        let url = KafkaUrl::parse("kafka://host?prefix=shop").unwrap();
        assert_eq!(url.topic("order_events"), "shop.order_events");
        assert_eq!(url.ledger("oncue-ledger.~a_b ü.0"), "shop.oncue-ledger._7ea_5fb_20_c3_bc.0");
    }
}
