//! What a URL says: `zmq://HOST:PORT`, or `zmq://HOST:PORT/LOG`.

use oncue::transport::OpenError;

/// Where a node is, and which of its logs is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// `HOST:PORT`.
    pub(super) host: String,
    /// Empty: the node's own.
    pub(super) log: String,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        let wrong = |reason: &str| OpenError::Url { url: crate::without_secrets(url), reason: reason.to_owned() };
        let rest = url.strip_prefix("zmq://").unwrap_or(url);
        if rest.contains('@') {
            return Err(wrong("a node knows no passwords: write `zmq://HOST:PORT`"));
        }
        let (host, log) = rest.split_once('/').unwrap_or((rest, ""));
        let log = log.trim_end_matches('/');
        if log.contains('/') || rest.contains(['?', '#']) {
            return Err(wrong("a node has logs and no options: write `zmq://HOST:PORT` or `zmq://HOST:PORT/LOG`"));
        }
        if port(host).is_none_or(|port| port == 0) {
            return Err(wrong("write `zmq://HOST:PORT`, such as `zmq://127.0.0.1:7701`"));
        }
        Ok(Self { host: host.to_owned(), log: log.to_owned() })
    }
}

/// The port of `HOST:PORT`; nothing if it is not that.
pub(super) fn port(host: &str) -> Option<u16> {
    let (name, port) = host.rsplit_once(':')?;
    port.parse().ok().filter(|_| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_a_port_and_perhaps_a_log() {
        let parsed = |url: &str| Address::parse(url).map(|address| (address.host, address.log)).ok();
        let is = |host: &str, log: &str| Some((host.to_owned(), log.to_owned()));
        assert_eq!(parsed("zmq://127.0.0.1:7701"), is("127.0.0.1:7701", ""));
        assert_eq!(parsed("zmq://[::1]:7701/eu/"), is("[::1]:7701", "eu"));
        for (url, says) in [
            ("zmq://host", "zmq://HOST:PORT"),
            ("zmq://:1", "zmq://HOST:PORT"),
            ("zmq://host:0", "zmq://HOST:PORT"),
            ("zmq://host:70000", "zmq://HOST:PORT"),
            ("zmq://host:1/a/b", "zmq://HOST:PORT/LOG"),
            ("zmq://host:1?x=1", "no options"),
            ("zmq://me:secret@host:1", "no passwords"),
        ] {
            let error = Address::parse(url).expect_err(url).to_string();
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
        }
    }
}
