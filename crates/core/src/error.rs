//! An error and its causes as one line for logs.

use std::error::Error;

/// An error and what caused it, in one line. Some libraries repeat their cause at the end of their own message; it is not said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Step(&'static str, #[source] Option<Box<Step>>);

    #[test]
    fn each_cause_is_said_once() {
        let cause = Step("refused", Some(Box::new(Step("refused", Some(Box::new(Step("by the firewall", None)))))));
        assert_eq!(chain(&Step("cannot connect", Some(Box::new(cause)))), "cannot connect: refused: by the firewall");
    }
}
