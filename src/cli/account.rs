//! `stitchback account`: what a pipeline promises, before anything is released.

use serde_json::json;
use std::io::Write as _;
use stitchback::Exit;
use stitchback::protect::{Claim, Guarantee, LIMITS, NoiseModel, Pipeline};

/// What a protection guarantees: sigma, mu, epsilon at delta, and what they do not cover
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The protection, for example 'clip(l2=1) | prototype(members=20) | gaussian(epsilon=1, delta=1e-5)'
    pipeline: String,
    /// Coordinates of a vector; decides the noise-to-signal ratio, not the guarantee
    #[arg(long, value_name = "D", default_value_t = 384, value_parser = clap::value_parser!(u32).range(1..))]
    dim: u32,
    /// Fresh releases of the same records that the claim must cover
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    releases: u32,
    /// The delta at which epsilon is quoted [default: the pipeline's own, else 1e-5]
    #[arg(long, value_parser = probability)]
    delta: Option<f64>,
    /// One JSON object instead of the sheet
    #[arg(long)]
    json: bool,
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
    let sheet = Sheet {
        claim: pipeline.claim().after(args.releases),
        noise: pipeline.noise(),
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
}

impl Sheet {
    fn json(&self) -> serde_json::Value {
        let claim = &self.claim;
        let one = claim.clone().after(1);
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
            "releases": claim.releases,
            "one_release": { "mu": one.mu(), "epsilon": one.epsilon(self.delta) },
            "dim": self.dim,
            "noise_to_signal": self.noise.map(|noise| noise.noise_to_signal(self.dim)),
            "expected_cosine": self.noise.map(|noise| noise.expected_cosine(self.dim, 1)),
            "expected_cosine_averaged": self.noise.map(|noise| noise.expected_cosine(self.dim, claim.releases)),
            "warnings": claim.warnings,
            "limits": LIMITS,
        })
    }

    fn text(&self) -> String {
        let claim = &self.claim;
        let k = claim.releases;
        let after = format!("after {k} releases");
        let at_delta = format!("at delta {}", figure(Some(self.delta)));
        let mut lines = vec![
            ("pipeline", self.pipeline.clone()),
            ("adjacency", claim.adjacency_in_words()),
            ("unit of privacy", claim.unit_of_privacy.clone()),
        ];
        match claim.guarantee {
            Guarantee::None { .. } => {
                lines.push(("guarantee", format!("none: {}", claim.note())));
                lines.push(("epsilon", "none, at any delta".to_owned()));
            }
            Guarantee::Gdp { .. } => {
                let one = claim.clone().after(1);
                lines.push(("guarantee", format!("Gaussian differential privacy; {}", claim.note())));
                lines.push(("mu", figure(one.mu())));
                lines.push(("epsilon", format!("{} {at_delta}", figure(one.epsilon(self.delta)))));
                if k > 1 {
                    let (mu, epsilon) = (figure(claim.mu()), figure(claim.epsilon(self.delta)));
                    lines.push((&after, format!("mu {mu}, epsilon {epsilon} {at_delta}")));
                }
            }
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
        let mut sheet: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<18} {value}")).collect();
        sheet.extend(claim.warnings.iter().map(|warning| format!("\nWARNING: {warning}")));
        sheet.push("\nLimits:".to_owned());
        sheet.extend(LIMITS.iter().map(|limit| format!("  - {limit}")));
        sheet.push(String::new());
        sheet.join("\n")
    }
}

/// Six significant digits, without trailing zeros.
fn figure(value: Option<f64>) -> String {
    let Some(value) = value else { return "none".to_owned() };
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    if rounded != 0.0 && !(1e-3..1e7).contains(&rounded.abs()) { format!("{rounded:e}") } else { format!("{rounded}") }
}
