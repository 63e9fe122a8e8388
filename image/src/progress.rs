//! How far downloads are, on a terminal.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressBarIter, ProgressDrawTarget, ProgressStyle};

use crate::manifest::Descriptor;

/// How often a terminal is drawn to, per second.
const RATE: u8 = 10;

/// Bars, one a layer.
pub struct Progress(Option<MultiProgress>);

/// One of them.
pub struct Bar(ProgressBar);

impl Progress {
    /// Shown where standard error is a terminal and `quiet` does not forbid it.
    pub fn new(quiet: bool) -> Self {
        let is_shown = !quiet && std::io::stderr().is_terminal();
        Self(is_shown.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(RATE))))
    }

    /// A bar for a layer that may have to be fetched: it is drawn when the first byte has come.
    pub fn layer(&self, descriptor: &Descriptor) -> Bar {
        let Some(bars) = &self.0 else { return Bar(ProgressBar::hidden()) };
        let bar = bars.add(ProgressBar::new(descriptor.size));
        let style = "{prefix} {wide_bar} {bytes:>10} of {total_bytes:>10} {binary_bytes_per_sec:>12} {eta:>4}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_prefix(descriptor.digest.hex()[..12].to_owned());
        Bar(bar)
    }
}

impl Bar {
    /// `stream`, whose bytes the bar counts.
    pub fn reads<R: Read>(&self, stream: R) -> ProgressBarIter<R> {
        self.0.enable_steady_tick(Duration::from_millis(1000 / u64::from(RATE)));
        self.0.wrap_read(stream)
    }

    /// The layer is there.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
