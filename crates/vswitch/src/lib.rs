//! Switches, port groups, uplink teaming, security, link discovery.
