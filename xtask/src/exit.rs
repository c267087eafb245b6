//! Exit codes, and the errors that choose them.

/// Every cell was as expected.
pub const AS_EXPECTED: u8 = 0;
/// Some cell was not.
pub const NOT_AS_EXPECTED: u8 = 1;
/// A flag, a file or a name is wrong, or this machine cannot run a lab. Nothing was created.
pub const BAD_INPUT: u8 = 2;
/// The lab failed; nothing is said of a procedure.
pub const LAB_BROKEN: u8 = 3;
/// A signal ended the run; it was cleaned up.
pub const INTERRUPTED: u8 = 130;

/// Why a command ends without its work done.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    /// What the user gave cannot be used.
    pub fn input(error: impl Into<anyhow::Error>) -> Self {
        Self { code: BAD_INPUT, error: error.into() }
    }

    /// The lab failed.
    pub fn lab(error: impl Into<anyhow::Error>) -> Self {
        Self { code: LAB_BROKEN, error: error.into() }
    }

    /// Some test failed.
    pub fn tests(error: impl Into<anyhow::Error>) -> Self {
        Self { code: NOT_AS_EXPECTED, error: error.into() }
    }

    /// Something tried to leave the machine in a run that was to be offline.
    pub fn left(attempts: &[String]) -> Self {
        let error = anyhow::anyhow!("the run was to be offline, and was not: {}", attempts.join("; "));
        Self { code: NOT_AS_EXPECTED, error }
    }

    /// A signal ended the work.
    pub fn interrupted(signal: &str) -> Self {
        Self { code: INTERRUPTED, error: anyhow::anyhow!("interrupted by {signal}") }
    }

    /// This failure, and that another came of cleaning up after it.
    pub fn and(self, cleaning: &Failure) -> Self {
        let error = anyhow::anyhow!("{self}; and then {cleaning}");
        Self { code: self.code, error }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Tells the user, and returns the exit code.
    pub fn report(self) -> u8 {
        eprintln!("error: {self}");
        self.code
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.error)
    }
}
