//! How far something is that takes a while: shown only to somebody who looks.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressStyle};
use oncue::transport::maintenance::Progress;

/// From so many bytes on it takes long enough.
const MANY_BYTES: u64 = 64 << 20;

/// A bar on stderr, if that is a terminal and there is much to do.
#[derive(Default)]
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    pub(super) fn show(&mut self, progress: Progress) {
        if self.0.is_none() && progress.of >= MANY_BYTES && io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:30} {percent:>3}%  {bytes} of {total_bytes}  {elapsed}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            self.0 = Some(ProgressBar::new(progress.of).with_style(style));
        }
        if let Some(bar) = &self.0 {
            bar.set_length(progress.of);
            bar.set_position(progress.bytes);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
