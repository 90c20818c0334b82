//! Programs that know `ZeroMQ` and have no client of ours: sockets of libzmq, by pyzmq, ask a node.

use std::process::Command;

use oncue_transports::wire::message::{self, MAX_MESSAGE_BYTES, Refusal, Reply, Request, VERSION};

use crate::{
    node::Running,
    pyzmq::{bytes, python},
};

/// Asks with a DEALER, with a REQ, and with a REQ behind a proxy; then with a message that is too large. Prints what came.
const PROGRAM: &str = r#"
import sys, threading, zmq
address, hello, large = sys.argv[1], bytes.fromhex(sys.argv[2]), int(sys.argv[3])
context = zmq.Context()

def ask(kind, address, parts):
    socket = context.socket(kind)
    socket.setsockopt(zmq.RCVTIMEO, 60000)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 50)
    socket.connect(address)
    socket.send_multipart(parts)
    print(*(part.hex() or "-" for part in socket.recv_multipart()), flush=True)
    socket.close()

ask(zmq.DEALER, address, [b"a", b"b", b"wire/v1", hello])
ask(zmq.REQ, address, [b"wire/v1", hello])
front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
port = front.bind_to_random_port("tcp://127.0.0.1")
back.connect(address)
threading.Thread(target=lambda: zmq.proxy(front, back), daemon=True).start()
ask(zmq.REQ, "tcp://127.0.0.1:%d" % port, [b"wire/v1", hello])
ask(zmq.DEALER, address, [b"", b"wire/v1", bytes(large)])
import os
os._exit(0)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_libzmq_ask_a_node() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    let address = format!("tcp://{}", node.zmq.address());
    let hello = message::encode(&Request::Hello { version: VERSION }).unwrap();
    let hello: String = hello.iter().map(|byte| format!("{byte:02x}")).collect();
    let large = (MAX_MESSAGE_BYTES + (1 << 20)).to_string();
    let asking = move || Command::new(python).args(["-c", PROGRAM, &address, &hello, &large]).output();
    let ended = tokio::task::spawn_blocking(asking).await.unwrap().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let printed = String::from_utf8(ended.stdout).unwrap();
    let answers = printed.lines().map(|line| {
        let mut parts: Vec<Vec<u8>> = line.split(' ').map(bytes).collect();
        let answer: Result<Reply, Refusal> = message::decode(&parts.pop().unwrap()).unwrap();
        (parts, answer)
    });
    let answers: Vec<_> = answers.collect();
    let path = || b"wire/v1".to_vec();
    let before = [vec![b"a".to_vec(), b"b".to_vec(), path()], vec![path()], vec![path()], vec![Vec::new(), path()]];
    assert_eq!(answers.iter().map(|(parts, _)| parts.clone()).collect::<Vec<_>>(), before);
    assert!(answers[..3].iter().all(|(_, answer)| matches!(answer, Ok(Reply::Hello { .. }))), "{answers:?}");
    let refused = &answers[3].1;
    assert!(matches!(refused, Err(Refusal::TooLarge { limit: MAX_MESSAGE_BYTES, .. })), "{refused:?}");
    node.stop().await;
}
