//! A folder tree in, objects out. Pure.
