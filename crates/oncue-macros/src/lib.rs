//! The macros of Oncue: `#[derive(Event)]` and `#[handler]`. Use them through the crate `oncue`, which re-exports them.

mod coding;
mod event;
mod handler;
mod options;

use proc_macro::TokenStream;

/// Derives `oncue::event::Event`.
///
/// On a struct, which also derives serde's `Serialize` and `Deserialize`:
///
/// - `type = "order.created"`: the event type. Required.
/// - `key = order_id`: what order is kept for; a field, or an expression of fields (`key = customer.id`,
///   `key = self.customer.id()`). Anything that implements `Display`.
/// - `topic = "orders"`: the topic that such events are published to, if not the default one.
/// - `schema = "https://…"`: the `dataschema` attribute.
/// - `codec = MessagePack`: how a value becomes bytes, a type that implements `oncue::event::codec::Codec`; JSON if not
///   given. `codec = raw` on a struct around one `Bytes`, `Vec<u8>` or `String` (`struct ImageStored(Bytes)`): the data is
///   the field as it is, and no serde is needed.
/// - `content_type = "image/png"`: the `datacontenttype` attribute, if not the codec's own.
///
/// A struct without fields is its type alone: its data is empty.
///
/// On an enum, each variant is a type of its own: a unit variant with `#[event(type = "…")]` (no data), or a newtype
/// variant around an event (`Created(OrderCreated)`): the data on the wire is that of the inner event, and so are its key,
/// its codec and its type, unless the variant has a `type` of its own. `topic` and `schema` stand on the enum.
///
/// ```ignore
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(type = "order.created", key = order_id)]
/// struct OrderCreated { order_id: String }
///
/// #[derive(Event)]
/// enum OrderEvent {
///     Created(OrderCreated),
///     #[event(type = "orders.closed")]
///     Closed,
/// }
/// ```
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    event::derive(input.into()).unwrap_or_else(|error| error.into_compile_error()).into()
}

/// Makes a function a handler. It stays a function: `charge(order, State(bank)).await` calls it.
///
/// The first argument is the event, by value or by reference: a type that derives `Event`, a `Delivery` of one, or
/// `Envelope` (then with `on`). The others are extractors. It returns `()`, an event, an `Option`, `Vec` or tuple of
/// events, or a `Result` of these. A plain `fn` runs on the blocking pool, unless `inline`; call it in a test as
/// `audit(&event).into_inner()`.
///
/// | option | meaning | default |
/// |---|---|---|
/// | `id = "…"` | what position and state are kept under | the function's name |
/// | `retry = policy::exponential()` or `"name"` | what follows a failure: a policy, or one of the configuration | the app's |
/// | `concurrency = 8` | most events in flight at once, of different keys | 16 |
/// | `timeout = "30s"` or a `Duration` | longest that one attempt may take | none |
/// | `inline` | a plain `fn` runs where it is called; for those that never block | off |
/// | `on = "order.created"` or `["a", "b"]` | the event types | those of the first argument |
/// | `topic = "orders"` | the topic | that of the first argument |
/// | `emits(OrderPaid, …)` | what `Context::emit` publishes | nothing |
/// | `classify = BankError::class` | `fn(&BankError) -> ErrorClass` | transient |
/// | `on_dead_letter = "continue"` or `"hold"` | what a dead letter does to later events of its key | `continue` |
/// | `start = "earliest"` or `"latest"` | where a new subscription begins | `earliest` |
/// | `ordered = "strict"` or `"relaxed"` | whether later events of a key wait for one that is retried | `strict` |
/// | `pipelined` | the next event of a key starts once the last is acknowledged, while that is made durable | off |
///
/// ```ignore
/// #[handler(retry = policy::exponential(), concurrency = 8, timeout = "30s")]
/// async fn charge(order: OrderCreated, State(bank): State<Bank>) -> Result<OrderPaid, BankError> {
///     bank.charge(&order.order_id, order.total_cents).await?;
///     Ok(OrderPaid { order_id: order.order_id })
/// }
/// ```
#[proc_macro_attribute]
pub fn handler(options: TokenStream, item: TokenStream) -> TokenStream {
    handler::expand(options.into(), &item.into()).into()
}
