//! Connecting to a server, with what it is to be convinced by, and again when the connection is lost.

use std::error::Error as _;

use async_nats::{ConnectErrorKind, ConnectOptions};
use oncue::transport::broker::BrokerError;

use super::{
    refusals::{Connection, Refusals},
    url::{Login, NatsUrl},
};
use crate::reconnect::pause;

/// The oldest server that answers a request for many messages (ADR-31, batches).
const OLDEST: (i64, i64) = (2, 11);

/// What may be wrong where encryption is asked for.
const ENCRYPTION: &str =
    "is a server there that encrypts? `ca=FILE` names who signed its certificate, `cert=FILE&key=FILE` one's own";

/// A connection; the error says why there is none, and how to mend it.
pub(super) async fn connect(url: &NatsUrl) -> Result<Connection, BrokerError> {
    let refusals = Refusals::default();
    let hearing = refusals.clone();
    let mut options = ConnectOptions::new()
        .name("oncue")
        .event_callback(move |event| {
            hearing.take(&event);
            std::future::ready(())
        })
        .reconnect_delay_callback(|attempts| pause(u32::try_from(attempts).unwrap_or(u32::MAX)));
    let security = &url.security;
    options = options.require_tls(url.tls);
    options = match &url.login {
        None => options,
        Some(Login::User(user, password)) => options.user_and_password(user.clone(), password.clone()),
        Some(Login::Token(token)) => options.token(token.clone()),
        Some(Login::File(file)) => options
            .credentials_file(file)
            .await
            .map_err(|error| format!("{} does not hold a user's credentials: {error}", file.display()))
            .map_err(BrokerError::Refused)?,
    };
    if let Some(ca) = &security.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&security.cert, &security.key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    let client = options.connect(&url.server).await.map_err(|error| {
        let mend = match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                "the server refuses these credentials: write `nats://USER:PASSWORD@HOST:PORT`, `nats://TOKEN@HOST:PORT`, or \
                 `credentials=FILE`"
            }
            ConnectErrorKind::Tls => ENCRYPTION,
            // What the other end does not like of a handshake is told as any other error of the connection.
            ConnectErrorKind::Io if url.tls => ENCRYPTION,
            ConnectErrorKind::Dns => "the host is not known: check its name",
            ConnectErrorKind::ServerParse => "no address: write `nats://HOST:PORT`",
            _ => "is a server there, and does it take connections from here?",
        };
        let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
        let reason = format!("{}{cause}: {mend}", error.kind());
        match error.kind() {
            ConnectErrorKind::AuthorizationViolation
            | ConnectErrorKind::Authentication
            | ConnectErrorKind::Tls
            | ConnectErrorKind::ServerParse => BrokerError::Refused(reason),
            _ => BrokerError::Failed(reason),
        }
    })?;
    let (major, minor) = OLDEST;
    if client.is_server_compatible(major, minor, 0) {
        return Ok(Connection { client, refusals });
    }
    let version = client.server_info().version;
    Err(BrokerError::Refused(format!(
        "the server is NATS {version}: {major}.{minor} or newer is needed, which reads many messages at once"
    )))
}
