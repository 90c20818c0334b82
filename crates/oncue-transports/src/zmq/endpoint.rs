//! Where a socket is: `tcp://HOST:PORT`, as every `ZeroMQ` socket is told it.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use thiserror::Error;

use super::url::port;

/// Why an address is no [`Endpoint`].
#[derive(Debug, Error)]
pub enum EndpointError {
    /// It is not written as one.
    #[error("`{0}`: write `tcp://HOST:PORT`, such as `tcp://127.0.0.1:5556`; TCP alone is spoken")]
    Address(String),
    /// It cannot be listened on.
    #[error("cannot bind `{address}`: {source}; is another process there, or is it no address of this machine?")]
    Bind {
        /// The address.
        address: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

/// Where a [`Source`](super::Source) or a [`Sink`](super::Sink) meets its peers: see [`bind`] and [`connect`].
#[derive(Debug)]
#[must_use = "nobody is met before a source or a sink has it"]
pub struct Endpoint(pub(super) Meeting);

/// Who comes to whom.
#[derive(Debug)]
pub(super) enum Meeting {
    /// Peers come here.
    Bound(TcpListener, SocketAddr),
    /// There is one peer, at this `HOST:PORT`.
    At(String),
}

impl Endpoint {
    /// `tcp://HOST:PORT`: what peers connect to, or what is connected to.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.0 {
            Meeting::Bound(_, address) => format!("tcp://{address}"),
            Meeting::At(host) => format!("tcp://{host}"),
        }
    }
}

/// Listens on `tcp://HOST:PORT` for any number of peers, from now on; they are greeted once a source that runs, or a sink,
/// has it. `*` is every address of this machine, port 0 any that is free. Beyond loopback a warning is logged: there is no
/// encryption and no password here.
///
/// # Errors
/// It is no such address, or it cannot be listened on.
pub fn bind(url: &str) -> Result<Endpoint, EndpointError> {
    let host = host_of(url).ok_or_else(|| wrong(url))?;
    let everywhere = host.strip_prefix('*').map(|port| format!("0.0.0.0{port}"));
    let listen = || {
        let listener = TcpListener::bind(everywhere.as_deref().unwrap_or(host))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    let (listener, address) = listen().map_err(|source| EndpointError::Bind { address: url.to_owned(), source })?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "whoever reaches this address may talk to it: ZeroMQ has no encryption and no password here");
    }
    Ok(Endpoint(Meeting::Bound(listener, address)))
}

/// The peer at `tcp://HOST:PORT`. It need not be there: it is connected to once a source that runs, or a sink, has this,
/// and again whenever it is lost, after pauses of 50 ms to 4 s, half of each at random.
///
/// # Errors
/// It is no such address.
pub fn connect(url: &str) -> Result<Endpoint, EndpointError> {
    let host = host_of(url).filter(|host| !host.starts_with('*') && !host.ends_with(":0"));
    Ok(Endpoint(Meeting::At(host.ok_or_else(|| wrong(url))?.to_owned())))
}

fn host_of(url: &str) -> Option<&str> {
    url.strip_prefix("tcp://").filter(|host| !host.contains(['@', '/']) && port(host).is_some())
}

fn wrong(url: &str) -> EndpointError {
    EndpointError::Address(crate::without_secrets(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port_over_tcp() {
        assert_eq!(connect("tcp://weather.example:5556").unwrap().url(), "tcp://weather.example:5556");
        assert_eq!(connect("tcp://[::1]:5556").unwrap().url(), "tcp://[::1]:5556");
        let bound = bind("tcp://127.0.0.1:0").unwrap();
        assert!(bound.url().starts_with("tcp://127.0.0.1:") && !bound.url().ends_with(":0"), "{bound:?}");
        for url in [
            "ipc:///tmp/socket",
            "zmq://host:1",
            "host:1",
            "tcp://host",
            "tcp://:1",
            "tcp://host:70000",
            "tcp://host:1/a",
            "tcp://me:secret@host:1",
        ] {
            for error in [bind(url).unwrap_err(), connect(url).unwrap_err()] {
                let error = error.to_string();
                assert!(error.contains("tcp://HOST:PORT") && !error.contains("secret"), "{error}");
            }
        }
        for url in ["tcp://host:0", "tcp://*:5556"] {
            assert!(matches!(connect(url), Err(EndpointError::Address(_))), "{url}");
        }
        let taken = bind(&bound.url()).unwrap_err();
        assert!(matches!(&taken, EndpointError::Bind { .. }) && taken.to_string().contains(&bound.url()), "{taken}");
    }
}
