//! Where a node listens, by what, and to whom.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

#[cfg(feature = "http")]
use oncue_transports::http::{Access, HttpServer};
use oncue_transports::wire::Node;
#[cfg(feature = "zmq")]
use oncue_transports::zmq::ZmqServer;

use super::NodeError;

/// What addresses are.
const ADDRESSES: &str = "an address is `http://HOST:PORT` or `zmq://HOST:PORT`, such as `http://127.0.0.1:7700`, or \
                         `https://HOST:PORT?cert=FILE&key=FILE`, with `&ca=FILE` for clients that show a certificate";

/// What carries messages.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Carrier {
    /// With what encrypts it, if anything does.
    #[cfg(feature = "http")]
    Http(Option<Certificates>),
    #[cfg(feature = "zmq")]
    Zmq,
}

#[cfg(feature = "http")]
#[derive(Clone, Debug, PartialEq, Eq)]
struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    ca: Option<PathBuf>,
}

/// Where to listen, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    carrier: Carrier,
    /// `HOST:PORT`.
    host: String,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let (place, options) = url.split_once('?').unwrap_or((url, ""));
        let (scheme, host) = place.split_once("://").ok_or(ADDRESSES)?;
        let host = host.trim_end_matches('/');
        let (name, port) = host.rsplit_once(':').ok_or(ADDRESSES)?;
        if name.is_empty() || name.contains(['/', '@']) || port.parse::<u16>().is_err() {
            return Err(ADDRESSES.to_owned());
        }
        let carrier = match scheme {
            #[cfg(feature = "http")]
            "https" => Carrier::Http(Some(certificates(options)?)),
            _ if !options.is_empty() => return Err(ADDRESSES.to_owned()),
            #[cfg(feature = "http")]
            "http" => Carrier::Http(None),
            #[cfg(feature = "zmq")]
            "zmq" => Carrier::Zmq,
            #[cfg(not(feature = "http"))]
            "http" | "https" => return Err(not_built("http")),
            #[cfg(not(feature = "zmq"))]
            "zmq" => return Err(not_built("zmq")),
            _ => return Err(ADDRESSES.to_owned()),
        };
        Ok(Self { carrier, host: host.to_owned() })
    }
}

#[cfg(not(all(feature = "http", feature = "zmq")))]
fn not_built(feature: &str) -> String {
    format!("`{feature}` is not in this build: build it with `--features {feature}`")
}

#[cfg(feature = "http")]
fn certificates(options: &str) -> Result<Certificates, String> {
    let (mut cert, mut key, mut ca) = (None, None, None);
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, file) = option.split_once('=').unwrap_or((option, ""));
        let known = match name {
            "cert" => &mut cert,
            "key" => &mut key,
            "ca" => &mut ca,
            _ => return Err(format!("unknown option `{name}`: {ADDRESSES}")),
        };
        *known = Some(PathBuf::from(file));
    }
    let (Some(cert), Some(key)) = (cert, key) else { return Err(ADDRESSES.to_owned()) };
    Ok(Certificates { cert, key, ca })
}

/// A door that is known to open before there is a node behind it.
pub(super) enum Door {
    #[cfg(feature = "http")]
    Http(String, Access),
    #[cfg(feature = "zmq")]
    Zmq(String),
}

impl Door {
    pub(super) fn of(Address { carrier, host }: &Address, users: Option<&Path>) -> Result<Self, NodeError> {
        match carrier {
            #[cfg(feature = "http")]
            Carrier::Http(certificates) => {
                let mut access = Access::default();
                if let Some(Certificates { cert, key, ca }) = certificates {
                    access = access.encrypted(cert, key, ca.as_deref())?;
                }
                if let Some(users) = users {
                    access = access.users(users)?;
                }
                Ok(Self::Http(host.clone(), access))
            }
            #[cfg(feature = "zmq")]
            Carrier::Zmq if users.is_some() => Err(NodeError::Unguarded(format!("zmq://{host}"))),
            #[cfg(feature = "zmq")]
            Carrier::Zmq => Ok(Self::Zmq(host.clone())),
        }
    }

    pub(super) async fn open(self, node: Arc<Node>) -> Result<Server, NodeError> {
        Ok(match self {
            #[cfg(feature = "http")]
            Self::Http(host, access) => Server::Http(HttpServer::listen(&host, access, node).await?),
            #[cfg(feature = "zmq")]
            Self::Zmq(host) => Server::Zmq(ZmqServer::listen(&host, node).await?),
        })
    }
}

/// What listens.
pub(super) enum Server {
    #[cfg(feature = "http")]
    Http(HttpServer),
    #[cfg(feature = "zmq")]
    Zmq(ZmqServer),
}

impl Server {
    pub(super) fn url(&self) -> String {
        match self {
            #[cfg(feature = "http")]
            Self::Http(server) => server.url(),
            #[cfg(feature = "zmq")]
            Self::Zmq(server) => server.url(),
        }
    }

    pub(super) async fn stop(self) {
        match self {
            #[cfg(feature = "http")]
            Self::Http(server) => server.stop().await,
            #[cfg(feature = "zmq")]
            Self::Zmq(server) => server.stop().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "http")]
    #[test]
    fn an_address_is_a_host_and_a_port_and_what_encrypts_it() {
        let http = |tls, host: &str| Ok(Address { carrier: Carrier::Http(tls), host: host.to_owned() });
        assert_eq!(Address::parse("http://127.0.0.1:7700/"), http(None, "127.0.0.1:7700"));
        assert_eq!(Address::parse("http://[::1]:0"), http(None, "[::1]:0"));
        let tls = |ca| Some(Certificates { cert: "a".into(), key: "b".into(), ca });
        assert_eq!(Address::parse("https://h:1?cert=a&key=b"), http(tls(None), "h:1"));
        assert_eq!(Address::parse("https://h:1/?key=b&ca=c&cert=a"), http(tls(Some("c".into())), "h:1"));
    }

    #[test]
    fn what_is_no_address_is_told_what_one_is() {
        for wrong in [
            "127.0.0.1:7700",
            "http://host",
            "zmq://:80",
            "http://host:99999",
            "https://h:1",
            "zmq://u@h:1",
            "ftp://h:1",
        ] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
        for wrong in
            ["http://h:1?cert=a&key=b", "https://h:1?cert=a", "https://h:1?cert=a&key=b&color=red", "zmq://h:1?ca=a"]
        {
            assert!(Address::parse(wrong).unwrap_err().contains("https://HOST:PORT?cert=FILE&key=FILE"), "{wrong}");
        }
    }
}
