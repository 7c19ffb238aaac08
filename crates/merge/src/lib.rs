//! JSON, merge and strategic patches, and server-side apply with managedFields. Pure.
