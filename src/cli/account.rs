//! `stitchback account`: what a pipeline promises, before anything is released.

use serde_json::json;
use std::io::Write as _;
use stitchback::Exit;
use stitchback::protect::{Claim, Guarantee, LIMITS, NoiseModel, Pipeline, bound};

/// What a protection guarantees: sigma, mu, epsilon at delta, and what they do not cover
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The protection, for example 'clip(l2=1) | prototype(members=20) | gaussian(epsilon=1, delta=1e-5)'
    pipeline: String,
    /// Coordinates of a vector; they decide the noise-to-signal ratio, and the noise of stages that scale with them
    #[arg(long, value_name = "D", default_value_t = 384, value_parser = clap::value_parser!(u32).range(1..))]
    dim: u32,
    /// Fresh releases of the same records that the claim must cover
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    releases: u32,
    /// Records that one user contributes: the claim then covers all of them together
    #[arg(long, value_name = "U", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    records_per_user: u32,
    /// Candidates among which an attacker would have to pick the right record
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    candidates: u32,
    /// The delta at which epsilon is quoted [default: the pipeline's own, else 1e-5]
    #[arg(long, value_parser = probability)]
    delta: Option<f64>,
    /// Refuse a pipeline that promises nothing
    #[arg(long)]
    strict: bool,
    /// One JSON object instead of the sheet
    #[arg(long)]
    json: bool,
}

/// `--strict`: a pipeline without a guarantee, noise without a bound in front of it among them, is an error.
pub(crate) fn promises(pipeline: &Pipeline) -> Result<(), stitchback::Error> {
    let claim = pipeline.claim();
    if claim.holds() {
        return Ok(());
    }
    let why = format!("promises nothing: {}; leave `--strict` out to go on", claim.note());
    Err(stitchback::protect::Error::Pipeline { pipeline: pipeline.to_string(), why }.into())
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(delta) if delta > 0.0 && delta < 1.0 => Ok(delta),
        _ => Err("delta is a probability above 0 and below 1, for example 1e-5".to_owned()),
    }
}

/// Prints the sheet, or the JSON object, on stdout.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let pipeline = Pipeline::parse(&args.pipeline).map_err(stitchback::Error::from)?;
    if args.strict {
        promises(&pipeline)?;
    }
    let sheet = Sheet {
        claim: pipeline.claim_at(args.dim as usize).after(args.releases).for_user(args.records_per_user),
        noise: pipeline.noise_at(args.dim as usize),
        candidates: args.candidates as usize,
        on_grid: pipeline.on_grid().is_ok_and(|exact| exact == pipeline),
        delta: args.delta.unwrap_or_else(|| pipeline.delta()),
        dim: args.dim as usize,
        pipeline: pipeline.to_string(),
    };
    let text = if args.json { format!("{:#}\n", sheet.json()) } else { sheet.text() };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Pass)
}

struct Sheet {
    pipeline: String,
    claim: Claim,
    noise: Option<NoiseModel>,
    delta: f64,
    dim: usize,
    candidates: usize,
    on_grid: bool,
}

/// Deltas of the curve in the JSON object.
const CURVE: [f64; 5] = [1e-3, 1e-5, 1e-6, 1e-8, 1e-10];

/// What mechanisms of different kinds have in common, over all releases; a number is `None` where nothing bounds it.
struct Currency {
    worst_pair_epsilon: Option<f64>,
    identified: Option<f64>,
    information: Option<f64>,
    fano: Option<f64>,
}

impl Sheet {
    /// The last limit is about the low bits of the noise, which a grid does not leave open.
    fn limits(&self) -> Vec<&'static str> {
        let mut limits = LIMITS.to_vec();
        if self.on_grid {
            limits.pop();
            limits.push("the noise is drawn exactly, in whole steps of a grid; how long a draw takes is not hidden");
        }
        limits
    }

    fn currency(&self) -> Currency {
        let (claim, dim) = (&self.claim, self.dim);
        let information = claim.most_told(dim);
        Currency {
            worst_pair_epsilon: claim.worst_pair_epsilon(self.delta, dim),
            identified: claim.most_identified(self.candidates, dim),
            information,
            fano: information.map(|nats| bound::fano(nats, self.candidates as f64)),
        }
    }

    fn json(&self) -> serde_json::Value {
        let claim = &self.claim;
        let one = claim.clone().after(1);
        let currency = self.currency();
        let curve: Vec<_> =
            CURVE.iter().filter_map(|&d| claim.epsilon(d).map(|e| json!({ "delta": d, "epsilon": e }))).collect();
        json!({
            "schema": "stitchback/account/v1",
            "pipeline": self.pipeline,
            "guarantee": claim.kind(),
            "note": claim.note(),
            "implied": claim.implied,
            "adjacency": claim.adjacency,
            "sensitivity": claim.sensitivity,
            "unit_of_privacy": claim.unit_of_privacy,
            "sigma": claim.sigma(),
            "sigma_before_rescaling": self.noise.is_some_and(|noise| noise.rescaled),
            "mu": claim.mu(),
            "epsilon": claim.epsilon(self.delta),
            "delta": self.delta,
            "curve": curve,
            "releases": claim.releases,
            "records_per_user": claim.records,
            "one_release": { "mu": one.mu(), "epsilon": one.epsilon(self.delta) },
            "dim": self.dim,
            "noise_to_signal": self.noise.map(|noise| noise.noise_to_signal(self.dim)),
            "expected_cosine": self.noise.map(|noise| noise.expected_cosine(self.dim, 1)),
            "expected_cosine_averaged": self.noise.map(|noise| noise.expected_cosine(self.dim, claim.releases)),
            "worst_pair_epsilon": currency.worst_pair_epsilon,
            "candidates": self.candidates,
            "identification_bound": currency.identified,
            "information_bound_nats": currency.information,
            "fano_bound": currency.fano,
            "warnings": claim.warnings,
            "limits": self.limits(),
        })
    }

    fn text(&self) -> String {
        let claim = &self.claim;
        let k = claim.releases;
        let after = match (k, claim.records) {
            (k, 1) => format!("after {k} releases"),
            (1, u) => format!("{u} records a user"),
            (k, u) => format!("{k} x, {u} a user"),
        };
        let at_delta = format!("at delta {}", figure(Some(self.delta)));
        let mut lines = vec![
            ("pipeline", self.pipeline.clone()),
            ("adjacency", claim.adjacency_in_words()),
            ("unit of privacy", claim.unit_of_privacy.clone()),
        ];
        let one = claim.clone().after(1).for_user(1);
        lines.push(match claim.guarantee {
            Guarantee::None { .. } => ("guarantee", format!("none: {}", claim.note())),
            Guarantee::Gdp { .. } => ("guarantee", format!("Gaussian differential privacy; {}", claim.note())),
            _ => ("guarantee", claim.note()),
        });
        if let Some(mu) = one.mu() {
            lines.push(("mu", figure(Some(mu))));
        }
        lines.push(match one.epsilon(self.delta) {
            None => ("epsilon", "none, at any delta".to_owned()),
            Some(epsilon) => ("epsilon", format!("{} {at_delta}", figure(Some(epsilon)))),
        });
        if let Some(epsilon) = claim.epsilon(self.delta).filter(|_| k > 1 || claim.records > 1) {
            let mu = claim.mu().map_or(String::new(), |mu| format!("mu {}, ", figure(Some(mu))));
            lines.push((&after, format!("{mu}epsilon {} {at_delta}", figure(Some(epsilon)))));
        }
        lines.push((
            "sigma",
            claim.sigma().map_or("no noise of one scale".to_owned(), |sigma| {
                let rescaled = self.noise.is_some_and(|noise| noise.rescaled);
                let moment = if rescaled { ", before the rows are rescaled" } else { " of what is released" };
                format!("{} for each coordinate{moment}", figure(Some(sigma)))
            }),
        ));
        if let Some(noise) = self.noise {
            let d = self.dim;
            lines.push((
                "noise to signal",
                format!(
                    "r = {} at d = {d}, for a clean row of norm {} (a shorter one keeps less)",
                    figure(Some(noise.noise_to_signal(d))),
                    figure(Some(noise.signal_norm))
                ),
            ));
            let mut cosine = format!("{} to the clean row", figure(Some(noise.expected_cosine(d, 1))));
            if k > 1 {
                let averaged = figure(Some(noise.expected_cosine(d, k)));
                cosine = format!("{cosine}; {averaged} after averaging {k} releases");
            }
            lines.push(("expected cosine", cosine));
        }
        self.push_currency(&mut lines);
        let mut sheet: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<18} {value}")).collect();
        sheet.extend(claim.warnings.iter().map(|warning| format!("\nWARNING: {warning}")));
        sheet.push("\nLimits:".to_owned());
        sheet.extend(self.limits().iter().map(|limit| format!("  - {limit}")));
        sheet.push(String::new());
        sheet.join("\n")
    }
}

impl Sheet {
    /// One record, whatever the mechanism: what its worst pair costs, how often it can be picked, how much can be told.
    fn push_currency(&self, lines: &mut Vec<(&str, String)>) {
        let currency = self.currency();
        let releases = match self.claim.releases {
            1 => String::new(),
            k => format!(", {k} releases"),
        };
        if let Some(epsilon) = currency.worst_pair_epsilon {
            let at = figure(Some(self.delta));
            lines.push(("worst pair", format!("epsilon {} at delta {at}{releases}", figure(Some(epsilon)))));
        }
        if let (Some(found), Some(nats), Some(fano)) = (currency.identified, currency.information, currency.fano) {
            let n = self.candidates;
            let chance = figure(Some(1.0 / n as f64));
            lines.push((
                "identification",
                format!("at most {} of {n} candidates (chance {chance}){releases}", figure(Some(found))),
            ));
            let bits = figure(Some(nats / std::f64::consts::LN_2));
            lines.push((
                "information",
                format!(
                    "at most {bits} bits about a record{releases}; by Fano, identification at most {}",
                    figure(Some(fano))
                ),
            ));
        }
    }
}

/// Six significant digits, without trailing zeros.
fn figure(value: Option<f64>) -> String {
    let Some(value) = value else { return "none".to_owned() };
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    if rounded != 0.0 && !(1e-3..1e7).contains(&rounded.abs()) { format!("{rounded:e}") } else { format!("{rounded}") }
}
