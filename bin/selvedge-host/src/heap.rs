//! How the C library keeps the daemon's memory. The only `unsafe` calls of the daemon are here.

/// All threads share one heap. By default the C library gives each its own, up to eight for every core; what one has
/// freed the others can't use, and the daemon stays twice as large as it need be. Call it before any thread starts.
pub(crate) fn share() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the C library has no other way to be told")]
    // SAFETY: it takes two numbers. Were it refused, nothing but memory would be lost.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory inside the heap back to the kernel; by itself the C library does so only at the heap's end.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the C library has no other way to be told")]
    // SAFETY: it takes a number, and touches only memory that nobody holds; it takes the heap's locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
