//! Drydock command line.

use std::process::ExitCode;

use harness::lab::engine::oci_runtime;

fn main() -> ExitCode {
    // A private engine on a restricted machine calls this program as its container runtime.
    if oci_runtime::is_called() {
        return oci_runtime::main();
    }
    ExitCode::SUCCESS
}
