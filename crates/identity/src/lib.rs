//! Certificates of hosts: authorities, requests, enrolment, renewal, keys.
//!
//! A host makes its key itself and never shows it. It sends a certificate signing request; the orchestrator, once it
//! knows whose host this is, signs a certificate of 30 days whose one name is the host's:
//! `spiffe://selvedge/TENANT_ID/host/HOST_ID`. Every tenant has its own CA: a certificate counts only for the tenant
//! that it names, and only if that tenant's CA signed it.
//!
//! ```text
//!      host                                        orchestrator
//!   HostKey ──csr::make──▶ enrol::Request ──HTTPS──▶ csr::Csr::parse
//!                                                      │ known serial/UUID/MAC, activation key, or a person's yes
//!   Credentials ◀──────── enrol::Granted ◀────────── ca::Authority::issue
//!       │
//!       └── client certificate ──TLS──▶ verify::ClientVerifier ──▶ verify::Peer {tenant, host, serial}
//! ```
//!
//! States of a host's identity:
//!
//! ```text
//!   no key ──make──▶ key ──request──▶ waiting ──granted──▶ valid ──2/3 of life──▶ renewing ──▶ valid
//!                     │└──────granted at once────────────────┘└──expired──▶ proof of the old key ──▶ valid
//!                     │                                      └──revoked──▶ refused, for good
//!                     └◀──────────not known there any more───┘
//! ```
//!
//! | item | what it is | used by |
//! |---|---|---|
//! | [`ca`] | a tenant's CA; also the orchestrator's own for its serving certificate | orchestrator |
//! | [`csr`] | requests: made, checked | both |
//! | [`key`] | [`key::HostKey`]: [`key::TpmKey`] in a TPM 2.0, [`key::FileKey`] in a file; [`key::KeyStore`] knows which | host |
//! | [`credentials`] | key with certificate, on disk and for TLS | host |
//! | [`verify`] | client certificates of many CAs, swapped at run time, revocation | orchestrator |
//! | [`trust`] | which server certificates a host believes | host |
//! | [`enrol`] | what goes over `/enroll/v1`; the host's client of it, and [`enrol::Keeper`], its one task | both |
//! | [`activation`] | one-time keys and their hashes | both |
//! | [`proof`] | nonces and signatures for renewal | both |
//! | [`seal`] | secrets at rest | orchestrator |
//! | [`backoff`] | pauses with full jitter | both |
//!
//! # Clocks
//!
//! A host's certificate is valid from one hour before it is issued, so that processes whose clocks differ by less agree.
//! An expired one is let in for another five minutes. A host whose clock is not set (no battery) checks the
//! orchestrator's certificate at the start of its own, or on 1 January 2026 while it has none; the certificates that an
//! orchestrator makes for itself are valid since that day.

pub mod activation;
pub mod backoff;
pub mod ca;
pub mod credentials;
pub mod csr;
pub mod enrol;
pub mod key;
pub mod proof;
pub mod seal;
pub mod trust;
pub mod verify;

mod files;
mod x509;
