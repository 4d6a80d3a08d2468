//! A test of its own process: it counts what is allocated, by Rust and, through the endpoint's counts, by the engine.
#![expect(unsafe_code, reason = "a test; an allocator that counts is unsafe by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

use dtls::{Client, ClientSettings, Counts, Endpoint, Event, Found, Keys, Settings};
use gateway::Now;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is System's; the count needs no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Nobody;

impl Keys for Nobody {
    fn key(&self, _: &[u8]) -> Found {
        Found::default()
    }
}

#[test]
fn a_hundred_thousand_hellos_without_a_cookie_allocate_nothing() {
    let now = Now::from_micros(1_000_000);
    let mut hello = vec![];
    Client::new(&ClientSettings::psk(b"dev", b"secret")).unwrap().timeout(now, &mut hello).unwrap();
    let mut endpoint = Endpoint::new(Settings::default(), Arc::new(Nobody), &[0; 32]).unwrap();
    let mut answers = 0;
    let before = ALLOCATIONS.get();
    for n in 0..100_000_u32 {
        let from = SocketAddr::from((n.to_be_bytes(), 5000));
        endpoint.receive(now, from, &hello[0], &mut |event| {
            answers += u32::from(matches!(event, Event::Send { .. }))
        });
    }
    assert_eq!(ALLOCATIONS.get(), before);
    assert_eq!(answers, 100_000);
    // The engine allocates for sessions only, and there is none.
    assert_eq!(endpoint.counts(), Counts::default());
}
