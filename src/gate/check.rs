//! Checks on cells: what is selected, what its bounds say, and whether the evidence can carry a verdict.

use super::baseline::{Absent, Baseline, Entry};
use super::bounds::{Bounds, Method, Sum};
use super::policy::{Check, Policy, WORST, Waiver, name_of};
use super::run::{Arm, Audit, RELEASE, Run};
use super::series::Series;
use super::verdict::{Answer, Finding, Level, Question, Reason, Waived};
use super::{Error, Options};
use crate::attack::AttackConfig;
use crate::measure::Direction;
use crate::run::cell::Outcome;
use crate::run::record::Row;
use chrono::NaiveDate;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// Below the blind attacker by more than this is a broken attack, not privacy.
const BELOW_FLOOR: f64 = -0.02;

/// Whether the attackers of a run are strong, found out once by what it depends on: confidence and event, as bits.
type Strengths = BTreeMap<(u64, u64), OnceLock<Option<(Reason, String)>>>;

/// One figure of one protection, as a check selects it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    protection: String,
    pipeline: String,
    /// The attack in the records.
    attack: String,
    /// `worst`, or the same.
    asked: String,
    metric: String,
}

/// Every finding of a policy on all runs, and what a later gate may compare with.
pub(super) fn findings(policy: &Policy, runs: &[Run], options: &Options) -> Result<(Vec<Finding>, Baseline), Error> {
    let keys = policy.checks.iter().map(|check| (by(check), OnceLock::new()));
    let strengths: Vec<Strengths> = runs.iter().map(|_| keys.clone().collect()).collect();
    let mut jobs = Vec::new();
    let mut out = Vec::new();
    for check in policy.checks.iter().filter(|c| c.level != Level::Off) {
        for &(question, threshold) in &check.questions {
            let before = jobs.len();
            for (run, strengths) in
                runs.iter().zip(&strengths).filter(|(run, _)| check.select.corpus(&run.evidence.corpus))
            {
                jobs.extend(subjects(run, check, question).into_iter().map(|subject| Trial {
                    policy,
                    run,
                    strength: &strengths[&by(check)],
                    check,
                    question,
                    threshold,
                    subject,
                    baseline: options.baseline.as_ref(),
                }));
            }
            if jobs.len() == before {
                out.push(nothing_selected(check, question, threshold, runs));
            }
        }
    }
    let found: Vec<(Finding, Option<Entry>)> = jobs.par_iter().map(Trial::hold).collect::<Result<_, Error>>()?;
    let mut entries = Vec::new();
    for (finding, entry) in found {
        out.push(finding);
        entries.extend(entry);
    }
    Ok((out, Baseline::new(entries)))
}

/// What the strength of attackers depends on, of a check.
fn by(check: &Check) -> (u64, u64) {
    (check.confidence.to_bits(), check.event.to_bits())
}

/// What a check is about in one run.
fn subjects(run: &Run, check: &Check, question: Question) -> Vec<Subject> {
    let select = &check.select;
    let mut out: Vec<Subject> = Vec::new();
    for (name, pipeline) in &run.evidence.protections {
        if !select.protection(name, pipeline == "identity") {
            continue;
        }
        let subject = |attack: &str, asked: &str, metric: &str| Subject {
            protection: name.clone(),
            pipeline: pipeline.clone(),
            attack: attack.to_owned(),
            asked: asked.to_owned(),
            metric: metric.to_owned(),
        };
        if matches!(question, Question::MaxEpsilon | Question::Audit) {
            out.push(subject("claim", "claim", "epsilon"));
            continue;
        }
        let is_worst = select.attack.text == WORST;
        for row in run.rows.iter().filter(|r| r.protection == *name && select.metric.matches(&r.metric)) {
            // Differences between attackers are instruments, not figures of a release.
            let is_paired = row.metric.contains("_minus_");
            let is_release = RELEASE.contains(&row.attack.as_str());
            let is_twin = row.attack.contains("non-adaptive") && !select.attack.text.contains("non-adaptive");
            let is_floor = AttackConfig::FLOORS.contains(&row.attack.as_str()) && !select.attack.is_name();
            let wanted = if is_worst {
                is_release || row.inference.is_some() || run.worst(name) == Some(row.attack.as_str())
            } else {
                select.attack.matches(&row.attack)
            };
            if is_paired || is_twin || is_floor || !wanted || !points_right(question, row.direction) {
                continue;
            }
            let asked = if is_worst && !is_release && row.inference.is_none() { WORST } else { &row.attack };
            let one = subject(&row.attack, asked, &row.metric);
            if !out.contains(&one) {
                out.push(one);
            }
        }
        // A worst attacker that was never found is a gap, not a pass; so is one that failed and may have been the worst.
        let asked = if select.metric.matches("judge_leak") {
            Some("judge_leak".to_owned())
        } else {
            out.iter().find(|s| s.protection == *name && s.asked == WORST).map(|s| s.metric.clone())
        };
        if let Some(metric) = asked.filter(|_| is_worst && points_right(question, Direction::HigherLeaksMore)) {
            let failed = run.failed(name);
            let nobody = (run.worst(name).is_none() && failed.is_empty()).then_some("none");
            for gap in failed.into_iter().chain(nobody) {
                let one = subject(gap, WORST, &metric);
                if !out.contains(&one) {
                    out.push(one);
                }
            }
        }
    }
    out
}

/// An upper limit suits leaks, a lower one what should be large.
fn points_right(question: Question, direction: Direction) -> bool {
    match question {
        Question::Max | Question::MinReduction => direction == Direction::HigherLeaksMore,
        Question::Min => direction != Direction::HigherLeaksMore,
        Question::MinRetention => direction == Direction::HigherIsMoreUseful,
        _ => true,
    }
}

/// A check on one figure of one run.
struct Trial<'a> {
    policy: &'a Policy,
    run: &'a Run,
    /// Whether the attackers of this run are strong, by this check's confidence and event; asked once.
    strength: &'a OnceLock<Option<(Reason, String)>>,
    check: &'a Check,
    question: Question,
    threshold: f64,
    subject: Subject,
    baseline: Option<&'a Baseline>,
}

/// The three arms of a figure, cut to the targets that they share.
struct Arms {
    protected: Series,
    unprotected: Option<Series>,
    blind: Option<Series>,
    clusters: usize,
}

impl Trial<'_> {
    fn hold(&self) -> Result<(Finding, Option<Entry>), Error> {
        let finding = self.blank();
        match self.question {
            Question::MaxEpsilon => return Ok((self.claimed(finding), None)),
            Question::Audit => return Ok((self.audited(finding), None)),
            _ => {}
        }
        let subject = &self.subject;
        let rows = self.run.rows_of(&subject.protection, &subject.attack, &subject.metric);
        let arm = self.run.arm(&subject.protection, &subject.attack);
        let Some(row) = rows.first() else {
            return Ok((self.unusable(finding, Reason::MissingCells, "no attacker was scored for every seed"), None));
        };
        let mut finding = Finding {
            version: row.version,
            cells: rows.iter().map(|r| r.cell.clone()).collect(),
            n: rows.iter().map(|r| r.n).min().unwrap_or(0),
            seeds: rows.len(),
            ..finding
        };
        if arm.missing || rows.len() < self.run.evidence.seeds.len() {
            let why = "a cell failed or a seed is missing; run the study again";
            return Ok((self.unusable(finding, Reason::MissingCells, why), None));
        }
        let Some(protected) = Series::of(&arm.outcomes, &subject.metric, &row.unit) else {
            return Ok((self.recorded(finding, &rows), None));
        };
        let entry = Entry::new(self.run, &subject.protection, &subject.asked, &subject.metric, row.version, &protected);
        let arms = self.arms(protected, row);
        finding.n = arms.protected.n();
        finding.clusters = arms.clusters;
        let key = format!("{} {}", finding.cells.join(" "), subject.metric);
        let alpha = 1.0 - self.check.confidence;
        let one = |series: &Series| self.arms_sum(vec![(1.0, series)], &key).value();
        finding.protected = one(&arms.protected)?;
        finding.unprotected = arms.unprotected.as_ref().map(one).transpose()?.flatten();
        finding.blind = arms.blind.as_ref().map(one).transpose()?.flatten();
        finding.reduction = finding.unprotected.zip(finding.protected).and_then(|(u, p)| {
            let b = finding.blind.unwrap_or(0.0);
            finite(1.0 - (p - b) / (u - b))
        });

        let bounds = match self.bounds(&arms, &key) {
            Ok(bounds) => bounds?,
            Err((reason, why)) => return Ok((self.unusable(finding, reason, &why), Some(entry))),
        };
        let finding = self.decide(finding, &bounds, alpha, &row.unit);
        let finding = self.validate(finding, &arm, &arms, &key)?;
        Ok((finding, Some(entry)))
    }

    fn blank(&self) -> Finding {
        let subject = &self.subject;
        Finding {
            check: self.check.id.clone(),
            line: self.check.line,
            rule: self.question.rule().to_owned(),
            question: self.question,
            level: self.check.level,
            corpus: self.run.evidence.corpus.clone(),
            protection: subject.protection.clone(),
            pipeline: subject.pipeline.clone(),
            attack: subject.attack.clone(),
            metric: subject.metric.clone(),
            version: 1,
            verdict: Answer::Inconclusive,
            value: None,
            low: None,
            high: None,
            confidence: self.check.confidence,
            method: Method::None,
            n: 0,
            clusters: 0,
            seeds: 0,
            threshold: self.threshold,
            protected: None,
            unprotected: None,
            blind: None,
            reduction: None,
            reason: None,
            message: String::new(),
            n_needed: None,
            p_fail: None,
            waiver: None,
            cells: Vec::new(),
        }
    }

    /// Which figure of which setting, for messages.
    fn what(&self) -> String {
        let Subject { protection, pipeline, attack, metric, .. } = &self.subject;
        format!("{metric} of {attack} on {protection} ({pipeline})")
    }

    fn unusable(&self, finding: Finding, reason: Reason, why: &str) -> Finding {
        Finding {
            verdict: Answer::Inconclusive,
            reason: Some(reason),
            message: format!("{}: {why}", self.what()),
            ..finding
        }
    }

    fn arms_sum<'s>(&'s self, terms: Vec<(f64, &'s Series)>, key: &'s str) -> Sum<'s> {
        Sum { terms, labels: &self.run.evidence.clusters, event: self.check.event, key }
    }

    fn sum(&self, terms: Vec<(f64, &Series)>, key: &str) -> Result<Bounds, crate::measure::Error> {
        self.arms_sum(terms, key).bounds()
    }

    /// Targets, budget and seeds are shared by all arms of a figure.
    fn arms(&self, protected: Series, row: &Row) -> Arms {
        let subject = &self.subject;
        let is_release = RELEASE.contains(&subject.attack.as_str());
        let of = |protection: &str, attack: &str| {
            let arm = self.run.arm(protection, attack);
            (!arm.missing && arm.outcomes.len() == protected.seeds())
                .then(|| Series::of(&arm.outcomes, &subject.metric, &row.unit))
                .flatten()
        };
        let other = self.run.unprotected().filter(|name| *name != subject.protection);
        let unprotected = other.and_then(|name| {
            // The worst attacker of each arm, where the worst one is asked for.
            let attack = if subject.asked == WORST { self.run.worst(name)? } else { &subject.attack };
            of(name, attack)
        });
        let blind = if is_release || row.inference.is_some() { None } else { of(&subject.protection, "blind") };
        let n = [Some(&protected), unprotected.as_ref(), blind.as_ref()].into_iter().flatten().map(Series::n).min();
        let n = n.unwrap_or(0).min(self.run.evidence.clusters.len());
        let mut arms = Arms { protected, unprotected, blind, clusters: 0 };
        arms.protected.cut(n);
        for arm in [&mut arms.unprotected, &mut arms.blind].into_iter().flatten() {
            arm.cut(n);
        }
        arms.clusters = self.run.evidence.clusters[..n].iter().collect::<BTreeSet<_>>().len();
        arms
    }

    /// The bounds of what is asked; the threshold of a difference is 0 or its margin.
    fn bounds(&self, arms: &Arms, key: &str) -> Result<Result<Bounds, Error>, (Reason, String)> {
        let missing = || (Reason::NoUnprotectedArm, "the unprotected release has no such scores".to_owned());
        let terms = match self.question {
            Question::MinReduction => {
                let rest = 1.0 - self.threshold;
                let mut terms = vec![(1.0, &arms.protected), (-rest, arms.unprotected.as_ref().ok_or_else(missing)?)];
                terms.extend(arms.blind.as_ref().map(|blind| (rest - 1.0, blind)));
                terms
            }
            Question::MinRetention => {
                vec![(1.0, &arms.protected), (-self.threshold, arms.unprotected.as_ref().ok_or_else(missing)?)]
            }
            Question::MaxRegression => return self.regression(arms, key),
            _ => vec![(1.0, &arms.protected)],
        };
        Ok(self.sum(terms, key).map_err(Error::from))
    }

    /// How much worse than in the baseline, on the records that both scored.
    fn regression(&self, arms: &Arms, key: &str) -> Result<Result<Bounds, Error>, (Reason, String)> {
        let subject = &self.subject;
        let none = || (Reason::NoBaseline, "there is no baseline for it; make one with --save-baseline".to_owned());
        let baseline = self.baseline.ok_or_else(none)?;
        let version = self.run.rows_of(&subject.protection, &subject.attack, &subject.metric)[0].version;
        let range = arms.protected.range;
        let old = baseline.series(self.run, &subject.protection, &subject.asked, &subject.metric, version, range);
        let mut old = old.map_err(|absent| match absent {
            Absent::Entry => none(),
            Absent::Incompatible(what) => {
                let why = format!("the baseline cannot be compared: {what} changed; make a new one");
                (Reason::IncompatibleBaseline, why)
            }
        })?;
        if old.seeds() != arms.protected.seeds() {
            let why = "the baseline cannot be compared: it has other seeds; make a new one".to_owned();
            return Err((Reason::IncompatibleBaseline, why));
        }
        let n = arms.protected.n().min(old.n());
        let mut new = arms.protected.clone();
        new.cut(n);
        old.cut(n);
        let rows = self.run.rows_of(&subject.protection, &subject.attack, &subject.metric);
        let worse = if rows[0].direction == Direction::HigherLeaksMore { 1.0 } else { -1.0 };
        let terms = vec![(worse, &new), (-worse, &old)];
        let sum = Sum { terms, labels: &self.run.evidence.clusters, event: f64::INFINITY, key };
        Ok(sum.bounds().map_err(Error::from))
    }

    /// Pass, fail or neither, by the bounds alone.
    fn decide(&self, finding: Finding, bounds: &Bounds, alpha: f64, unit: &str) -> Finding {
        // Reductions and retentions are differences that must not cross 0.
        let (at, at_most) = match self.question {
            Question::MinReduction => (0.0, true),
            Question::MinRetention => (0.0, false),
            Question::Min => (self.threshold, false),
            _ => (self.threshold, true),
        };
        let (low, high) = (bounds.lower(alpha).and_then(finite), bounds.upper(alpha).and_then(finite));
        let mut finding = Finding { value: finite(bounds.value), low, high, method: bounds.method, ..finding };
        finding.p_fail = bounds.p_beyond(at, at_most);
        let (passes, fails) = match (low, high, at_most) {
            (_, Some(high), true) if high <= at => (true, false),
            (Some(low), _, true) => (false, low > at),
            (Some(low), _, false) if low >= at => (true, false),
            (_, Some(high), false) => (false, high < at),
            _ => (false, false),
        };
        finding.verdict = if passes { Answer::Pass } else { Answer::Inconclusive };
        if fails {
            finding.verdict = Answer::Fail;
        } else if !passes {
            let known = low.is_some() && high.is_some();
            finding.reason = Some(if known { Reason::IntervalHoldsThreshold } else { Reason::NoBound });
            finding.n_needed = bounds.n_needed(at, at_most, alpha);
        }
        finding.message = self.sentence(&finding, unit);
        finding
    }

    /// The finding in a sentence.
    fn sentence(&self, f: &Finding, unit: &str) -> String {
        let show = |v: Option<f64>| v.map_or_else(|| "unknown".to_owned(), |v| figure(v, unit));
        let interval = format!("{} [{}, {}]", show(f.value), show(f.low), show(f.high));
        let limit = figure(self.threshold, unit);
        let what = self.what();
        let (share, percent) = (f.reduction, |v: f64| figure(v, "share"));
        let mut text = match self.question {
            Question::Max => format!("{what} is {interval}, limit {limit}"),
            Question::Min => format!("{what} is {interval}, at least {limit} is asked"),
            Question::MinReduction => format!(
                "{what} went from {} to {}: a reduction by {}, at least {} is asked (excess {interval}, must not exceed 0)",
                show(f.unprotected),
                show(f.protected),
                share.map_or("unknown".to_owned(), percent),
                percent(self.threshold)
            ),
            Question::MinRetention => format!(
                "{what} went from {} to {}, at least {} of it is asked (surplus {interval}, must not fall below 0)",
                show(f.unprotected),
                show(f.protected),
                percent(self.threshold)
            ),
            _ => format!("{what} is worse than the baseline by {interval}, margin {limit}"),
        };
        if f.verdict == Answer::Inconclusive {
            text += match (f.reason, f.n_needed) {
                (Some(Reason::NoBound), _) => "; the records hold no bound for it".to_owned(),
                (_, Some(n)) if n > f.n => format!("; undecided: about {n} targets would settle it"),
                (_, Some(_)) => "; undecided: more targets or seeds would settle it".to_owned(),
                (_, None) => "; undecided, and its value lies on the wrong side".to_owned(),
            }
            .as_str();
        }
        text
    }

    /// Everything that can take a verdict back. A leak that weak evidence shows is a leak all the same: then only a pass is.
    fn validate(&self, finding: Finding, arm: &Arm, arms: &Arms, key: &str) -> Result<Finding, Error> {
        let check = self.check;
        if finding.n < check.min_n {
            let why = format!("{} targets, the policy asks for {}", finding.n, check.min_n);
            return Ok(Self::spoilt(finding, Reason::TooFewTargets, &why));
        }
        if finding.seeds < check.min_seeds {
            let why = format!("{} seeds, the policy asks for {}", finding.seeds, check.min_seeds);
            return Ok(Self::spoilt(finding, Reason::TooFewSeeds, &why));
        }
        let alpha = 1.0 - check.confidence;
        let leaks = matches!(self.question, Question::Max | Question::MinReduction);
        if !leaks || !arm.outcomes.iter().all(|o| o.test.contains_key("judge_cosine")) {
            return Ok(finding);
        }
        if self.question == Question::Max
            && let Some(blind) = &arms.blind
            && self.sum(vec![(1.0, blind)], key)?.lower(alpha).is_some_and(|low| low > self.threshold)
        {
            let why = "a blind attacker alone exceeds the limit; use `min_reduction`";
            return Ok(Self::spoilt(finding, Reason::ThresholdBelowFloor, why));
        }
        if finding.verdict != Answer::Pass {
            return Ok(finding);
        }
        if let Some((reason, why)) = self.strength.get_or_init(|| strength(self.run, self.policy, check)) {
            return Ok(Self::spoilt(finding, *reason, why));
        }
        if arm.outcomes.iter().any(|o| !o.adaptive) && self.subject.pipeline != "identity" {
            let why = "the attacker was not fitted on releases of this pipeline";
            return Ok(Self::spoilt(finding, Reason::NotAdaptive, why));
        }
        if let Some(blind) = &arms.blind {
            let above = self.sum(vec![(1.0, &arms.protected), (-1.0, blind)], key)?;
            if above.upper(alpha).is_some_and(|high| high < BELOW_FLOOR) {
                let why = "it lies below the blind attacker: the attack is broken";
                return Ok(Self::spoilt(finding, Reason::BelowFloor, why));
            }
        }
        let same = self.run.unprotected().map(|name| self.run.arm(name, &self.subject.attack));
        let pairs = |o: &&Outcome| o.cost.pairs;
        let budget = arm.outcomes.iter().map(pairs).min();
        if let Some(other) = same.and_then(|arm| arm.outcomes.iter().map(pairs).min())
            && budget != Some(other)
        {
            let why = format!("{} training pairs, {other} on the unprotected release", budget.unwrap_or(0));
            return Ok(Self::spoilt(finding, Reason::BudgetMismatch, &why));
        }
        if let Some(fall) = arm.outcomes.iter().filter_map(|o| late_fall(o)).reduce(f64::max)
            && fall > self.policy.strength.max_late_gain
        {
            let why =
                format!("the held-out loss still fell by {} over the last fifth of training", figure(fall, "share"));
            return Ok(Self::spoilt(finding, Reason::Undertrained, &why));
        }
        Ok(finding)
    }

    fn spoilt(finding: Finding, reason: Reason, why: &str) -> Finding {
        let message = format!("{}; no verdict: {why}", finding.message);
        Finding { verdict: Answer::Inconclusive, reason: Some(reason), message, p_fail: None, ..finding }
    }

    /// A figure without scores of single targets: the widest of the recorded intervals.
    fn recorded(&self, finding: Finding, rows: &[&Row]) -> Finding {
        let mean = rows.iter().filter_map(|r| r.value).sum::<f64>() / rows.len() as f64;
        let (lows, highs): (Vec<f64>, Vec<f64>) = rows.iter().filter_map(|r| r.low.zip(r.high)).unzip();
        let whole = lows.len() == rows.len() && matches!(self.question, Question::Max | Question::Min);
        let (Some(low), Some(high), true) =
            (lows.into_iter().reduce(f64::min), highs.into_iter().reduce(f64::max), whole)
        else {
            return self.unusable(finding, Reason::NoBound, "the records hold no scores of single targets for it");
        };
        let bounds = Bounds::recorded(mean, low, high, finding.n);
        let finding = Finding { clusters: finding.n, ..finding };
        let (n, seeds) = (finding.n, finding.seeds);
        let finding = self.decide(finding, &bounds, 1.0 - self.check.confidence, &rows[0].unit);
        if n < self.check.min_n {
            let why = format!("{n} targets, the policy asks for {}", self.check.min_n);
            return Self::spoilt(finding, Reason::TooFewTargets, &why);
        }
        if seeds < self.check.min_seeds {
            let why = format!("{seeds} seeds, the policy asks for {}", self.check.min_seeds);
            return Self::spoilt(finding, Reason::TooFewSeeds, &why);
        }
        finding
    }

    /// What the protection promises on paper.
    fn claimed(&self, finding: Finding) -> Finding {
        let claimed = self.run.summed(&self.subject.protection).and_then(|p| p.guarantee.epsilon);
        let Some(epsilon) = claimed else {
            return self.unusable(finding, Reason::NoClaim, "the pipeline claims no epsilon");
        };
        Finding {
            value: Some(epsilon),
            method: Method::Exact,
            verdict: if epsilon <= self.threshold { Answer::Pass } else { Answer::Fail },
            message: format!("{} is {epsilon:.4}, limit {}", self.what(), self.threshold),
            ..finding
        }
    }

    /// Whether an audit contradicts the promise; an audit that could not have is no confirmation.
    fn audited(&self, finding: Finding) -> Finding {
        let subject = &self.subject;
        let claimed = self.run.summed(&subject.protection).and_then(|p| p.guarantee.epsilon);
        let Some(epsilon) = claimed else {
            return self.unusable(finding, Reason::NoClaim, "the pipeline claims no epsilon");
        };
        let audits = self.run.audits.iter().filter(|a| a.pipeline == subject.pipeline);
        let worst = |a: &Audit| (a.refuted, a.epsilon_lower);
        let by = |a: &&Audit, b: &&Audit| worst(a).0.cmp(&worst(b).0).then(worst(a).1.total_cmp(&worst(b).1));
        let Some(audit) = audits.max_by(by) else {
            return self.unusable(finding, Reason::NoAudit, "there is no audit of it; give one with --audit");
        };
        let finding = Finding {
            value: Some(audit.epsilon_lower),
            low: Some(audit.epsilon_lower),
            threshold: epsilon,
            method: Method::Recorded,
            ..finding
        };
        let shown = format!("{}: audited {:.4}, claimed {epsilon:.4}", self.what(), audit.epsilon_lower);
        if audit.refuted || audit.epsilon_lower > epsilon {
            return Finding { verdict: Answer::Fail, message: format!("{shown}: the claim is false"), ..finding };
        }
        let untestable = audit.ceiling.is_some_and(|ceiling| ceiling < epsilon);
        let note = if untestable { "untestable: so many trials can show no more" } else { "not contradicted" };
        Finding { verdict: Answer::Pass, message: format!("{shown}: {note}"), ..finding }
    }
}

/// Whether the attackers of a run are strong where nothing protects; the reason where they are not.
fn strength(run: &Run, policy: &Policy, check: &Check) -> Option<(Reason, String)> {
    let weak = |why: String| Some((Reason::AttackTooWeak, why));
    if !run.summary.attacker_strong_enough {
        return weak("the attackers did not clear the study's own bar on the unprotected release".to_owned());
    }
    let Some(name) = run.unprotected() else { return weak("no protection of the study is `identity`".to_owned()) };
    let Some(worst) = run.worst(name) else { return weak("nothing attacked the unprotected release".to_owned()) };
    let (arm, blind) = (run.arm(name, worst), run.arm(name, "blind"));
    let alpha = 1.0 - check.confidence;
    let bound = |metric: &str, subtract: bool| -> Option<f64> {
        let attacked = Series::of(&arm.outcomes, metric, "share")?;
        let n = attacked.n().min(run.evidence.clusters.len());
        let mut terms = vec![(1.0, attacked)];
        if subtract {
            terms.push((-1.0, Series::of(&blind.outcomes, metric, "share")?));
        }
        let n = terms.iter().map(|(_, s)| s.n()).fold(n, usize::min);
        for (_, series) in &mut terms {
            series.cut(n);
        }
        let seeds = terms[0].1.seeds();
        if terms.iter().any(|(_, s)| s.seeds() != seeds) {
            return None;
        }
        let terms = terms.iter().map(|(c, s)| (*c, s)).collect();
        let key = format!("strength {metric} {}", arm.outcomes[0].id);
        Sum { terms, labels: &run.evidence.clusters, event: check.event, key: &key }.bounds().ok()?.lower(alpha)
    };
    let asked = policy.strength.min_gain;
    match bound("judge_leak", true) {
        Some(gain) if gain >= asked => {}
        gain => {
            let gain = gain.map_or("unknown".to_owned(), |g| figure(g, "share"));
            let asked = figure(asked, "share");
            return weak(format!(
                "{worst} gains {gain} over a blind attacker on the unprotected release, {asked} is asked"
            ));
        }
    }
    let two_way = policy.strength.image_two_way;
    if arm.outcomes.iter().all(|o| o.test.contains_key("matched_two_way"))
        && bound("matched_two_way", false).is_none_or(|b| b < two_way)
    {
        return weak(format!("{worst} does not tell pictures apart in {} of pairs", figure(two_way, "share")));
    }
    None
}

/// How much a held-out loss fell over the last fifth of a training, as a share of it.
fn late_fall(outcome: &Outcome) -> Option<f64> {
    let falls = outcome.curves.iter().filter(|c| c.title.starts_with("held-out loss")).filter_map(|curve| {
        let (end, last) = *curve.points.last()?;
        let before = curve.points.iter().filter(|(x, _)| *x <= 0.8 * end).map(|(_, y)| *y).next_back()?;
        finite((before - last) / before)
    });
    falls.reduce(f64::max)
}

fn nothing_selected(check: &Check, question: Question, threshold: f64, runs: &[Run]) -> Finding {
    let select = check.select.text();
    let metrics: BTreeSet<&str> = runs.iter().flat_map(|r| r.rows.iter()).map(|r| r.metric.as_str()).collect();
    let near = crate::study::read::near(&check.select.metric.text, metrics.into_iter());
    let mut parts = select.split('/').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    Finding {
        check: check.id.clone(),
        line: check.line,
        rule: question.rule().to_owned(),
        question,
        level: check.level,
        corpus: part(),
        protection: part(),
        pipeline: String::new(),
        attack: part(),
        metric: part(),
        version: 0,
        verdict: Answer::Inconclusive,
        value: None,
        low: None,
        high: None,
        confidence: check.confidence,
        method: Method::None,
        n: 0,
        clusters: 0,
        seeds: 0,
        threshold,
        protected: None,
        unprotected: None,
        blind: None,
        reduction: None,
        reason: Some(Reason::NothingSelected),
        message: format!(
            "`{}` of `{}` selects no record that it can be asked of ({select}); metrics: {near}",
            name_of(question),
            check.id
        ),
        n_needed: None,
        p_fail: None,
        waiver: None,
        cells: Vec::new(),
    }
}

/// Puts waivers on what they cover; those without use are returned as warnings.
pub(super) fn waive(findings: Vec<Finding>, waivers: &[Waiver], today: NaiveDate) -> (Vec<Finding>, Vec<String>) {
    let mut used = vec![false; waivers.len()];
    let out = findings.into_iter().map(|finding| {
        if finding.verdict == Answer::Pass {
            return finding;
        }
        let covers = |w: &Waiver| w.id == finding.check && w.scope.matches(&finding.place());
        // One that still holds counts before one that does not.
        let found = waivers.iter().enumerate().filter(|(_, w)| covers(w)).max_by_key(|(_, w)| w.until);
        let Some((number, waiver)) = found else { return finding };
        used[number] = true;
        let expired = today > waiver.until;
        let waived = Waived {
            reason: waiver.reason.clone(),
            approved_by: waiver.approved_by.clone(),
            until: waiver.until.to_string(),
            expired,
            line: waiver.line,
        };
        let mut finding = Finding { waiver: Some(waived), ..finding };
        if expired && finding.verdict == Answer::Fail {
            finding.verdict = Answer::Inconclusive;
            finding.reason = Some(Reason::WaiverExpired);
            finding.message = format!("{}; its waiver expired on {}", finding.message, waiver.until);
        }
        finding
    });
    let out = out.collect();
    let unused = waivers.iter().zip(used).filter(|(_, used)| !used);
    let unused = unused.map(|(w, _)| format!("line {}: the waiver of `{}` covers nothing; take it out", w.line, w.id));
    (out, unused.collect())
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// A figure in its unit.
fn figure(value: f64, unit: &str) -> String {
    match unit {
        "share" => format!("{:.1} %", 100.0 * value),
        "points" => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
