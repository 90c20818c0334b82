//! The node's end: an accept loop of its own, with limits on what clients may cost.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{CONNECTION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
};

use super::{
    MEDIA_TYPE, PATH,
    access::Access,
    binding::{self, Path},
};
use crate::wire::{
    Listening, Node, ServeError, encode_answer,
    message::{self, MAX_MESSAGE_BYTES, Refusal, Reply, VERSION},
    version_and_log,
};

/// A client has so long to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// A client has so long to send a message.
const BODY: Duration = Duration::from_secs(30);

/// What is answered.
pub(super) type Body = Full<Bytes>;

/// A node that listens for HTTP. It stops when this is dropped.
pub struct HttpServer {
    listening: Listening,
    scheme: &'static str,
}

impl HttpServer {
    /// Listens on `HOST:PORT` to those who have access; port 0 is any that is free.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn listen(address: &str, access: Access, node: Arc<Node>) -> Result<Self, ServeError> {
        let scheme = if access.tls.is_some() { "https" } else { "http" };
        let handle = node.handle().clone();
        let door = Door { access: Arc::new(access), node };
        let listening =
            Listening::start(address, &handle, move |stream, stopped| welcome(stream, door.clone(), stopped));
        Ok(Self { listening: listening.await?, scheme })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    /// The URL that clients open.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address())
    }

    /// Stops listening, lets requests that are on their way end, and closes all connections.
    pub async fn stop(self) {
        self.listening.stop().await;
    }
}

/// A node, and who may come to it.
#[derive(Clone)]
struct Door {
    access: Arc<Access>,
    node: Arc<Node>,
}

async fn welcome(stream: TcpStream, door: Door, mut stopped: watch::Receiver<bool>) {
    // Small answers are sent at once.
    let _ = stream.set_nodelay(true);
    let Some(tls) = door.access.tls.clone() else { return converse(stream, door, stopped).await };
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(HEAD, tls.accept(stream)) => shaken,
        _ = stopped.wait_for(|stopped| *stopped) => return,
    };
    match shaken {
        Ok(Ok(stream)) => converse(stream, door, stopped).await,
        Ok(Err(error)) => tracing::debug!(%error, "a connection is not encrypted as it should be"),
        Err(_) => tracing::debug!("a connection was not encrypted in time"),
    }
}

async fn converse<S>(stream: S, door: Door, mut stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(respond(&door, request).await) }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn respond(Door { access, node }: &Door, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    if !access.admits(&head.headers) {
        let mut response = plain(StatusCode::UNAUTHORIZED, "this node asks for a name and its password\n".to_owned());
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"oncue\""));
        return last(response);
    }
    let path = head.uri.path();
    if let Some((version, log)) = path.strip_prefix('/').and_then(version_and_log) {
        if head.method != Method::POST {
            return last(plain(StatusCode::METHOD_NOT_ALLOWED, "messages are sent by POST\n".to_owned()));
        }
        if version != VERSION {
            return send(&Err(Refusal::Version { node: VERSION, client: version }));
        }
        return match read(body).await {
            Ok(body) => send(&match message::decode_request(&body) {
                Ok(request) => node.answer(log, request).await,
                Err(refusal) => Err(refusal),
            }),
            Err(Unread::Late) => last(late()),
            Err(Unread::Refused(refusal)) => last(send(&Err(refusal))),
        };
    }
    if let Some(path) = Path::of(path) {
        return match read(body).await {
            Ok(body) => binding::respond(node, path, (head.method, head.uri.query()), &head.headers, body).await,
            Err(Unread::Late) => last(late()),
            Err(Unread::Refused(refusal)) => last(binding::refused(&refusal)),
        };
    }
    let text = format!("an Oncue node: apps reach it at {PATH}, other programs at /topics/TOPIC\n");
    last(plain(StatusCode::NOT_FOUND, text))
}

/// Why there is no body.
enum Unread {
    Late,
    Refused(Refusal),
}

async fn read(body: Incoming) -> Result<Bytes, Unread> {
    let said = body.size_hint().lower();
    let body = Limited::new(body, MAX_MESSAGE_BYTES).collect();
    match tokio::time::timeout(BODY, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let bytes = usize::try_from(said).unwrap_or(usize::MAX).max(MAX_MESSAGE_BYTES + 1);
            Err(Unread::Refused(Refusal::TooLarge { bytes, limit: MAX_MESSAGE_BYTES }))
        }
        Ok(Err(error)) => Err(Unread::Refused(Refusal::Malformed(error.to_string()))),
        Err(_) => Err(Unread::Late),
    }
}

fn late() -> Response<Body> {
    plain(StatusCode::REQUEST_TIMEOUT, "the message did not arrive in time\n".to_owned())
}

/// What is left of a body that was not read to its end cannot be told from the next request: the connection is closed, and
/// whoever is at its other end asks nothing more on it.
fn last(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn send(answer: &Result<Reply, Refusal>) -> Response<Body> {
    let status = match answer {
        Err(Refusal::Malformed(_) | Refusal::Unknown(_) | Refusal::Version { .. }) => StatusCode::BAD_REQUEST,
        Err(Refusal::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
        Err(Refusal::Closing) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    match encode_answer(answer) {
        Ok(bytes) => {
            let mut response = Response::new(Full::new(bytes.into()));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
            response
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

pub(super) fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
