//! `JUnit`: one test case for each finding. What is inconclusive is an *error*: many systems show `skipped` in green.

use super::{Error, Verdict, plain};
use crate::gate::verdict::{Answer, Finding, Level};
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

/// The verdict as `JUnit` XML: a suite of one test case for each finding, because only a suite may hold properties.
///
/// # Errors
/// When the writer refuses.
pub fn junit(verdict: &Verdict) -> Result<String, Error> {
    let mut report = Report::new("stitchback gate");
    for finding in &verdict.findings {
        let mut suite = TestSuite::new(plain(&format!("{}: {}", finding.check, finding.place())));
        for (name, value) in [("policy", &verdict.policy_hash), ("today", &verdict.today), ("tool", &verdict.tool)] {
            suite.add_property(Property::new(name, plain(value)));
        }
        for (name, value) in numbers(finding) {
            suite.add_property(Property::new(name, value.map_or("unknown".to_owned(), |v| v.to_string())));
        }
        suite.add_property(Property::new("pipeline", plain(&finding.pipeline)));
        suite.add_test_case(case(finding));
        report.add_test_suite(suite);
    }
    report.to_string().map_err(|e| Error::Serialize { format: "JUnit", why: e.to_string() })
}

fn numbers(finding: &Finding) -> [(&'static str, Option<f64>); 9] {
    [
        ("value", finding.value),
        ("low", finding.low),
        ("high", finding.high),
        ("threshold", Some(finding.threshold)),
        ("protected", finding.protected),
        ("unprotected", finding.unprotected),
        ("blind", finding.blind),
        ("n", Some(finding.n as f64)),
        ("seeds", Some(finding.seeds as f64)),
    ]
}

fn case(finding: &Finding) -> TestCase {
    let blocks = finding.level == Level::Error;
    let mut status = match finding.verdict {
        Answer::Pass => TestCaseStatus::success(),
        _ if finding.is_waived() || !blocks => TestCaseStatus::skipped(),
        Answer::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Answer::Inconclusive => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    if finding.verdict != Answer::Pass {
        let waiver = finding.waiver.as_ref().filter(|w| !w.expired);
        let why = match waiver {
            Some(w) => format!("waived until {} ({}): {}", w.until, w.reason, finding.message),
            None if !blocks => format!("warning only: {}", finding.message),
            None => finding.message.clone(),
        };
        status.set_message(plain(&why)).set_type(finding.rule.clone());
    }
    let question = crate::gate::policy::name_of(finding.question);
    let mut case = TestCase::new(plain(&format!("{} {question}: {}", finding.check, finding.place())), status);
    case.set_classname(format!("gate.{}", plain(&finding.check)));
    case
}
