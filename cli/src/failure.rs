//! Why a command did not run to its end, in words that say what to do.

use std::error::Error;
use std::fmt;

use tsujiban_core::error::chain;
use tsujiban_core::escape::escape_line;

use crate::exit::{ExitCode, Verdict};

/// The error that a command ended with, and its exit code. This type depends on no command and no service.
#[derive(Debug)]
pub struct Failure {
    pub verdict: Verdict,
    cause: Box<dyn Error + Send + Sync>,
}

impl<E: ExitCode> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { verdict: error.verdict(), cause: Box::new(error) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

#[cfg(test)]
impl Failure {
    /// The error itself, when it is of this type.
    pub fn downcast_ref<E: ExitCode>(&self) -> Option<&E> {
        self.cause.downcast_ref()
    }
}

/// The failure with its causes, in one line that cannot drive a terminal.
pub fn explain(failure: &dyn Error) -> String {
    escape_line(&chain(failure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Step(&'static str, #[source] Option<Box<Step>>);

    impl ExitCode for Step {}

    #[derive(Debug, thiserror::Error)]
    #[error("a leaf was changed")]
    struct Changed(#[source] Step);

    impl ExitCode for Changed {
        fn verdict(&self) -> Verdict {
            Verdict::Tampered
        }
    }

    #[test]
    fn causes_follow_once_and_harmless() {
        let cause = Step("refused", Some(Box::new(Step("refused", Some(Box::new(Step("by \x1b[2J", None)))))));
        assert_eq!(explain(&Step("cannot connect", Some(Box::new(cause)))), "cannot connect: refused: by \\u{1b}[2J");
    }

    #[test]
    fn a_failure_has_the_exit_code_and_the_words_of_its_error() {
        assert_eq!(Failure::from(Step("refused", None)).verdict.exit_code(), 1);
        let failure = Failure::from(Changed(Step("entry 7", None)));
        assert_eq!((failure.verdict.exit_code(), explain(&failure).as_str()), (5, "a leaf was changed: entry 7"));
    }
}
