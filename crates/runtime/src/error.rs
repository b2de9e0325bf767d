//! How an error is shown.

use std::error::Error;

/// An error and what caused it, after colons. A cause that the text has already is not said again.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.map(ToString::to_string).fold(
        error.to_string(),
        |text, cause| {
            if text.contains(&cause) { text } else { format!("{text}: {cause}") }
        },
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot serve")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("the port is taken: {0}")]
    struct Middle(#[source] io::Error);

    #[test]
    fn every_cause_is_said_once() {
        let error = Outer(Middle(io::Error::other("address in use")));
        assert_eq!(with_causes(&error), "cannot serve: the port is taken: address in use");
    }
}
