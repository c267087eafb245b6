//! Drydock command line.
fn main() {}
