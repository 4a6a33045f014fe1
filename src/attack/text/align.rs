//! Few-shot alignment: leaked pairs take releases into a space of the attacker's own, from where a decoder writes.

use super::decoder::{Candidate, Decoder, Pairing, Writer};
use super::lexicon::Retrieval;
use super::own_space::OwnSpace;
use super::search::Search;
use crate::attack::denoise::Denoising;
use crate::attack::linear::{self, Cholesky, add_to_diagonal};
use crate::attack::recover::{self, LinearMap};
use crate::attack::{Attack, Curve, Error, Guess, Inverter, Knowledge, Progress, Surrogate, View, adapt::Adaptation};
use crate::encode::{Embeddings, Encoder};
use crate::protect::{Gaussian, Pipeline};
use crate::seed;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Learns a linear map from leaked pairs of release and text into a space that it can write from.
///
/// With its own space (words, or a public encoder's; no query to the victim) it stands for a thief of a vector database whose
/// encoder is unknown. With the victim's space it stands for one who can query the encoder but lacks a key: the map then undoes
/// the secret transform. Whatever the pipeline does to vectors is inside the pairs, so the attack is adaptive as it
/// stands.
///
/// # Formula
/// `a = E[o | y]` by ridge regression ([`recover::ridge_loo`]) from the released `y` to the vectors `o` of the leaked
/// texts. What the map misses on left-out pairs, `mean |o - a|^2`, is matched by isotropic noise of standard deviation
/// `s` on `o`; with mean `m` and covariance `S` of the attacker's own vectors, `z = a + s^2 S^-1 (a - m)` is the noisy
/// vector whose Wiener estimate is `a`. The decoder is fitted to such noise, and the guess is
/// `argmax_h (z.o_h - |o_h|^2 / 2) / s^2 + f log p(h | a)` over its samples and the nearest own texts, `f` = `fluency`.
///
/// # Source
/// ALGEN (Chen et al. 2025): aligner and few leaked pairs. Differs: a latent semantic space instead of a pretrained
/// language model's, a ridge chosen by left-out pairs, a decoder that knows how much the alignment misses, and retrieved
/// texts among the candidates; and a [`Search`] may go on from there, for which a key that the pairs give away is no
/// protection at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Align {
    /// Leaked pairs: the first so many auxiliary records with what the victim released of them.
    pub pairs: usize,
    /// The space that the decoder writes from.
    pub space: Space,
    /// Coordinates of the attacker's own space.
    pub dim: usize,
    /// Own texts among the candidates of each target.
    pub nearest: usize,
    /// Weight of the decoder's log-probability beside the likelihood.
    pub fluency: f64,
    /// Queries, to the encoder of the space, of a search that goes on from the decoder's guesses; 0 for none.
    pub search_queries: usize,
    /// Targets read; 0 for all.
    pub targets: usize,
    /// The decoder.
    pub decoder: Decoder,
}

/// A space that the attacker can encode its own texts into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// Words of its own texts ([`OwnSpace`]): no query to the victim encoder.
    #[default]
    Own,
    /// That of the public encoder which the study names as `encode.surrogate`: no query to the victim encoder either.
    Surrogate,
    /// The victim encoder's, by queries: what is missing is the secret between its vectors and the releases.
    Victim,
}

impl Default for Align {
    fn default() -> Self {
        Self {
            pairs: 1000,
            space: Space::Own,
            dim: 320,
            nearest: 16,
            fluency: 0.01,
            search_queries: 0,
            targets: 0,
            decoder: Decoder::default(),
        }
    }
}

impl Align {
    /// The search that goes on where the alignment ends, if one does.
    fn search(&self) -> Option<Search> {
        let (queries, decoder) = (self.search_queries, self.decoder.clone());
        (queries > 0).then(|| Search { queries, decoder, ..Search::default() })
    }

    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        let mut problems = self.decoder.check();
        for (ok, what) in [
            (self.pairs >= 1, "`pairs` must be at least 1"),
            ((2..=1024).contains(&self.dim), "`dim` must lie in 2 ..= 1024"),
            (self.fluency >= 0.0 && self.fluency.is_finite(), "`fluency` must not be negative"),
        ] {
            if !ok {
                problems.push(what.to_owned());
            }
        }
        problems
    }
}

impl Attack for Align {
    fn needs(&self) -> Knowledge {
        let encoder = self.space == Space::Victim;
        Knowledge { auxiliary: true, pipeline: false, encoder, released: true, leaked_pairs: self.pairs }
    }

    fn fit<'a>(&self, view: &'a View<'a>, _: &str, progress: &dyn Progress) -> Result<Box<dyn Inverter + 'a>, Error> {
        let k = self.pairs.min(view.leaked.len());
        if k == 0 {
            return Err(Error::Needs {
                attack: "align",
                what: "leaked pairs of auxiliary text and release".to_owned(),
            });
        }
        let room = Room::open(self, view)?;
        let leaked = view.leaked.select(&(0..k).collect::<Vec<_>>());
        let channel = Channel::fit(&leaked, &room.clean)?;
        let writer = room.inside(&channel, |inner, adaptation| {
            Writer::train(inner, adaptation, &self.decoder, Pairing::True, progress)
        })?;
        let learning = learning_curve(&leaked, &room.clean);
        let search = self.search();
        let asks_the_victim = self.space == Space::Victim;
        let Self { nearest, fluency, .. } = *self;
        Ok(Box::new(Fitted { room, channel, writer, learning, search, nearest, fluency, asks_the_victim }))
    }
}

/// The attacker's side of the alignment: its texts in the space that it writes from.
struct Room<'a> {
    view: &'a View<'a>,
    own: Option<OwnSpace>,
    /// The encoder of the space, where others made it.
    lent: Option<&'a dyn Encoder>,
    clean: Embeddings,
    inputs: String,
}

impl<'a> Room<'a> {
    fn open(params: &Align, view: &'a View<'a>) -> Result<Self, Error> {
        let lent = |encoder: &'a dyn Encoder, clean: &Embeddings, inputs| Self {
            view,
            own: None,
            lent: Some(encoder),
            clean: clean.clone(),
            inputs,
        };
        match (params.space, view.surrogate) {
            (Space::Victim, _) => return Ok(lent(view.encoder, view.clean, view.inputs.clone())),
            (Space::Surrogate, Some(Surrogate { encoder, clean })) => {
                return Ok(lent(encoder, clean, format!("{} by {}", view.inputs, encoder.info().name)));
            }
            (Space::Surrogate, None) => {
                let what = "an encoder of its own; name a public one as `encode.surrogate`".to_owned();
                return Err(Error::Needs { attack: "align", what });
            }
            (Space::Own, _) => {}
        }
        let texts: Vec<&str> = view.auxiliary.iter().map(|r| r.text.as_str()).collect();
        let inputs = format!("{} own space of {}", view.inputs, params.dim);
        let own = OwnSpace::fit(&texts, params.dim, &mut seed::stream(view.seed, &inputs, "range finder"))?;
        Ok(Self { view, clean: own.encode(&texts)?, own: Some(own), lent: None, inputs })
    }

    fn encoder(&self) -> &dyn Encoder {
        let own = self.own.as_ref().map(|own| own as &dyn Encoder);
        own.or(self.lent).expect("a space is the attacker's own or lent")
    }

    /// Runs `work` on the view from inside the space: clean vectors, and a release that differs from them by noise.
    fn inside<T>(
        &self,
        channel: &Channel,
        work: impl FnOnce(&View, &Adaptation) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let none = Embeddings::empty(self.clean.dim());
        let inner = View {
            clean: &self.clean,
            pipeline: &channel.pipeline,
            leaked: &none,
            releases: 1,
            denoising: Denoising::Wiener,
            encoder: self.encoder(),
            inputs: self.inputs.clone(),
            fingerprint: format!("{} {} {}", self.view.fingerprint, self.inputs, channel.pipeline),
            ..*self.view
        };
        let adaptation = Adaptation::fit(&inner)?;
        work(&inner, &adaptation)
    }
}

/// What stands between the attacker's vectors and the releases, as noise on its own vectors.
struct Channel {
    map: LinearMap,
    /// Takes an aligned vector to the noisy vector whose denoised form it is; `None` without noise.
    widen: Option<LinearMap>,
    pipeline: Pipeline,
}

impl Channel {
    /// Below this standard deviation a coordinate's noise is too small to tell from rounding, and there is none.
    const LEAST: f64 = 3e-3;
    /// An alignment that explains less than this share of the variance is treated as if it explained so much.
    const LEAST_EXPLAINED: f64 = 0.02;

    fn fit(leaked: &Embeddings, clean: &Embeddings) -> Result<Self, Error> {
        let own = clean.select(&(0..leaked.len()).collect::<Vec<_>>());
        let fit = recover::ridge_loo(leaked, &own);
        let missed = squared_distance(&fit.left_out, &own);
        let d = clean.dim();
        let (mean, cov) = linear::moments(clean);
        let sigma = equivalent_sigma(&cov, d, missed, Self::LEAST_EXPLAINED);
        if sigma < Self::LEAST {
            return Ok(Self {
                map: fit.map,
                widen: None,
                pipeline: Pipeline::new(vec![crate::protect::Identity.into()])?,
            });
        }
        let trace: f64 = (0..d).map(|i| cov[i * d + i]).sum();
        let mut weights = inverse_plus(&cov, d, 1e-6 * trace / d as f64);
        for w in &mut weights {
            *w *= sigma * sigma;
        }
        add_to_diagonal(&mut weights, d, 1.0);
        let pipeline = Pipeline::new(vec![Gaussian::Given { sigma }.into()])?;
        Ok(Self { map: fit.map, widen: Some(LinearMap::about(weights, mean)), pipeline })
    }

    fn receive(&self, released: &Embeddings) -> Embeddings {
        let aligned = self.map.apply(released);
        self.widen.as_ref().map_or_else(|| aligned.clone(), |widen| widen.apply(&aligned))
    }
}

/// The isotropic noise under which a Wiener filter would miss as much.
///
/// # Formula
/// The root `s` of `s^2 tr(S (S + s^2 I)^-1) = missed`, by bisection; `missed` is at most `1 - least_explained` of `tr S`.
fn equivalent_sigma(cov: &[f64], d: usize, missed: f64, least_explained: f64) -> f64 {
    let trace: f64 = (0..d).map(|i| cov[i * d + i]).sum();
    let missed = missed.min((1.0 - least_explained) * trace);
    let misses = |variance: f64| {
        let inverse = inverse_plus(cov, d, variance);
        let left: f64 = (0..d).map(|i| inverse[i * d + i]).sum();
        variance * (d as f64 - variance * left)
    };
    // Missing a share q of each direction takes noise of q / (1 - q) times its variance: the bracket holds every share.
    let (mut low, mut high) = (1e-9 * trace, 1e3 * trace);
    for _ in 0..24 {
        let middle = (low * high).sqrt();
        if misses(middle) < missed {
            low = middle;
        } else {
            high = middle;
        }
    }
    low.sqrt()
}

fn inverse_plus(cov: &[f64], d: usize, ridge: f64) -> Vec<f64> {
    let mut matrix = cov.to_vec();
    add_to_diagonal(&mut matrix, d, ridge.max(f64::MIN_POSITIVE));
    let factor = loop {
        if let Some(factor) = Cholesky::new(&matrix, d) {
            break factor;
        }
        // Rounding in the covariance; a little more on its diagonal always makes it definite.
        let trace: f64 = (0..d).map(|i| matrix[i * d + i]).sum();
        add_to_diagonal(&mut matrix, d, (1e-9 * trace).max(1e-12));
    };
    recover::inverse(&factor, d)
}

fn squared_distance(a: &Embeddings, b: &Embeddings) -> f64 {
    let total: f64 = a.values().iter().zip(b.values()).map(|(x, y)| f64::from(x - y).powi(2)).sum();
    total / a.len().max(1) as f64
}

/// Mean cosine between aligned releases and the vectors of their texts, against the pairs that the map was learnt from.
///
/// At most 200 of the leaked pairs, and at most a fifth, are held out; the last point is the map from all pairs, on pairs left out one at a
/// time.
fn learning_curve(leaked: &Embeddings, clean: &Embeddings) -> Curve {
    let k = leaked.len();
    let held_out: Vec<usize> = (k - (k / 5).min(200)..k).collect();
    let rows = |n: usize| (0..n).collect::<Vec<_>>();
    let (seen, truth) = (leaked.select(&held_out), clean.select(&held_out));
    let mut points: Vec<(f64, f64)> = [1, 10, 100, 300, 1000, 5000]
        .into_iter()
        .filter(|&n| !held_out.is_empty() && n <= k - held_out.len() && n < k)
        .map(|n| {
            let map = recover::ridge_loo(&leaked.select(&rows(n)), &clean.select(&rows(n))).map;
            (n as f64, mean_cosine(&map.apply(&seen), &truth))
        })
        .collect();
    let all = recover::ridge_loo(leaked, &clean.select(&rows(k)));
    points.push((k as f64, mean_cosine(&all.left_out, clean)));
    Curve {
        title: "cosine of aligned releases to their texts in the attacker's space".to_owned(),
        x_label: "leaked pairs".to_owned(),
        points,
    }
}

/// Over the rows of `a`; a row of zeros has cosine 0.
fn mean_cosine(a: &Embeddings, b: &Embeddings) -> f64 {
    let inner = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(p, q)| f64::from(*p) * f64::from(*q)).sum::<f64>();
    let cosine = |(x, y): (&[f32], &[f32])| inner(x, y) / (inner(x, x) * inner(y, y)).sqrt().max(f64::MIN_POSITIVE);
    a.rows().zip(b.rows()).map(cosine).sum::<f64>() / a.len().max(1) as f64
}

struct Fitted<'a> {
    room: Room<'a>,
    channel: Channel,
    writer: Writer,
    learning: Curve,
    search: Option<Search>,
    nearest: usize,
    fluency: f64,
    asks_the_victim: bool,
}

impl Fitted<'_> {
    fn guess(
        &self,
        adaptation: &Adaptation,
        own: &Retrieval,
        z: &[f32],
        written: Vec<Candidate>,
    ) -> Result<Guess, Error> {
        let mut candidates = written;
        let retrieved: Vec<&str> =
            own.nearest(z, self.nearest).into_iter().map(|(i, _)| self.room.view.auxiliary[i].text.as_str()).collect();
        let log_probs = self.writer.log_probs(adaptation, Some(z), &retrieved)?;
        candidates.extend(
            retrieved.into_iter().zip(log_probs).map(|(text, log_prob)| Candidate { text: text.to_owned(), log_prob }),
        );
        let texts: Vec<&str> = candidates.iter().map(|c| c.text.as_str()).collect();
        let vectors = self.room.encoder().encode(&texts)?;
        let best = candidates
            .iter()
            .zip(vectors.rows())
            .map(|(c, o)| (adaptation.log_likelihood(z, o) + self.fluency * c.log_prob, c))
            .reduce(|a, b| if b.0 > a.0 { b } else { a });
        // Its own space costs no queries to the victim.
        let queries = if self.asks_the_victim { texts.len() } else { 0 };
        Ok(best.map_or_else(
            || Guess::new(String::new(), f64::NEG_INFINITY),
            |(score, c)| Guess { queries, ..Guess::new(c.text.clone(), score) },
        ))
    }
}

impl Inverter for Fitted<'_> {
    fn invert(&self, released: &Embeddings, task: &str, progress: &dyn Progress) -> Result<Vec<Guess>, Error> {
        let received = self.channel.receive(released);
        self.room.inside(&self.channel, |inner, adaptation| {
            if let Some(search) = &self.search {
                let mut guesses = search.fit(inner, task, progress)?.invert(&received, task, progress)?;
                if !self.asks_the_victim {
                    for guess in &mut guesses {
                        guess.queries = 0;
                    }
                }
                return Ok(guesses);
            }
            let written = self.writer.candidates(adaptation, &received, inner.seed, task, progress)?;
            let own = Retrieval::new(&self.room.clean);
            written
                .into_par_iter()
                .enumerate()
                .map(|(i, candidates)| self.guess(adaptation, &own, received.row(i), candidates))
                .collect()
        })
    }

    fn origin(&self) -> Option<String> {
        self.writer.origin()
    }

    fn curves(&self) -> Vec<Curve> {
        let mut curves = self.writer.curves().to_vec();
        curves.push(self.learning.clone());
        curves
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Quiet;
    use crate::data::Record;
    use crate::encode::Toy;

    const SUBJECTS: [&str; 10] =
        ["striker", "minister", "banker", "singer", "teacher", "doctor", "sailor", "farmer", "judge", "pilot"];
    const ACTS: [&str; 10] =
        ["praised", "blamed", "visited", "ignored", "called", "helped", "sued", "followed", "paid", "painted"];
    const OBJECTS: [&str; 6] = ["referee", "parliament", "museum", "neighbour", "village", "orchestra"];

    fn records() -> Vec<Record> {
        (0..600)
            .map(|i| {
                // 7 has no common factor with 600: every sentence once, in no order that a word follows.
                let at = i * 7 % 600;
                let text = format!("The {} {} the {}.", SUBJECTS[at % 10], ACTS[at / 10 % 10], OBJECTS[at / 100]);
                Record {
                    id: i.to_string(),
                    document: i.to_string(),
                    owner: None,
                    topic: None,
                    time: None,
                    text,
                    picture: None,
                }
            })
            .collect()
    }

    /// Guesses about the last 40 of 600 texts, by an attacker who owns the others and was leaked `pairs` of them.
    fn guesses(align: &Align, real: &str, leaked_under: &str) -> (Vec<Guess>, Vec<String>, Vec<Curve>) {
        let (toy, records) = (Toy::new(), records());
        let texts: Vec<&str> = records.iter().map(|r| r.text.as_str()).collect();
        let clean = toy.encode(&texts).expect("the toy reads any text");
        let release = |pipeline: &str, purpose: &str| {
            let pipeline: Pipeline = pipeline.parse().expect("valid");
            let released = pipeline.release(&clean, None, &mut seed::stream(1, "align", purpose));
            released.expect("finite rows").vectors
        };
        let first = |x: &Embeddings, n: usize| x.select(&(0..n).collect::<Vec<_>>());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let known = real.parse::<Pipeline>().expect("valid").as_known();
        let view = View {
            auxiliary: &records[..560],
            clean: &first(&clean, 560),
            strata: &[0; 560],
            pipeline: &known,
            leaked: &first(&release(leaked_under, "leaked"), align.needs().leaked_pairs),
            releases: 1,
            denoising: Denoising::Wiener,
            encoder: &toy,
            prior: None,
            surrogate: Some(Surrogate { encoder: &toy, clean: &first(&clean, 560) }),
            seed: 1,
            inputs: "align test".to_owned(),
            fingerprint: format!("align test {real}"),
            workshop: folder.path(),
        };
        let fitted = align.fit(&view, "task", &Quiet).expect("fits");
        let targets = release(real, "targets").select(&(560..600).collect::<Vec<_>>());
        let guesses = fitted.invert(&targets, "task", &Quiet).expect("guesses");
        (guesses, texts[560..].iter().map(|&t| t.to_owned()).collect(), fitted.curves())
    }

    /// Retrieval is what the map decides; the decoder is only as large as the machinery needs.
    fn small(space: Space) -> Align {
        let decoder = Decoder {
            steps: 2,
            adapt_steps: 1,
            batch: 8,
            d_model: 16,
            heads: 2,
            layers: 1,
            vocabulary: 300,
            samples: 1,
            ..Decoder::default()
        };
        Align { pairs: 300, space, dim: 64, nearest: 4, fluency: 0.0, search_queries: 0, targets: 0, decoder }
    }

    /// Share of the three content words that a guess has in common with its original.
    fn words_read(guesses: &[Guess], texts: &[String]) -> f64 {
        let words = |text: &str| -> Vec<String> {
            let all = text.trim_end_matches('.').split(' ').map(str::to_owned);
            all.filter(|w| !w.eq_ignore_ascii_case("the")).collect()
        };
        let share = |(guess, text): (&Guess, &String)| {
            let read = words(&guess.text);
            words(text).iter().filter(|w| read.contains(w)).count() as f64 / 3.0
        };
        guesses.iter().zip(texts).map(share).sum::<f64>() / texts.len() as f64
    }

    #[test]
    fn leaked_pairs_undo_a_secret_rotation_and_pairs_of_another_key_say_nothing() {
        for space in [Space::Own, Space::Surrogate, Space::Victim] {
            let align = small(space);
            let real = "clip(l2=1) | rotate(key=7)";
            let (right, texts, curves) = guesses(&align, real, real);
            // Targets are not among the attacker's texts, so that two of three words are the best a retrieved text can do.
            let read = words_read(&right, &texts);
            assert!(read > 0.55, "{space:?}: {read}");
            let (wrong, texts, _) = guesses(&align, real, "clip(l2=1) | rotate(key=8)");
            let guessed = words_read(&wrong, &texts);
            assert!(guessed < 0.35, "{space:?}, another key: {guessed}");
            let learning = curves.last().expect("the learning curve is last");
            assert_eq!(learning.points.iter().map(|p| p.0).collect::<Vec<_>>(), [1.0, 10.0, 100.0, 300.0]);
            assert!(learning.points[3].1 > learning.points[0].1 + 0.2, "{:?}", learning.points);
            let queries: usize = right.iter().map(|g| g.queries).sum();
            assert_eq!(queries == 0, space != Space::Victim, "an own space costs no queries to the victim");
        }
    }

    /// Retrieval ends at two of three words; behind an undone rotation a search goes on to the third.
    #[test]
    fn a_search_reads_on_where_the_alignment_opened_the_space() {
        let real = "clip(l2=1) | rotate(key=7)";
        let (guesses, texts, _) = guesses(&Align { search_queries: 600, ..small(Space::Victim) }, real, real);
        let read = words_read(&guesses, &texts);
        assert!(read > 0.9, "{read}");
        assert!(guesses.iter().all(|g| g.queries > 0 && g.queries <= 600 + 64));
    }

    #[test]
    fn an_attacker_without_leaked_pairs_is_refused() {
        let (toy, records) = (Toy::new(), records());
        let clean = toy.encode(&[records[0].text.as_str()]).expect("encodes");
        let view = View {
            auxiliary: &records[..1],
            clean: &clean,
            strata: &[0],
            pipeline: &"identity".parse().expect("valid"),
            leaked: &Embeddings::empty(clean.dim()),
            releases: 1,
            denoising: Denoising::Wiener,
            encoder: &toy,
            prior: None,
            surrogate: None,
            seed: 1,
            inputs: String::new(),
            fingerprint: String::new(),
            workshop: std::path::Path::new("unused"),
        };
        let error = Align::default().fit(&view, "", &Quiet).err().expect("nothing was leaked");
        assert!(error.to_string().contains("needs leaked pairs"), "{error}");
    }

    /// For equal variances in every direction, missing a share `q` takes noise of `q / (1 - q)` times the variance.
    #[test]
    fn the_equivalent_noise_misses_what_the_alignment_missed() {
        let d = 8;
        let cov: Vec<f64> = (0..d * d).map(|at| if at / d == at % d { 0.5 } else { 0.0 }).collect();
        for share in [0.1, 0.5, 0.9] {
            let sigma = equivalent_sigma(&cov, d, share * 4.0, 0.02);
            assert!((sigma * sigma / (0.5 * share / (1.0 - share)) - 1.0).abs() < 1e-3, "{share}: {sigma}");
        }
        let nothing = equivalent_sigma(&cov, d, 5.0, 0.02);
        assert!((nothing * nothing / (0.5 * 0.98 / 0.02) - 1.0).abs() < 1e-3, "{nothing}");
    }
}
