//! The list of what a backup holds: text, one line per file, with a checksum of each and of itself.

use std::fmt::Write as _;

use crc32c::crc32c;

use crate::record::Lsn;
use crate::segment::epoch_of;

/// The file that a backup is complete with.
pub const MANIFEST_FILE: &str = "MANIFEST";

const FIRST_LINE: &str = "oncue-backup 1";
const FAMILY: &str = "oncue-backup ";

/// What a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The log's id.
    pub log_id: u64,
    /// Every record below is in it.
    pub next_lsn: Lsn,
    /// When it was made, in microseconds since 1970.
    pub time: i64,
    /// Its segments, oldest first.
    pub files: Vec<BackupFile>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFile {
    /// Its name, as in the log.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// CRC32C of its bytes.
    pub checksum: u32,
}

impl Manifest {
    /// How many bytes all files have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub(super) fn encode(&self) -> String {
        let Self { log_id, next_lsn, time, files } = self;
        let mut text = format!("{FIRST_LINE}\nlog {log_id:016x}\nlsn {next_lsn}\ntime {time}\n");
        for BackupFile { name, bytes, checksum } in files {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "file {name} {bytes} {checksum:08x}");
        }
        let checksum = crc32c(text.as_bytes());
        let _ = writeln!(text, "checksum {checksum:08x}");
        text
    }

    /// Reads it back; an error says what is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(bytes).map_err(|_| "it is no text")?;
        let first = text.lines().next().unwrap_or_default();
        if first != FIRST_LINE {
            return Err(match first.strip_prefix(FAMILY) {
                Some(version) => {
                    format!("it is of version {version:?}, which this version cannot read: use the one that made it")
                }
                None => "it does not begin as a manifest".to_owned(),
            });
        }
        let body = text.rfind("checksum ").map(|at| text.split_at(at));
        let (body, last) = body.ok_or("its last line, the checksum, is missing")?;
        if last != format!("checksum {:08x}\n", crc32c(body.as_bytes())) {
            return Err("its checksum does not match".to_owned());
        }
        let mut manifest = Self::default();
        for line in body.lines().skip(1) {
            manifest.take(line).ok_or_else(|| format!("the line {line:?} cannot be read"))?;
        }
        Ok(manifest)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["log", id] => self.log_id = u64::from_str_radix(id, 16).ok()?,
            ["lsn", lsn] => self.next_lsn = lsn.parse().ok()?,
            ["time", time] => self.time = time.parse().ok()?,
            // No name may lead out of the directory.
            ["file", name, bytes, checksum] if epoch_of(name).is_some() => self.files.push(BackupFile {
                name: name.to_owned(),
                bytes: bytes.parse().ok()?,
                checksum: u32::from_str_radix(checksum, 16).ok()?,
            }),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let file = |epoch: u64| BackupFile { name: crate::segment::name_of(epoch), bytes: epoch * 100, checksum: 7 };
        Manifest { log_id: 0xAB, next_lsn: 12, time: -5, files: vec![file(1), file(2)] }
    }

    #[test]
    fn round_trips() {
        let text = sample().encode();
        assert_eq!(Manifest::decode(text.as_bytes()), Ok(sample()));
        assert_eq!(sample().bytes(), 300);
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let text = sample().encode().into_bytes();
        for at in 0..text.len() {
            let mut broken = text.clone();
            broken[at] ^= 1;
            assert!(Manifest::decode(&broken).is_err(), "byte {at}");
            assert!(Manifest::decode(&text[..at]).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn a_newer_version_and_a_foreign_name_are_told_as_such() {
        let newer = Manifest::decode(b"oncue-backup 2\nanything\n").unwrap_err();
        assert!(newer.contains("version \"2\""), "{newer}");
        let mut evil = sample();
        evil.files[0].name = "../../etc/passwd".to_owned();
        assert!(Manifest::decode(evil.encode().as_bytes()).unwrap_err().contains("passwd"));
    }
}
