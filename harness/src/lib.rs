//! Makes a lab, breaks it, runs a repair procedure, and judges the result.

pub mod cmd;
pub mod nearest;
pub mod paths;
pub mod report;
pub mod run;
pub mod scenario;
pub mod selection;
pub mod source;
pub mod strict;
