//! Words that some code must not contain. Comments and literals are not looked at.

use super::{Breach, Repository, repository::File, source};

/// Words, where they are forbidden, and what to write instead.
struct Forbidden {
    words: &'static [&'static str],
    /// Folders that the rule is for; empty = everywhere.
    inside: &'static [&'static str],
    /// Files and folders that the rule is not for.
    except: &'static [&'static str],
    mend: &'static str,
}

const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        words: &[
            "SystemTime::now",
            "Instant::now",
            "Timestamp::now",
            "Zoned::now",
            "UNIX_EPOCH.elapsed",
            "thread::sleep",
        ],
        inside: &[],
        // The clock itself; benchmarks, which measure the machine; the time that a step of `cargo xtask` takes.
        except: &["crates/oncue/src/clock.rs", "crates/oncue/src/clock/", "benches/", "xtask/src/step.rs"],
        mend: "the clock is an argument: take an `oncue::clock::Clock`; in a test, a `ManualClock`, and wait for what is \
               to happen",
    },
    Forbidden {
        words: &["unbounded", "unbounded_channel", "UnboundedSender", "UnboundedReceiver", "SegQueue"],
        inside: &[],
        except: &[],
        mend: "every queue has a bound, so that who is too fast waits: use a bounded channel",
    },
    Forbidden {
        words: &["async", "await", "tokio", "futures", "serde"],
        inside: &["crates/oncue-log/"],
        except: &[],
        mend: "oncue-log is bytes in and bytes out, on threads: async and serialisation belong into oncue",
    },
    Forbidden {
        words: &["TcpListener", "TcpStream", "UdpSocket", "UnixListener", "UnixStream"],
        inside: &["crates/oncue-log/", "crates/oncue/src/", "crates/oncue-macros/"],
        except: &[],
        mend: "the library opens no socket: transports and the server do",
    },
    Forbidden {
        words: &["#[ignore"],
        inside: &[],
        except: &[],
        mend: "a test that is skipped tests nothing: mend it or remove it",
    },
];

/// Forbidden words in code.
pub(super) fn forbidden(repository: &Repository) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for file in repository.rust() {
        for rule in FORBIDDEN.iter().filter(|rule| rule.is_for(file)) {
            for (line, code) in file.code_lines() {
                let words = rule.words.iter().filter(|word| source::has_word(code, word));
                breaches.extend(words.map(|word| Breach::new(&file.path, line, format!("`{word}`"), rule.mend)));
            }
        }
        let channels = file.code_lines().filter(|(_, code)| has_channel_without_bound(code));
        let mend = "a channel without a number is unbounded: use `sync_channel(bound)`";
        breaches.extend(channels.map(|(line, _)| Breach::new(&file.path, line, "`mpsc::channel()`", mend)));
    }
    breaches
}

impl Forbidden {
    fn is_for(&self, file: &File) -> bool {
        let under = |folders: &[&str]| folders.iter().any(|folder| file.path.starts_with(folder));
        (self.inside.is_empty() || under(self.inside)) && !under(self.except)
    }
}

/// `channel()` or `channel::<T>()`: all but the one-shot kind, which holds one value.
fn has_channel_without_bound(code: &str) -> bool {
    code.match_indices("channel").any(|(at, word)| {
        let before = &code[..at];
        let own_word = !before.ends_with(|char: char| char.is_alphanumeric() || char == '_');
        let rest = &code[at + word.len()..];
        let rest = match rest.strip_prefix("::<") {
            Some(generic) => generic.find(">()").map_or("", |end| &generic[end + 1..]),
            None => rest,
        };
        own_word && rest.starts_with("()") && !before.ends_with("oneshot::") && !before.ends_with("fn ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        forbidden(&Repository::of(&[(path, text)])).into_iter().map(|breach| breach.line).collect()
    }

    #[test]
    fn clocks_are_read_by_the_clock_alone() {
        let text =
            "let a = std::time::Instant::now();\n// Instant::now\nlet b = \"SystemTime::now\";\nthread::sleep(c);";
        assert_eq!(found("crates/oncue/src/bus.rs", text), [1, 4]);
        assert_eq!(found("crates/oncue/src/clock.rs", text), [0; 0]);
        assert_eq!(found("benches/src/main.rs", text), [0; 0]);
    }

    #[test]
    fn queues_have_a_bound() {
        let text = "mpsc::unbounded_channel();\nmpsc::channel();\nmpsc::channel::<Vec<u8>>();\nchannel(8);\noneshot::channel();\n\
                    oneshot::channel::<()>();\nlet channel = 1;";
        assert_eq!(found("a.rs", text), [1, 2, 3]);
    }

    #[test]
    fn the_log_knows_no_async() {
        let text = "async fn a() { b().await }\nfn asynchronous() {}";
        assert_eq!(found("crates/oncue-log/src/a.rs", text), [1, 1]);
        assert_eq!(found("crates/oncue/src/a.rs", text), [0; 0]);
    }

    #[test]
    fn no_test_is_skipped() {
        assert_eq!(
            found("crates/oncue/tests/it/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn a() {}\nfn ignore() {}"),
            [2]
        );
    }

    #[test]
    fn the_library_opens_no_socket() {
        assert_eq!(found("crates/oncue/src/a.rs", "use tokio::net::TcpListener;"), [1]);
        assert_eq!(found("crates/oncue-server/src/a.rs", "use tokio::net::TcpListener;"), [0; 0]);
    }
}
