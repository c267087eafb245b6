//! The lab: Docker engine, cluster, storage, and the ledger of what was created.

pub mod engine;
pub mod gc;
pub mod ledger;
pub mod preflight;
