//! A bridge whose account may not publish: its events wait, everybody sees why, and they go on when the right is given.

use std::time::Duration;

use futures_util::future::BoxFuture;
use oncue::{
    App, Bus, Clock, HealthCause, HealthReason,
    alert::{AlertKind, Alerts},
    handler::HandlerExt as _,
    transport,
};

use super::broker_bridges::{all, events, standing};

/// A machine that does other things too is no failure.
const DEADLINE: Duration = Duration::from_secs(60);
const EVENTS: usize = 20;

/// What health says of a bridge that cannot go on.
fn blocked(bus: &Bus, bridge: &str) -> Option<HealthReason> {
    let is_of =
        |reason: &HealthReason| reason.cause == HealthCause::Alert(AlertKind::Blocked) && reason.subject == bridge;
    bus.health().reasons.into_iter().find(is_of)
}

/// Waits until health says so.
async fn is_refused(bus: &Bus, bridge: &str, because: &str) {
    let saying = async {
        loop {
            match blocked(bus, bridge) {
                Some(reason) if reason.text.contains("is refused") && reason.text.contains(because) => {
                    return reason.text;
                }
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let said = tokio::time::timeout(DEADLINE, saying).await;
    let text = said.unwrap_or_else(|_| panic!("`{bridge}` is not refused for {because}: {:?}", bus.health()));
    println!("{text}");
    assert!(!text.contains("secret"), "{text}");
}

/// `url`: one that may do anything but publish there, until `grant`; `stranger`: one that is not let in.
pub(super) async fn events_wait_for_a_right(
    (url, stranger): (String, String),
    because: &str,
    grant: impl FnOnce() -> BoxFuture<'static, ()>,
) {
    let directory = tempfile::tempdir().unwrap();
    let near = transport::open(&format!("file:{}", directory.path().display()), Clock::system()).unwrap();
    let bridge = |url: &str| oncue_transports::bridge(url, Clock::system()).topic("orders");
    let alerts = Alerts { recover_after: Duration::ZERO, ..Alerts::default() };
    let app = App::with_transport(near, Clock::system()).alerts(alerts);
    let bus = app.on(bridge(&url).named("there")).on(bridge(&stranger).named("stranger")).start().await.unwrap();
    bus.publish_all("orders", events(0..EVENTS), None).await.unwrap();
    is_refused(&bus, "there", because).await;
    is_refused(&bus, "stranger", "refuses these credentials").await;
    let alerts = bus.check_alerts().await;
    let told = alerts.iter().filter(|alert| alert.kind == AlertKind::Blocked && alert.text.contains("is refused"));
    assert_eq!(told.map(|alert| alert.subject.as_str()).collect::<Vec<_>>(), ["stranger", "there"], "{alerts:?}");
    let waiting = |bridge: &str| {
        let known = bus.inspect().subscriptions().into_iter().find(|known| known.id == bridge).unwrap();
        (known.lag, bus.inspect().dead_letters(bridge).unwrap().len())
    };
    for bridge in ["there", "stranger"] {
        assert_eq!(waiting(bridge), (EVENTS as u64, 0), "nothing of `{bridge}` is lost or given up");
    }
    grant().await;
    let going_on = async {
        while waiting("there").0 > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, going_on).await.unwrap_or_else(|_| panic!("it waits on: {:?}", bus.health()));
    assert_eq!(waiting("there"), (0, 0));
    bus.check_alerts().await;
    assert_eq!(blocked(&bus, "there"), None);
    assert!(blocked(&bus, "stranger").is_some());
    bus.shutdown().await.unwrap();
    let far = super::open(url).await;
    assert_eq!(standing(&*far), all(EVENTS));
    far.close().await.unwrap();
}

#[cfg(feature = "nats")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_until_a_user_of_nats_may_publish_them() {
    use super::{USER, broker_faults::Server as _, nats_server::Nats};

    let users = |permissions: &str| {
        let (user, password) = USER;
        format!("authorization {{ users: [{{ user: {user}, password: {password}{permissions} }}] }}\n")
    };
    let denied = users(", permissions: { publish: { deny: \"rights.orders.>\" } }");
    let Some(server) = Nats::start_with(move |_| denied).await else { return };
    let urls = (server.direct("rights"), server.url_of((USER.0, "wrong-secret"), server.address(), "rights"));
    let granting = server.reconfigure(&users(""));
    events_wait_for_a_right(urls, "no right to `rights.orders.", || Box::pin(granting)).await;
}

#[cfg(feature = "amqp")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_until_a_user_of_rabbitmq_may_publish_them() {
    use super::{USER, broker_faults::Server as _, rabbitmq_server::RabbitMq};

    let Some(server) = RabbitMq::start().await else { return };
    let urls = (server.direct("rights"), server.url_of((USER.0, "wrong-secret"), server.address(), "rights"));
    server.control(["set_permissions", USER.0, ".*", "^$", ".*"]).await;
    let granting = server.control(["set_permissions", USER.0, ".*", ".*", ".*"]);
    events_wait_for_a_right(urls, "the right to `write`", || Box::pin(granting)).await;
}

#[cfg(feature = "kafka")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_until_a_user_of_kafka_may_publish_them() {
    use super::{USER, broker_faults::Server as _, kafka_server::Kafka};

    let Some(server) = Kafka::start_guarded().await else { return };
    let urls = (server.direct("rights"), server.url_of((USER.0, "wrong-secret"), server.address(), "rights"));
    let topic = ["--topic", "rights.orders"];
    server.rights(["--add", "--allow-principal", "User:*", "--operation", "All", topic[0], topic[1]]).await;
    let denied = ["--deny-principal", "User:oncue", "--operation", "Write", topic[0], topic[1]];
    let [a, b, c, d, e, f] = denied;
    server.rights(["--add", a, b, c, d, e, f]).await;
    let granting = server.rights(["--remove", "--force", a, b, c, d, e, f]);
    events_wait_for_a_right(urls, "the right to write", || Box::pin(granting)).await;
}
