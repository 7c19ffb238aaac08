//! Guest bootstrap media: cloud-init NoCloud. Pure, bytes out.
