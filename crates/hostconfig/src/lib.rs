//! HostConfiguration: layers, merge, compliance; hands each domain its part.
