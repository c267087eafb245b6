//! Looking at the lab: probes, and the pure judgement of what they saw.

pub mod pods;
pub mod pull;
pub mod symptom;
pub mod watch;
