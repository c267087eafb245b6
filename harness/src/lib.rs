//! Makes a lab, breaks it, runs a repair procedure, and judges the result.

pub mod cmd;
pub mod paths;
pub mod run;
pub mod scenario;
pub mod source;
