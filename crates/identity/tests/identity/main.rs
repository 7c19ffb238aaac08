//! Identities, with OpenSSL as the other opinion.

mod certificates;
mod enrolment;
mod secrets;
mod server;
