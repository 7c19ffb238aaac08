//! How the C library keeps a daemon's memory. The only `unsafe` calls of the daemons are here.
//!
//! ```text
//! main ─ arenas(n), before any thread starts        now and then ─ trim()
//! ```
//!
//! By default the C library gives each thread a heap of its own, up to eight for every core; what one has freed the
//! others can't use. And it gives memory back to the kernel only from a heap's end. A daemon that lives for months
//! among bursts of work then stays twice as large as it need be.

/// All threads share so many heaps. Call it before any thread starts.
pub fn arenas(count: u8) {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the C library has no other way to be told")]
    // SAFETY: it takes two numbers. Were it refused, nothing but memory would be lost.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, i32::from(count));
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}

/// Gives free memory inside the heaps back to the kernel. Takes milliseconds for each hundred megabytes, in which others
/// wait for memory.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the C library has no other way to be told")]
    // SAFETY: it takes a number, and touches only memory that nobody holds; it takes the heap's locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
