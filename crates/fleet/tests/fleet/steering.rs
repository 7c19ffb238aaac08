//! Rollouts, plans, alerts and search.

mod alerts;
mod plans;
mod rollouts;
mod search;
mod world;
