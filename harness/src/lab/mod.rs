//! The lab: Docker engine, cluster, storage, and the ledger of what was created.

pub mod engine;
