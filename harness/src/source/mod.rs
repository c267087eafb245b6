//! Where images and tools come from.

pub mod versions;
