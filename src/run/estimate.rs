//! How long a run will take, told before it starts.

use super::bench::Bench;
use super::cell::tried;
use crate::Error;
use crate::attack::AttackConfig;
use crate::attack::image::painter;
use crate::attack::text::decoder::Decoder;
use crate::attack::text::kept::{Kept, Role};
use crate::data::Picture;
use crate::encode::Encoder;
use crate::nn::kernel::{Layout, matmul};
use std::time::Instant;

/// Share of the machine's matrix speed that training reaches, from the benchmark of the train step.
const TRAINING_EFFICIENCY: f64 = 0.7;

/// Share of it that writing texts piece by piece reaches: few rows at a time, and a draw from the whole vocabulary for each.
const WRITING_EFFICIENCY: f64 = 0.17;

/// Pieces of a text, as news sentences have them.
const PIECES: usize = 28;

/// What a query of a search takes, in times of encoding one text: proposals, the language model and new starts come on top.
const SEARCHING: f64 = 1.4;

/// One sentence: how much is left to do and how long that takes on this machine, from two short probes.
pub fn sentence(bench: &Bench, open: usize, total: usize) -> Result<String, Error> {
    if open == 0 {
        return Ok(format!("all {total} cells are finished; writing the records"));
    }
    let seconds = seconds(bench)? * open as f64 / total as f64;
    let pace = if seconds < 90.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) };
    Ok(format!("{open} of {total} cells to run, about {pace} on {} threads", rayon::current_num_threads()))
}

/// Minutes that all cells of the study would take on this machine.
pub fn minutes(bench: &Bench) -> Result<f64, Error> {
    Ok(seconds(bench)? / 60.0)
}

/// Seconds that all cells of a study of pictures would take.
fn seconds_of_pictures(bench: &Bench) -> Result<f64, Error> {
    /// Forward passes that one step of a descent costs, and what small convolutions reach of the machine's matrix speed.
    const DESCENT: f64 = 3.5;
    const EFFICIENCY: f64 = 0.3;
    let study = bench.study;
    let pictures: Vec<&Picture> = bench.auxiliary.records.iter().filter_map(|r| r.picture.as_ref()).take(48).collect();
    let pace = |encoder: &dyn Encoder| -> Result<f64, Error> {
        encoder.encode_pictures(&pictures[..pictures.len().min(8)])?;
        let clock = Instant::now();
        encoder.encode_pictures(&pictures)?;
        Ok(clock.elapsed().as_secs_f64() / pictures.len().max(1) as f64)
    };
    let encode_s = pace(bench.victim)?;
    let mut look_s = encode_s;
    for judge in &bench.judges {
        look_s += pace(*judge)?;
    }
    // A descent goes through the surrogate as well.
    let mut descent_s = DESCENT * encode_s;
    if let Some((surrogate, _)) = &bench.surrogate {
        descent_s += DESCENT * pace(*surrogate)?;
    }
    let flops = rayon::current_num_threads() as f64 * flops_per_second() * EFFICIENCY;
    let protections = study.protect.len() as f64;
    let mut cell_s = 0.0;
    for attack in study.attack.iter().map(|a| &a.config) {
        let (n, rehearsed) = tried([attack.targets(), 0], study.data.targets, study.data.validation);
        let faced = n + rehearsed;
        if !attack.is_probe() {
            // Leaks and named objects look twice.
            cell_s += 2.0 * faced as f64 * look_s;
        }
        let painter = match attack {
            AttackConfig::Blind(b) => Some(b.image_decoder()),
            AttackConfig::ImageDecoder(d) => Some(d.clone()),
            _ => None,
        };
        if let Some(d) = painter {
            let steps = d.adapt_steps as f64 + d.steps as f64 / protections;
            let each = painter::multiplications(bench.victim.info().dim, study.data.side_px as usize, d.channels);
            cell_s += steps * d.batch as f64 * 6.0 * each / flops;
        }
        if let AttackConfig::Invert(i) = attack {
            cell_s += (faced * i.starts * i.steps) as f64 * descent_s;
        }
        if let AttackConfig::Generative(g) = attack {
            // The autoencoder's way down costs about as much as its way up; the flow is small beside them.
            let each = 2.0 * painter::multiplications(g.latent, study.data.side_px as usize, g.channels);
            cell_s += g.prior_steps as f64 * 64.0 * 6.0 * each / flops / protections;
            cell_s += g.flow_steps as f64 * 256.0 * 6.0 * 1e6 / flops;
            cell_s += (faced * g.samples) as f64 * encode_s;
            cell_s += (faced * (g.steps + g.polish)) as f64 * descent_s;
        }
    }
    Ok(cell_s * protections * study.seeds.len() as f64)
}

/// Seconds that all cells of the study would take.
fn seconds(bench: &Bench) -> Result<f64, Error> {
    if bench.shows_pictures() {
        return seconds_of_pictures(bench);
    }
    let study = bench.study;
    let texts: Vec<&str> = bench.auxiliary.records.iter().take(192).map(|r| r.text.as_str()).collect();
    let pace = |encoder: &dyn Encoder| -> Result<f64, Error> {
        encoder.encode(&texts[..texts.len().min(16)])?;
        let clock = Instant::now();
        encoder.encode(&texts)?;
        Ok(clock.elapsed().as_secs_f64() / texts.len().max(1) as f64)
    };
    let encode_s = pace(bench.victim)?;
    let judge_s = pace(bench.judges[0])?;
    let flops = rayon::current_num_threads() as f64 * flops_per_second();
    let mut cell_s = 0.0;
    let mut trained = Vec::new();
    for attack in study.attack.iter().map(|a| &a.config) {
        let faced = study.protect.iter().map(|p| {
            let (n, rehearsed) = tried([attack.targets(), p.targets], study.data.targets, study.data.validation);
            (n + rehearsed) as f64
        });
        let faced = faced.sum::<f64>() / study.protect.len() as f64;
        if !attack.is_probe() {
            cell_s += faced * (judge_s + encode_s);
        }
        let (mut further, mut written) = (0, 0.0);
        let (decoder, source) = match attack {
            AttackConfig::Decoder(d) => (Some(d.clone()), "releases"),
            AttackConfig::Corrector(c) => {
                // A third of what is written was written before.
                let (rewrites, embedded) = c.most_rewrites();
                cell_s += 0.7 * faced * embedded as f64 * encode_s;
                // Hypotheses for the auxiliary texts that are read and not spoilt in their place, spoilt texts, and a
                // training on texts of twice the length.
                let read = (c.steps * c.batch) as f64;
                let drafts = ((1.0 - c.spoilt) * read).min(study.data.auxiliary as f64);
                cell_s += drafts * encode_s;
                cell_s += c.spoilt * read * encode_s;
                written = faced * rewrites as f64 + drafts;
                further = 2 * c.steps;
                let steps = c.decoder.steps + c.folds * c.fold_steps;
                (Some(Decoder { steps, ..c.decoder.clone() }), "corrections")
            }
            AttackConfig::Search(s) => {
                cell_s += SEARCHING * faced * s.queries as f64 * encode_s;
                (Some(s.decoder.clone()), "releases")
            }
            AttackConfig::Align(a) => {
                cell_s += SEARCHING * faced * a.search_queries as f64 * encode_s;
                (Some(a.decoder.clone()), "own space")
            }
            AttackConfig::Slots(s) => {
                // Directions are embedded once for all protections; filled forms are longer than their carriers.
                let once = 8000.0 * s.carriers as f64 + 1500.0;
                let known = 6.0 * s.known as f64 * s.shortlist as f64;
                cell_s += 1.4 * encode_s * (once / study.protect.len() as f64 + known);
                (None, "")
            }
            AttackConfig::Blind(b) => (Some(b.decoder()), "permuted"),
            _ => (None, ""),
        };
        if let Some(mut d) = decoder {
            // A kept attacker brings its own shape.
            if let Ok(Some(kept)) = Kept::find(&d.pretrained, bench.victim.info(), Role::Decoder) {
                let shape = kept.shape();
                (d.d_model, d.layers, d.slots, d.vocabulary) = (shape.d_model, shape.layers, shape.slots, shape.vocab);
                d.steps = d.steps_from(true);
            }
            let sampled = std::mem::take(&mut d.samples);
            if !trained.contains(&(d.clone(), source)) {
                let tokens = (d.batch * (PIECES + d.slots)) as f64;
                let per_token = 6.0 * weights(&d) as f64;
                let steps = d.adapt_steps as f64 + d.steps as f64 / study.protect.len() as f64 + further as f64;
                cell_s += steps * tokens * per_token / (flops * TRAINING_EFFICIENCY);
                trained.push((d.clone(), source));
            }
            if source == "releases" {
                let drawn = faced * sampled as f64;
                cell_s += 0.8 * drawn * encode_s;
                written += drawn;
            }
            cell_s += written * (2 * PIECES * weights(&d)) as f64 / (flops * WRITING_EFFICIENCY);
        }
    }
    Ok(cell_s * (study.protect.len() * study.seeds.len()) as f64)
}

/// Weights that every piece of a text is multiplied with.
fn weights(d: &Decoder) -> usize {
    12 * d.d_model * d.d_model * d.layers + d.d_model * d.vocabulary
}

/// Matrix speed of one thread at a size like the decoder's.
fn flops_per_second() -> f64 {
    let (m, k, n) = (1024, 128, 512);
    let (a, b, mut c) = (vec![0.5_f32; m * k], vec![0.25_f32; k * n], vec![0.0_f32; m * n]);
    let mut once = || matmul(&mut c, &a, Layout::Plain, &b, Layout::Plain, m, k, n, false);
    once();
    let clock = Instant::now();
    for _ in 0..8 {
        once();
    }
    8.0 * 2.0 * (m * k * n) as f64 / clock.elapsed().as_secs_f64().max(1e-9)
}
