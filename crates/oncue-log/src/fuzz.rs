//! The decoders as functions of any bytes, for fuzzing: `fuzz/` runs them for as long as one likes, the tests below for a
//! moment. None may panic, hang, or take more memory than its input; and what is read can be written and read again.

use std::sync::OnceLock;

use crate::checkpoint::{self, Part, decode_topic, encode_topics};
use crate::frame::{FRAME_RECORDS, FrameHeader, HEADER_BYTES, Place, add, seed, verify};
use crate::index::{FrameTopic, Index};
use crate::record::{KIND_EVENT, RecordHeader, Walk};
use crate::segment::{epoch_of, name_of};
use crate::storage::MemoryStorage;
use crate::wire::{put, u32_at, u64_at};
use crate::{Batch, Log, Options, Writer};

/// A decoder: its name, what to do with any bytes, and some that it is made for.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// Every decoder.
pub const TARGETS: &[Target] = &[
    ("frame", frame, || vec![sample_frame()]),
    ("record", record, || vec![sample_frame()[HEADER_BYTES..].to_vec()]),
    ("index", index, || vec![sample_index().encode()]),
    ("checkpoint", checkpoint, || vec![sample_checkpoint()]),
    ("directory", directory, || vec![vec![0, 0, 0, 0, 0, 0], vec![1, 0, 1, 24, 0, 255, 0, 0, 1, 12, 1, 3]]),
];

const PLACE: Place = Place { epoch: 3, position: 144 };

fn sample_frame() -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    for data in [&b"first"[..], b"", b"third"] {
        let bytes = data.len() as u32;
        let header = RecordHeader { bytes, kind: KIND_EVENT, flags: 0, partition: 2, topic: 1, offset: 9 };
        frame.extend_from_slice(&header.encode());
        frame.extend_from_slice(data);
    }
    let header = FrameHeader {
        kind: FRAME_RECORDS,
        flags: 0,
        payload_bytes: (frame.len() - HEADER_BYTES) as u32,
        records: 3,
        topic: 1,
        place: PLACE,
        first_lsn: 10,
        synced_lsn: 9,
        time: 5,
    };
    header.seal(&mut frame, seed(7));
    frame
}

fn sample_index() -> Index {
    let mut index = Index::default();
    for number in 0..4 {
        let topics = [1, 2].map(|topic| {
            let mut seen = FrameTopic::new(topic, number);
            seen.add(number, 30);
            seen
        });
        index.add(144 + number * 70_000, number * 2, 5, &topics);
    }
    index
}

fn sample_checkpoint() -> Vec<u8> {
    let mut bytes = encode_topics([(3, 7, "orders", &b"meta"[..]), (0, 0, "", b"")].into_iter());
    bytes.extend_from_slice(b"opaque");
    bytes
}

/// A frame, as bytes that lie where one should.
fn frame(data: &[u8]) {
    let Ok(header) = FrameHeader::parse(data, PLACE) else { return };
    let Some(whole) = data.get(..header.frame_bytes()) else { return };
    let holds = verify(whole, seed(7)).is_ok();
    let mut again = whole.to_vec();
    header.seal(&mut again, seed(7));
    assert!(FrameHeader::parse(&again, PLACE) == Ok(header), "what was written is what is read");
    assert!(!holds || again[4..72] == whole[4..72], "what was read is what is written");
    record(&whole[HEADER_BYTES..]);
}

/// The payload of a frame of records; the first byte says how many there are to be.
fn record(data: &[u8]) {
    let records = data.first().map_or(0, |byte| u32::from(*byte) % 9);
    let mut walk = Walk::new(0, 10, records);
    let (mut lsn, mut bytes) = (10, 0);
    while let Some(step) = walk.next(data) {
        let Ok(step) = step else { break };
        assert!(step.lsn >= lsn);
        (lsn, bytes) = (step.lsn + 1, bytes + step.data(data).len());
        let _words = step.header.unsupported();
        let _topic = decode_topic(step.data(data));
        if let Some((part, slice)) = Part::decode(step.data(data)) {
            assert_eq!([&part.encode()[..], slice].concat(), step.data(data));
        }
    }
    assert!(bytes <= data.len(), "records do not overlap");
}

fn index(data: &[u8]) {
    let Some(index) = Index::decode(data) else { return };
    assert!(Index::decode(&index.encode()).as_ref() == Some(&index), "what was read is what is written");
    for probe in [0, 1, 145, u64::MAX] {
        let _places = (index.of_lsn(probe), index.after(probe), index.of_time(probe as i64));
        let _frames: Vec<_> = index.topics().map(|(_, topic)| topic.of_offset(probe)).collect();
    }
}

fn checkpoint(data: &[u8]) {
    let Some((topics, opaque)) = checkpoint::decode(data) else { return };
    let again = topics
        .iter()
        .map(|topic| (topic.first_offset, topic.next_offset, topic.name.as_str(), topic.metadata.as_ref()));
    let mut again = encode_topics(again);
    again.extend_from_slice(opaque);
    assert!(again == data, "what was read is what is written");
}

/// A small log some of whose bytes were changed, file by file: where the first byte says so, the checksums are made to hold
/// again, as if a program with a mistake in it, or with malice, had written them.
fn directory(data: &[u8]) {
    let Some((how, edits)) = data.split_first() else { return };
    static SAMPLE: OnceLock<MemoryStorage> = OnceLock::new();
    let storage = SAMPLE.get_or_init(sample_log).copy();
    let files: Vec<_> = (1..=3).map(name_of).collect();
    for edit in edits.chunks_exact(5) {
        let name = &files[usize::from(edit[0]) % files.len()];
        let Some(mut bytes) = storage.contents(name) else { continue };
        let at = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % (bytes.len() + 1);
        match edit[4] % 4 {
            0 => bytes.truncate(at),
            1 => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = edit[3]),
            2 => bytes.insert(at, edit[3]),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= edit[3]),
        }
        if how % 2 == 1 {
            seal_again(&mut bytes);
        }
        storage.replace(name, bytes);
    }
    read_all(&storage, how % 2 == 1);
}

/// Three segments, a checkpoint, two topics, always the same but for the log's id.
fn sample_log() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let Some(log) = open(&storage) else { return storage };
    let (mut batch, topics) = (Batch::new(), ["orders", "audit"].map(|name| log.create_topic(name, b"", 1)));
    for number in 0..40_u8 {
        batch.clear();
        for topic in topics.iter().flatten() {
            batch.event(topic.0, 0, &[&[number; 90]]);
        }
        batch.state(crate::KIND_STATE, &[b"state"]);
        let _appended = log.append(&batch, 1);
        if number == 15 {
            let _restated = log.checkpoint(b"all of it", 1);
        }
    }
    storage.copy()
}

fn open(storage: &MemoryStorage) -> Option<Log> {
    let options = Options { segment_bytes: 4096, tail_bytes: 0, writer: Writer::Inline, ..Options::default() };
    Log::open(Box::new(storage.clone()), options, 1, &mut |_| Ok(())).ok().map(|opened| opened.log)
}

/// Gives every frame, one behind the other, the checksum that it should have.
fn seal_again(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES + 8 {
        return;
    }
    let start = seed(u64_at(bytes, HEADER_BYTES));
    let mut at = 0;
    while at + HEADER_BYTES <= bytes.len() {
        let end = at + HEADER_BYTES + u32_at(bytes, at + 12) as usize;
        let Some(frame) = bytes.get_mut(at..end) else { return };
        let checksum = add(start, &frame[4..]);
        put(frame, 0, &checksum.to_le_bytes());
        at = end;
    }
}

/// Whatever can be done with a log that opens. One that was forged may say anything of the order of its records.
fn read_all(storage: &MemoryStorage, forged: bool) {
    let Some(log) = open(storage) else { return };
    // Damage is told once for each place, so that this comes to an end.
    let (mut lsn, mut told) = (None, 0);
    for record in log.scan(0) {
        match record {
            Ok(record) => {
                assert!(forged || lsn < Some(record.lsn), "records come in order");
                lsn = Some(record.lsn);
            }
            Err(_) => told += 1,
        }
        assert!(told < 100, "the same damage again and again");
    }
    for topic in log.topics() {
        let mut cursor = log.cursor(topic.id, topic.first_offset);
        let mut out = Vec::new();
        while log.read(&mut cursor, 10, 1 << 20, &mut out).is_ok_and(|count| count > 0) {}
    }
    let _records: Vec<_> = (0..log.durable().min(200)).map(|lsn| log.record(lsn)).collect();
    if let Some(topic) = log.topics().first() {
        let mut batch = Batch::new();
        batch.event(topic.id, 0, &[&[1; 5000]]);
        let _appended = log.append(&batch, 1);
    }
    let _trimmed = log.trim(u64::MAX);
    assert_eq!(epoch_of(&name_of(1)), Some(1));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index as At;

    use super::*;

    #[test]
    fn what_decoders_are_made_for() {
        for (_, run, seeds) in TARGETS {
            seeds().iter().for_each(|seed| run(seed));
        }
    }

    #[test]
    fn what_was_found() {
        // An index that tells of topic 1,313,820,413: memory was taken for as many.
        directory(&[0x21, 0x00, 0xe3, 0x4f, 0x4e, 0x51]);
        // An event with the last offset that there is: none was left for the next.
        directory(&[0xff, 0xb5, 0x0c, 0x01, 0xff, 0xb5, 0x0c, 0x25, 0x73]);
        // A frame whose first record has the last lsn that there is.
        directory(&[127, 255, 255, 255, 255, 255, 255, 59, 7, 255, 93, 10]);
    }

    proptest! {
        #[test]
        fn any_bytes(target in any::<At>(), bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            target.get(TARGETS).1(&bytes);
        }

        #[test]
        fn some_bytes_changed(
            target in any::<At>(), seed in any::<At>(), edits in proptest::collection::vec((any::<At>(), any::<u8>()), 1..6),
        ) {
            let (_, run, seeds) = target.get(TARGETS);
            let seeds = seeds();
            let mut bytes = seed.get(&seeds).clone();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            run(&bytes);
        }

        #[test]
        fn any_changes_of_a_directory(how: bool, edits in proptest::collection::vec(any::<[u8; 5]>(), 0..5)) {
            directory(&[&[u8::from(how)], edits.concat().as_slice()].concat());
        }
    }
}
