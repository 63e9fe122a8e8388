//! Memory that all layers which are unpacked at once share.

use std::sync::{Condvar, Mutex, PoisonError};

/// What is kept of zstd streams to refer back to: room for the largest window that is taken unasked (32 MiB) and a small one, or for
/// four of 8 MiB, which Go's encoder uses by default. With the rest that unpacking takes it stays below 64 MB.
pub(super) static WINDOWS: Budget = Budget::new(40 << 20);

/// Bytes that are shared.
pub(super) struct Budget {
    all: u64,
    taken: Mutex<u64>,
    given_back: Condvar,
}

/// What one has of it, until it is dropped.
pub(super) struct Share<'b> {
    budget: &'b Budget,
    bytes: u64,
}

impl Budget {
    pub const fn new(all: u64) -> Self {
        Self { all, taken: Mutex::new(0), given_back: Condvar::new() }
    }

    /// So many bytes, as soon as others have left them. Who asks for more than all gets it when nobody else has any.
    ///
    /// Who asks must have nothing of the budget: two that have a part could wait for each other.
    pub fn take(&self, bytes: u64) -> Share<'_> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.given_back.wait_while(taken, |taken| !self.fits(bytes, *taken));
        *taken.unwrap_or_else(PoisonError::into_inner) += bytes;
        Share { budget: self, bytes }
    }

    /// Whether they are to be had where so many are `taken`.
    fn fits(&self, bytes: u64, taken: u64) -> bool {
        taken == 0 || bytes <= self.all.saturating_sub(taken)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;

    #[test]
    fn one_alone_always_goes_on() {
        let budget = Budget::new(10);
        for (bytes, taken, fits) in [
            (10, 0, true),
            (11, 0, true),
            (u64::MAX, 0, true),
            (4, 6, true),
            (5, 6, false),
            (0, 10, true),
            (1, 10, false),
            (1, u64::MAX, false),
            (u64::MAX, 1, false),
        ] {
            assert_eq!(budget.fits(bytes, taken), fits, "{bytes} beside {taken}");
        }
    }

    #[test]
    fn a_share_is_given_back() {
        let budget = Budget::new(10);
        for bytes in [10, 11, u64::MAX, 1] {
            let share = budget.take(bytes);
            assert_eq!(*budget.taken.lock().unwrap(), bytes);
            drop(share);
            assert_eq!(*budget.taken.lock().unwrap(), 0);
        }
    }

    #[test]
    fn all_together_have_no_more_than_there_is() {
        let (budget, together) = (Budget::new(10), AtomicU64::new(0));
        let work = |bytes: u64| {
            for _ in 0..500 {
                let share = budget.take(bytes);
                let now = together.fetch_add(bytes, SeqCst) + bytes;
                assert!(now <= 10 || now == bytes, "{now} with {bytes}");
                std::thread::yield_now();
                together.fetch_sub(bytes, SeqCst);
                drop(share);
            }
        };
        std::thread::scope(|scope| {
            for bytes in [1, 3, 6, 7, 10, 25] {
                scope.spawn(move || work(bytes));
            }
        });
        assert_eq!(*budget.taken.lock().unwrap(), 0);
    }
}
