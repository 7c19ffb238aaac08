//! Git source, build, apply, prune, health.
