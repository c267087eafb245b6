//! Makes a lab, breaks it, runs a repair procedure, and judges the result.

pub mod cmd;
pub mod harbor;
mod hash;
pub mod lab;
pub mod nearest;
pub mod observe;
pub mod paths;
pub mod report;
pub mod run;
pub mod runbook;
pub mod scenario;
pub mod selection;
pub mod source;
mod strict;
