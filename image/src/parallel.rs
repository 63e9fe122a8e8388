//! Several layers at once.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use kelson::error::{Error, Result};

/// One failed: the others need not go on. Once set it stays: the program ends with the failure.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// How many layers are unpacked at once: as many as there are processors, and few, as each takes memory.
pub fn workers() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).clamp(1, 4)
}

/// What `act` makes of each of `items`, in their order, `workers` of them at once.
///
/// # Errors
/// The first that happened; the others are stopped.
pub fn map<T: Send, R: Send>(items: Vec<T>, workers: usize, act: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let count = items.len();
    let queue: Mutex<VecDeque<(usize, T)>> = Mutex::new(items.into_iter().enumerate().collect());
    let done = Mutex::new(((0..count).map(|_| None).collect::<Vec<Option<R>>>(), None::<Error>));
    let work = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((place, item)) = next else { return };
            let result = act(item);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(result) => done.0[place] = Some(result),
                Err(error) => {
                    STOPPED.store(true, Ordering::Relaxed);
                    queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    done.1.get_or_insert(error);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..workers.min(count) {
            scope.spawn(work);
        }
        work();
    });
    match done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        (_, Some(error)) => Err(error),
        // Without an error each has its place.
        (results, None) => Ok(results.into_iter().flatten().collect()),
    }
}

/// A stream that ends with an error when another layer failed.
pub struct Stoppable<R>(pub R);

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match STOPPED.load(Ordering::Relaxed) {
            true => Err(io::Error::other("another layer failed")),
            false => self.0.read(buffer),
        }
    }
}
