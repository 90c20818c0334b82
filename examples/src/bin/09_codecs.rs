//! Codecs: an event is JSON unless it names another codec. Handlers see the typed value, whatever it was on the way.

use std::sync::{Arc, Mutex};

use oncue::{event::codec::MessagePack, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "camera.named", key = camera)]
struct CameraNamed {
    camera: u32,
    name: String,
}

/// The same model in binary: smaller, and not for the eye.
#[derive(Event, Serialize, Deserialize)]
#[event(type = "camera.moved", key = camera, codec = MessagePack)]
struct CameraMoved {
    camera: u32,
    name: String,
}

/// The bytes themselves: no serde, no base64.
#[derive(Event)]
#[event(type = "picture.taken", codec = raw, content_type = "image/png")]
struct PictureTaken(Vec<u8>);

#[derive(Event)]
enum CameraEvent {
    Named(CameraNamed),
    Moved(CameraMoved),
    Picture(PictureTaken),
}

type Seen = Arc<Mutex<std::collections::BTreeSet<String>>>;

#[handler]
async fn follow(event: Delivery<CameraEvent>, State(seen): State<Seen>) {
    let what = match &*event {
        CameraEvent::Named(camera) => format!("camera {} is {}", camera.camera, camera.name),
        CameraEvent::Moved(camera) => format!("camera {} moved to {}", camera.camera, camera.name),
        CameraEvent::Picture(PictureTaken(png)) => format!("picture of {} bytes", png.len()),
    };
    let content_type = event.envelope.content_type().unwrap_or_default().to_owned();
    println!("{what}: {} bytes of {content_type}", event.envelope.data().len());
    seen.lock().expect("no panic").insert(content_type);
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let seen = Seen::default();
    let app = App::open("memory:").await?.state(seen.clone()).on(follow).start().await?;
    app.publish(CameraNamed { camera: 7, name: "door".into() }).await?;
    app.publish(CameraMoved { camera: 7, name: "gate".into() }).await?;
    app.publish(PictureTaken(vec![0x89, b'P', b'N', b'G'])).await?;
    app.idle().await?;
    let expected = ["application/json", "application/vnd.msgpack", "image/png"];
    assert!(seen.lock().expect("no panic").iter().eq(&expected));
    app.shutdown().await
}
