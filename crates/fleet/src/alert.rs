//! What a person should know: conditions become alerts, alerts become messages.
//!
//! ```text
//!   tables ─ rules ─► findings ─ fold (pure) ─► raise · again · quiet · resolve ─► alert rows, change log
//!                                   ▲                          │
//!                             open alerts                      └─► delivery rows ─► Courier ─► webhook, e-mail
//! ```
//!
//! * A finding has a key; while it lasts there is one open alert of that key. Only opening, worsening and resolving is
//!   told to channels.
//! * What comes and goes is damped: an alert is resolved only when its reason has been gone for two minutes, for twice as
//!   long each time that it came back meanwhile, up to half an hour.
//! * When a rule finds more than [`MOST_OF_A_RULE`] things at once in a tenant, they are one alert: nobody reads ten
//!   thousand messages that say that the line is down.
//! * Messages wait in the database: one process after another sends them, each is tried for a day with growing pauses,
//!   and a channel has at most [`MOST_WAITING`] of them; the oldest go first.
//!
//! A webhook is a POST of JSON with `X-Selvedge-Signature: t=SECONDS,v1=HEX`: the HMAC-SHA256, with the channel's
//! secret, of `SECONDS.BODY`. A receiver should refuse old times, so that nobody can send a message again.

mod book;
mod courier;
mod deliver;
mod room;
mod rules;
mod watch;

pub use book::{Finding, Known, Move, fold};
pub use courier::Courier;
pub use deliver::{DeliverError, Smtp, SmtpTls, signature};
pub use room::{Alerts, Channels};
pub use rules::{MOST_OF_A_RULE, Thresholds};
pub use watch::{MOST_WAITING, Watch};
