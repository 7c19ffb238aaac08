//! A client of the QEMU machine protocol. No policy.
