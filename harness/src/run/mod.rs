//! Running scenarios: the event stream, waiting, interruption.

pub mod cancel;
pub mod chapter;
pub mod events;
pub mod judge;
pub mod poll;
pub mod practice;
pub mod runner;
