//! What a person sees while it runs, on stderr: a bar on a terminal, else a line every few seconds.

use std::{
    cell::Cell,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use oncue::Bus;

use crate::number::grouped;

use super::batch::Malformed;

/// How often the bar moves.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(3);
/// Malformed lines that are told one by one.
const MALFORMED_SHOWN: u64 = 20;
/// Most characters of a reason.
const REASON_CHARS: usize = 200;

/// Tells how far a run is. Everything it writes may fail: there may be nobody to read it.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    line: Cell<u64>,
    bytes: Cell<u64>,
    has_read_all: Cell<bool>,
    malformed: Cell<u64>,
}

impl Progress {
    /// `size` is that of the whole input, `bytes` of it are read.
    pub(super) fn new(size: Option<u64>, bytes: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = size.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let template = match size {
                Some(_) => "{bar:30} {percent:>3}%  {msg}  {elapsed}",
                None => "{spinner} {msg}  {elapsed}",
            };
            bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            bar,
            line: Cell::new(0),
            bytes: Cell::new(bytes),
            has_read_all: Cell::new(false),
            malformed: Cell::new(0),
        }
    }

    /// Says something that stays.
    pub(super) fn say(&self, text: &str) {
        let say = || writeln!(io::stderr(), "{text}").ok();
        self.bar.as_ref().map_or_else(say, |bar| bar.suspend(say));
    }

    /// Input was read and published up to here.
    pub(super) fn published(&self, line: u64, bytes: u64) {
        self.line.set(line);
        self.bytes.set(bytes);
    }

    /// The input is at its end.
    pub(super) fn read_all(&self) {
        self.has_read_all.set(true);
    }

    /// Tells of malformed lines: the first few each, the others as a number, by [`finish`](Self::finish).
    pub(super) fn malformed(&self, lines: &[Malformed]) {
        for malformed in lines {
            self.malformed.set(self.malformed.get() + 1);
            match self.malformed.get() {
                ..=MALFORMED_SHOWN => self.say(&malformed.to_string()),
                number if number == MALFORMED_SHOWN + 1 => {
                    self.say("more malformed lines: from here on they are counted only");
                }
                _ => {}
            }
        }
    }

    /// Shows how far `bus` is, again and again.
    pub(super) async fn watch(&self, bus: &Bus) {
        loop {
            bus.clock().sleep(if self.bar.is_some() { BAR_EVERY } else { LINE_EVERY }).await;
            let behind: u64 = bus.inspect().subscriptions().iter().map(|known| known.lag).sum();
            let line = grouped(self.line.get());
            let text = match self.has_read_all.get() {
                false => format!("line {line} is read, {} deliveries to go", grouped(behind)),
                true => format!("all {line} lines are read, {} deliveries to go", grouped(behind)),
            };
            match &self.bar {
                Some(bar) => {
                    bar.set_position(self.bytes.get());
                    bar.set_message(text);
                    bar.tick();
                }
                None => self.say(&text),
            }
        }
    }

    /// The run is over.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some(untold @ 1..) = self.malformed.get().checked_sub(MALFORMED_SHOWN) {
            self.say(&format!("and {} more malformed lines", grouped(untold)));
        }
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A reason may quote the line, which may hold anything.
        let reason = self.reason.chars().map(|c| if c.is_control() { '·' } else { c });
        write!(f, "line {}: {}", self.line, reason.take(REASON_CHARS).collect::<String>())
    }
}
