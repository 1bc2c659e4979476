//! The system's randomness, made the same each time: this binary has its own `getrandom`, which libc's gives way to.
//!
//! Hash maps and tokio's scheduler draw from it (who waits at one channel is woken in a drawn order), and neither can be
//! seeded otherwise without another build of tokio. Seeds of tokio also count up over the life of a process, which is
//! why each run has a process of its own.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is drawn from.
static STATE: AtomicU64 = AtomicU64::new(0);

/// Begins anew from a seed.
pub fn seed(seed: u64) {
    STATE.store(seed, Ordering::Relaxed);
}

/// As in getrandom(2): fills the buffer, always whole.
///
/// # Safety
///
/// `length` bytes at `buffer` must be writable, as libc's callers see to.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    for index in 0..length {
        // SplitMix64, a byte of each number.
        let mut number = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // SAFETY: the caller has given `length` bytes.
        unsafe { buffer.add(index).write((number ^ (number >> 31)) as u8) };
    }
    length as isize
}
