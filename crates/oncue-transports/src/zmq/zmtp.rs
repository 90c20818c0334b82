//! ZMTP 3.0, what `ZeroMQ` sockets say to each other over TCP, with the NULL mechanism: <https://rfc.zeromq.org/spec/23/>.
//!
//! Everything that a peer may make us keep has a limit, and is read as it comes: a length that is only said costs nothing.

use std::io;

use bytes::Bytes;
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{Duration, timeout},
};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// A message that has begun has so long to end; one that is sent has so long to be taken.
const MESSAGE: Duration = Duration::from_secs(30);
/// Most bytes of a command.
const MAX_COMMAND: usize = 8 << 10;
/// So much is asked of memory before the bytes are there.
const FIRST_BYTES: u64 = 64 << 10;

const SIGNATURE: [u8; 10] = [0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f];
const GREETING_BYTES: usize = 64;
const VERSION: u8 = 3;
const MECHANISM: &[u8] = b"NULL";

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// What sockets are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Socket {
    Dealer,
    Router,
    Sub,
    Pub,
    Pull,
    Push,
}

impl Socket {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dealer => "DEALER",
            Self::Router => "ROUTER",
            Self::Sub => "SUB",
            Self::Pub => "PUB",
            Self::Pull => "PULL",
            Self::Push => "PUSH",
        }
    }

    /// The kinds of peers it talks to.
    fn peers(self) -> &'static [&'static str] {
        match self {
            Self::Dealer => &["ROUTER"],
            Self::Router => &["DEALER", "REQ", "ROUTER"],
            Self::Sub => &["PUB", "XPUB"],
            Self::Pub => &["SUB", "XSUB"],
            Self::Pull => &["PUSH"],
            Self::Push => &["PULL"],
        }
    }
}

/// Why a connection cannot go on.
#[derive(Debug, Error)]
pub(super) enum ZmtpError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it does not speak ZeroMQ")]
    NotZmtp,
    #[error("it speaks version {0} of ZeroMQ's protocol, and version 3 is needed: update it")]
    Version(u8),
    #[error("it asks for the mechanism {0}, and NULL alone is spoken here: no encryption and no password")]
    Mechanism(String),
    #[error("it is a {theirs} socket, to which a {ours} does not talk")]
    Socket { theirs: String, ours: &'static str },
    #[error("it refuses the connection: {0}")]
    Refused(String),
    #[error("what came is not ZeroMQ's protocol: {0}")]
    Malformed(&'static str),
    #[error("a message of {bytes} bytes: the limit is {limit}")]
    TooLarge {
        /// The parts that came before the one that is too large.
        before: Vec<Bytes>,
        bytes: u64,
        limit: usize,
    },
    #[error("no connection within {CONNECT:?}")]
    NoConnection,
    #[error("no greeting within {0:?}")]
    NoGreeting(Duration),
    #[error("a message was not through within {MESSAGE:?}")]
    Late,
}

/// What a peer sent.
#[derive(Debug)]
pub(super) enum Received {
    Message(Vec<Bytes>),
    /// To be answered with the same bytes.
    Ping(Bytes),
}

/// What is sent to a peer.
pub(super) enum Outgoing {
    Message(Vec<Bytes>),
    Pong(Bytes),
}

/// What a message may be.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) bytes: usize,
    pub(super) parts: usize,
}

/// Connects to `HOST:PORT`.
pub(super) async fn connect(host: &str) -> Result<TcpStream, ZmtpError> {
    Ok(timeout(CONNECT, TcpStream::connect(host)).await.map_err(|_| ZmtpError::NoConnection)??)
}

/// Greets, and learns who the peer is, who has so long to say it.
pub(super) async fn handshake(
    stream: TcpStream,
    ours: Socket,
    within: Duration,
) -> Result<(Reader, Writer), ZmtpError> {
    timeout(within, greet(stream, ours)).await.map_err(|_| ZmtpError::NoGreeting(within))?
}

async fn greet(stream: TcpStream, ours: Socket) -> Result<(Reader, Writer), ZmtpError> {
    // Small answers are sent at once.
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let (mut reader, mut writer) = (Reader(BufReader::new(reader)), Writer(BufWriter::new(writer)));
    let mut greeting = [0; GREETING_BYTES];
    greeting[..10].copy_from_slice(&SIGNATURE);
    greeting[10] = VERSION;
    greeting[12..16].copy_from_slice(MECHANISM);
    writer.0.write_all(&greeting).await?;
    writer.0.flush().await?;
    reader.greeting().await?;
    writer.command(b"READY", &property(b"Socket-Type", ours.name().as_bytes())).await?;
    writer.0.flush().await?;
    let theirs = reader.ready().await?;
    if ours.peers().contains(&theirs.as_str()) {
        return Ok((reader, writer));
    }
    let error = ZmtpError::Socket { theirs, ours: ours.name() };
    let mut reason = error.to_string().into_bytes();
    reason.truncate(u8::MAX.into());
    let length = u8::try_from(reason.len()).unwrap_or(u8::MAX);
    reason.insert(0, length);
    writer.command(b"ERROR", &reason).await?;
    writer.0.flush().await?;
    Err(error)
}

fn property(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length(name)[3..], name, &length(value), value].concat()
}

/// The value of a property, by its name in any case.
fn value_of(name: &[u8], mut properties: &[u8]) -> Option<String> {
    while !properties.is_empty() {
        let (length, rest) = properties.split_first()?;
        let (named, rest) = rest.split_at_checked((*length).into())?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        if named.eq_ignore_ascii_case(name) {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        properties = rest;
    }
    None
}

/// The end that reads.
pub(super) struct Reader(BufReader<OwnedReadHalf>);

impl Reader {
    async fn greeting(&mut self) -> Result<(), ZmtpError> {
        if self.0.read_u8().await? != SIGNATURE[0] {
            return Err(ZmtpError::NotZmtp);
        }
        let mut signature = [0; 9];
        self.0.read_exact(&mut signature).await?;
        if signature[8] & 1 == 0 {
            return Err(ZmtpError::NotZmtp);
        }
        // Older ones wait for what we say next.
        let version = self.0.read_u8().await?;
        if version < VERSION {
            return Err(ZmtpError::Version(version));
        }
        let mut rest = [0; GREETING_BYTES - 11];
        self.0.read_exact(&mut rest).await?;
        let mechanism = rest[1..21].split(|byte| *byte == 0).next().unwrap_or_default();
        if mechanism != MECHANISM {
            return Err(ZmtpError::Mechanism(String::from_utf8_lossy(mechanism).into_owned()));
        }
        Ok(())
    }

    /// The kind of the peer's socket.
    async fn ready(&mut self) -> Result<String, ZmtpError> {
        let flags = self.0.read_u8().await?;
        if flags & COMMAND == 0 {
            return Err(ZmtpError::Malformed("a message before READY"));
        }
        let command = self.frame(flags, MAX_COMMAND).await?;
        if let Some(properties) = command.strip_prefix(b"\x05READY") {
            return value_of(b"Socket-Type", properties).ok_or(ZmtpError::Malformed("a READY without a Socket-Type"));
        }
        match command.strip_prefix(b"\x05ERROR") {
            Some(reason) => {
                Err(ZmtpError::Refused(String::from_utf8_lossy(reason.get(1..).unwrap_or_default()).into()))
            }
            None => Err(ZmtpError::Malformed("neither READY nor ERROR")),
        }
    }

    /// The next message or ping; nothing once the peer is gone. To be polled to its end: what was read of a message is lost
    /// with it.
    pub(super) async fn next(&mut self, limits: Limits) -> Result<Option<Received>, ZmtpError> {
        loop {
            let flags = match self.0.read_u8().await {
                Ok(flags) => flags,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let received = timeout(MESSAGE, self.rest(flags, limits)).await.map_err(|_| ZmtpError::Late)??;
            if received.is_some() {
                return Ok(received);
            }
        }
    }

    /// What a first flag begins; nothing for a command that says nothing here.
    async fn rest(&mut self, mut flags: u8, limits: Limits) -> Result<Option<Received>, ZmtpError> {
        if flags & COMMAND != 0 {
            let command = self.frame(flags, MAX_COMMAND).await?;
            // A ping says for how long it counts, and may carry bytes that come back.
            let ping = command.strip_prefix(b"\x04PING").and_then(|ping| ping.get(2..));
            return Ok(ping.map(|context| Received::Ping(command.slice_ref(context))));
        }
        let (mut parts, mut bytes) = (Vec::new(), 0);
        loop {
            if parts.len() == limits.parts {
                return Err(ZmtpError::Malformed("a message of too many parts"));
            }
            let part = match self.frame(flags, limits.bytes - bytes).await {
                Err(ZmtpError::TooLarge { bytes: part, .. }) => {
                    let bytes = part.saturating_add(bytes as u64);
                    return Err(ZmtpError::TooLarge { before: parts, bytes, limit: limits.bytes });
                }
                part => part?,
            };
            bytes += part.len();
            parts.push(part);
            if flags & MORE == 0 {
                return Ok(Some(Received::Message(parts)));
            }
            flags = self.0.read_u8().await?;
            if flags & COMMAND != 0 {
                return Err(ZmtpError::Malformed("a command inside a message"));
            }
        }
    }

    async fn frame(&mut self, flags: u8, limit: usize) -> Result<Bytes, ZmtpError> {
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
            return Err(ZmtpError::Malformed("unknown flags"));
        }
        let bytes = if flags & LONG == 0 { self.0.read_u8().await?.into() } else { self.0.read_u64().await? };
        if bytes > limit as u64 {
            return Err(ZmtpError::TooLarge { before: Vec::new(), bytes, limit });
        }
        let mut body = Vec::with_capacity(usize::try_from(bytes.min(FIRST_BYTES)).unwrap_or_default());
        (&mut self.0).take(bytes).read_to_end(&mut body).await?;
        if (body.len() as u64) < bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(body.into())
    }

    /// Reads on without keeping anything, so that the peer gets what was said to it last.
    pub(super) async fn linger(mut self, how_long: Duration) {
        // However it ends, the connection does.
        let _ = timeout(how_long, tokio::io::copy(&mut self.0, &mut tokio::io::sink())).await;
    }
}

/// The end that writes.
pub(super) struct Writer(BufWriter<OwnedWriteHalf>);

impl Writer {
    /// Sends what is in a queue until nobody can put anything in, then says that nothing follows.
    pub(super) async fn send_all(mut self, mut queue: mpsc::Receiver<Outgoing>) -> Result<(), ZmtpError> {
        while let Some(first) = queue.recv().await {
            let mut next = Some(first);
            while let Some(outgoing) = next {
                timeout(MESSAGE, self.put(outgoing)).await.map_err(|_| ZmtpError::Late)??;
                next = queue.try_recv().ok();
            }
            timeout(MESSAGE, self.0.flush()).await.map_err(|_| ZmtpError::Late)??;
        }
        Ok(self.0.shutdown().await?)
    }

    /// Sends one, however long the peer takes.
    pub(super) async fn send(&mut self, outgoing: Outgoing) -> Result<(), ZmtpError> {
        self.put(outgoing).await?;
        Ok(self.0.flush().await?)
    }

    async fn put(&mut self, outgoing: Outgoing) -> io::Result<()> {
        match outgoing {
            Outgoing::Message(parts) => {
                let last = parts.len().saturating_sub(1);
                for (index, part) in parts.iter().enumerate() {
                    self.frame(if index < last { MORE } else { 0 }, part).await?;
                }
                Ok(())
            }
            Outgoing::Pong(context) => self.command(b"PONG", &context).await,
        }
    }

    async fn command(&mut self, name: &[u8], data: &[u8]) -> io::Result<()> {
        let length = u8::try_from(name.len()).map_err(io::Error::other)?;
        self.frame(COMMAND, &[&[length], name, data].concat()).await
    }

    async fn frame(&mut self, flags: u8, body: &[u8]) -> io::Result<()> {
        if let Ok(length) = u8::try_from(body.len()) {
            self.0.write_all(&[flags, length]).await?;
        } else {
            self.0.write_u8(flags | LONG).await?;
            self.0.write_u64(body.len() as u64).await?;
        }
        self.0.write_all(body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_is_read_as_it_is_written() {
        let both = [property(b"Identity", b""), property(b"Socket-Type", b"DEALER")].concat();
        assert_eq!(value_of(b"socket-type", &both).as_deref(), Some("DEALER"));
        assert_eq!(value_of(b"Resource", &both), None);
        for cut in 0..both.len() - 1 {
            // Whatever is missing at the end, it is no panic and no value.
            assert_eq!(value_of(b"socket-type", &both[..cut]), None);
        }
    }
}
