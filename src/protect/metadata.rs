//! What stands beside released vectors, wherever they go: a file, an array in Python.

use super::{Claim, Pipeline, Release};
use serde_json::{Value, json};

/// The pipeline, its claim about rows of the released input, and whether the noise can be drawn again.
///
/// `seeded` says that the noise came from a seed: whoever knows it can take the noise off, so nothing is private.
pub fn metadata(pipeline: &Pipeline, claim: &Claim, release: &Release, seeded: bool) -> Value {
    let delta = pipeline.delta();
    let private = !seeded && claim.holds();
    let status = match (seeded, private) {
        (true, _) => "not private: the noise was drawn from a seed".to_owned(),
        (false, true) => format!("private: {}", claim.note()),
        (false, false) => format!("not private: {}", claim.note()),
    };
    let members = release.members.iter().map(Vec::len).min().unwrap_or(1);
    json!({
        "schema": "stitchback/release/v1",
        "tool": concat!("stitchback ", env!("CARGO_PKG_VERSION")),
        "pipeline": pipeline,
        "claim": {
            "kind": claim.kind(),
            "mu": claim.mu(),
            "epsilon": claim.epsilon(delta),
            "delta": claim.epsilon(delta).map(|_| delta),
            "sigma": claim.sigma(),
            "sensitivity": claim.sensitivity,
            "implied": claim.implied,
            "note": claim.note(),
        },
        "adjacency": claim.adjacency,
        "unit_of_privacy": claim.unit_of_privacy,
        "releases": claim.releases,
        "seeded": seeded,
        "sampling": sampling(pipeline),
        "private": private,
        "status": status,
        "members": members,
        // Groups are public under the guarantee; single rows need no list.
        "groups": (members > 1).then_some(&release.members),
        "rows": release.vectors.len(),
        "dim": release.vectors.dim(),
        "warnings": claim.warnings,
    })
}

/// How the noise was drawn, in words.
fn sampling(pipeline: &Pipeline) -> &'static str {
    if !pipeline.has_noise() {
        "no noise"
    } else if pipeline.on_grid().is_ok_and(|exact| exact == *pipeline) {
        "exact integers on a grid; the time of a draw is not hidden"
    } else {
        "floating point, research-grade: low bits are not hardened; `--secure` draws on a grid"
    }
}
