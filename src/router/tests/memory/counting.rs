//! The system's allocator with a count of the bytes that are out, rounded up as it hands them out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static OUT: AtomicUsize = AtomicUsize::new(0);

/// See the module.
pub(crate) struct Counting;

/// Bytes that are out now.
pub(crate) fn out() -> usize {
    OUT.load(Ordering::Relaxed)
}

/// What the C library takes for a request: eight bytes more, in steps of 16, at least 32.
fn cost(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call is the system allocator's; only a count is kept beside it.
#[expect(unsafe_code, reason = "an allocator cannot be written without; nothing of it is in the product")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        OUT.fetch_add(cost(layout), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        OUT.fetch_sub(cost(layout), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}
