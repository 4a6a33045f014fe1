//! Workflow commands: GitHub shows them beside the policy's lines.

use super::{Verdict, plain};
use crate::gate::verdict::{Answer, Level};
use std::fmt::Write as _;

/// At most ten errors and ten warnings of a step are shown.
const MOST: usize = 10;

/// One line for each finding that does not pass.
pub fn annotations(verdict: &Verdict) -> String {
    let mut out = String::new();
    let (mut errors, mut warnings) = (0, 0);
    for f in verdict.findings.iter().filter(|f| f.verdict != Answer::Pass && !f.is_waived()) {
        let is_error = f.level == Level::Error;
        let count = if is_error { &mut errors } else { &mut warnings };
        *count += 1;
        if *count <= MOST {
            let command = if is_error { "error" } else { "warning" };
            let (file, title) = (property(&verdict.policy), property(&format!("{} {}", f.rule, f.check)));
            let _ =
                writeln!(out, "::{command} file={file},line={},title={title}::{}", f.line, data(&plain(&f.message)));
        }
    }
    out
}

/// A message: what would end it is escaped.
pub(super) fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property: also what would end a property.
pub(super) fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_start_a_command_of_its_own() {
        assert_eq!(data("a%b\nc"), "a%25b%0Ac");
        assert_eq!(property("x:y,z"), "x%3Ay%2Cz");
    }
}
