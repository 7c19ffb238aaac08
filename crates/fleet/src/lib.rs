//! The orchestrator's domain: tenants, sites, hosts, repositories, rollouts, status, and its database.
