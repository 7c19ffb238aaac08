//! A client of the Open vSwitch database protocol (RFC 7047). No policy.
