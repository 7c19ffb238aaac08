//! How a commit reaches the sites that follow a policy: in waves, through gates, at the sites' own hours.
//!
//! ```text
//!   Rules (policy) ─┐
//!   View (fleet)  ──┼─► step ─► Pin a site · Open a wave · Batch · Succeed · Fail · Enter a phase ─► driver
//!   Now ────────────┘                                                                              (transaction)
//!
//!   pending ─► running ⇄ awaitingApproval ─► succeeded ──────────────┐ late sites still get their turn
//!      │          │  ▲                          │  ▲                 │
//!      │          ▼  │ resume                   ▼  │ resume          ▼
//!      └──────► halted ─────────────────────► reverting ─► reverted     any of them ─► superseded
//!
//!   a site:  waiting ─► told ─► succeeded          waiting, told: pending while it can't be reached
//!                        │ ▲        │
//!                        ▼ │        ▼              reverting ─► reverted
//!                       failed ◄────┘               unchanged: the commit is the same there; no turn
//! ```
//!
//! # What holds
//!
//! * A commit concerns the sites whose objects it changes. The others are held at it at once, without a turn: their
//!   hosts apply what they have already. Where that can't be told a site counts as concerned.
//! * A site is told only when it can be reached, its wave is open and its maintenance window too, and when nobody
//!   else is in flight: batches follow each other. A batch has at most as many sites as the wave allows.
//! * A site that can't be reached for a while (`gate.awayAfter`; a restart takes less) leaves the count: it holds
//!   up neither its batch nor its wave. Back again it waits for its turn like everybody else: in its wave's place,
//!   through the same gates, and alone if nobody of its wave has come through.
//! * More failures than the budget, or one host that has refused the commit for good (quarantine), and nobody more
//!   is told.
//! * Gates are counted by [`Now::steady`], which only goes on while somebody watches. A clock that jumps moves
//!   maintenance windows and nothing else.
//! * What a site was told stays its pin whatever happens to the orchestrator: a host without it goes on with the
//!   last commit it was told.
//!
//! | room | |
//! |---|---|
//! | [`policy`] | what people write: [`Rules`] |
//! | [`window`] | maintenance windows, daylight saving time included |
//! | [`machine`], `observe`, `advance` | the pure state machine |
//! | [`lineage`] | a newer commit while an older one is on its way; late sites |
//! | `concerned` | which sites a commit changes |
//! | `store`, `turns` | rollouts in the database; one turn: read, think, write |
//! | [`Driver`] | the task that gives turns |
//! | [`Policies`], [`Rollouts`] | what the API asks |

mod advance;
mod concerned;
mod driver;
pub mod lineage;
pub mod machine;
mod observe;
pub mod policy;
mod room;
mod store;
mod turns;
pub mod window;

pub use driver::Driver;
pub use lineage::{Lineage, Steps};
pub use machine::{Action, Command, Health, Now, Phase, Refused, Rollout, Site, SiteView, Step, Turn, View};
pub use policy::{Amount, Gate, Rules, Span, Wave};
pub use room::{Policies, Rollouts};
pub use store::Line;
pub(crate) use turns::short;
pub use window::{Opening, Window};

#[cfg(test)]
mod tests;
