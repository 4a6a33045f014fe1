//! A sequence of stages: its text, its claim, its releases.

use super::arguments::Problems;
use super::claim::{Claim, NoiseModel, State};
use super::stage::{Release, StageConfig};
use super::{
    Center, Clip, DEFAULT_DELTA, DiscreteGaussian, DiscreteLaplace, Djw, Error, Gaussian, Identity,
    JohnsonLindenstrauss, LaplaceL1, LaplaceL2, Learned, Mahalanobis, Mask, Normalize, Pca, PrivUnit, PrivUnitG,
    Process, Prototype, Purkayastha, Quantize, Rotate, ScalePerturb, Shuffle, Sign, TopicMean, Vmf,
};
use crate::encode::Embeddings;
use serde::{Deserialize, Serialize};

/// A protection: stages in order, checked.
///
/// # Formula
/// `pipeline := stage ("|" stage)*`, `stage := name ["(" key "=" value ("," key "=" value)* ")"]`. The printed form writes
/// every parameter, in declared order; parsing it gives the same pipeline. It is also the serde form.
///
/// # Example
/// ```
/// use stitchback::protect::Pipeline;
/// let pipeline: Pipeline = "clip(l2=1)|prototype( members=20 )|gaussian(epsilon=1)".parse()?;
/// assert_eq!(pipeline.to_string(), "clip(l2=1) | prototype(members=20) | gaussian(epsilon=1, delta=1e-5)");
/// let claim = pipeline.claim();
/// assert!((claim.sigma().unwrap() - 0.373_063_163_48).abs() < 1e-9);
/// assert!((claim.epsilon(1e-5).unwrap() - 1.0).abs() < 1e-9);
/// assert_eq!(claim.unit_of_privacy, "one record among the 20 averaged into a prototype");
/// # Ok::<(), stitchback::protect::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pipeline {
    stages: Vec<StageConfig>,
}

impl Pipeline {
    /// Checks `stages` and keeps them.
    ///
    /// # Errors
    /// Every problem at once: parameters out of range, a stage that cannot stand where it stands.
    pub fn new(stages: Vec<StageConfig>) -> Result<Self, Error> {
        let pipeline = Self { stages };
        let problems = pipeline.check();
        if problems.is_empty() { Ok(pipeline) } else { Err(Error::pipeline(&pipeline.to_string(), &problems)) }
    }

    /// Reads a pipeline from its text.
    ///
    /// # Errors
    /// Every problem at once; an unknown stage or key lists the near ones.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.trim().is_empty() {
            let remedy = "has no stage; write `identity` to release vectors as they are".to_owned();
            return Err(Error::pipeline(text, &[remedy]));
        }
        let (mut stages, mut problems) = (Vec::new(), Problems::default());
        for stage in text.split('|') {
            match StageConfig::parse(stage) {
                Ok(stage) => stages.push(stage),
                Err(more) => problems.extend(more),
            }
        }
        if problems.is_empty() {
            let pipeline = Self { stages };
            problems = pipeline.check().into();
            if problems.is_empty() {
                return Ok(pipeline);
            }
        } else {
            problems.extend(stages.iter().flat_map(StageConfig::check).collect::<Vec<_>>().into());
        }
        Err(problems.error(text))
    }

    /// Every problem of the pipeline; none, once it was made by [`Pipeline::new`] or [`Pipeline::parse`].
    pub fn check(&self) -> Vec<String> {
        if self.stages.is_empty() {
            return vec!["has no stage; `identity` releases vectors as they are".to_owned()];
        }
        let problems: Vec<String> = self.stages.iter().flat_map(StageConfig::check).collect();
        if !problems.is_empty() {
            return problems;
        }
        let mut state = State::raw();
        let mut misplaced = Vec::new();
        for config in &self.stages {
            match config.build(&state) {
                Ok(stage) => state = stage.guarantee(&state),
                Err(why) => misplaced.push(why),
            }
        }
        misplaced
    }

    /// The stages, in order.
    pub fn stages(&self) -> &[StageConfig] {
        &self.stages
    }

    /// True when the rows are released as they are.
    pub fn is_identity(&self) -> bool {
        self.stages.iter().all(|stage| matches!(stage, StageConfig::Identity(_)))
    }

    /// True when a released row stands for a group of records.
    pub fn has_groups(&self) -> bool {
        self.stages.iter().any(StageConfig::groups)
    }

    /// The same stages without the noise: what an attacker's denoiser takes for the signal.
    #[must_use]
    pub fn without_noise(&self) -> Self {
        let mut stages: Vec<StageConfig> = self.stages.iter().filter_map(StageConfig::without_noise).collect();
        if stages.is_empty() {
            stages.push(Identity.into());
        }
        Self { stages }
    }

    /// True when a stage has a parameter that only its user knows.
    pub fn has_secret(&self) -> bool {
        self.stages.iter().any(|stage| matches!(stage, StageConfig::Rotate(_)))
    }

    /// The pipeline that an attacker knows: every parameter but the secret ones, which are somebody else's.
    #[must_use]
    pub fn as_known(&self) -> Self {
        let known = |(place, stage): (usize, &StageConfig)| match stage {
            StageConfig::Rotate(rotate) => StageConfig::Rotate(rotate.as_known(place)),
            open => open.clone(),
        };
        Self { stages: self.stages.iter().enumerate().map(known).collect() }
    }

    /// The same protection with noise that is drawn exactly, on a grid: for releases that somebody will attack.
    ///
    /// # Errors
    /// Every stage whose noise has no exact sampler, and a pipeline without noise.
    pub fn on_grid(&self) -> Result<Self, Error> {
        let (mut stages, mut problems) = (Vec::new(), Vec::new());
        for stage in &self.stages {
            match stage.on_grid() {
                Ok(stage) => stages.push(stage),
                Err(why) => problems.push(why),
            }
        }
        if problems.is_empty() && !self.has_noise() {
            problems.push("adds no noise that could be drawn on a grid".to_owned());
        }
        if problems.is_empty() { Self::new(stages) } else { Err(Error::pipeline(&self.to_string(), &problems)) }
    }

    /// The same stages with noise of another standard deviation: an attacker's idea of noise that it was not told.
    #[must_use]
    pub fn with_sigma(&self, sigma: f64) -> Self {
        let mut stages = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            let quiet = stage.without_noise();
            if quiet.as_ref() == Some(stage) {
                stages.push(stage.clone());
                continue;
            }
            stages.extend(quiet);
            stages.push(Gaussian::Given { sigma }.into());
            if stage.redirects() {
                stages.push(Normalize.into());
            }
        }
        Self { stages }
    }

    /// What is known about the rows after the last stage, whatever their dimension.
    pub fn state(&self) -> State {
        self.fold(State::raw())
    }

    /// What is known about rows of `dim` coordinates after the last stage.
    pub fn state_at(&self, dim: usize) -> State {
        self.fold(State::raw_at(dim))
    }

    fn fold(&self, raw: State) -> State {
        self.stages.iter().fold(raw, |state, config| {
            config.build(&state).expect("a pipeline is checked when it is made").guarantee(&state)
        })
    }

    /// What the pipeline promises about one release.
    pub fn claim(&self) -> Claim {
        Claim::of(&self.state())
    }

    /// What the pipeline promises about one release of rows of `dim` coordinates.
    pub fn claim_at(&self, dim: usize) -> Claim {
        Claim::of(&self.state_at(dim))
    }

    /// The noise on released rows of `dim` coordinates as an attacker models it; `None` without noise, or without a closed
    /// form.
    pub fn noise_at(&self, dim: usize) -> Option<NoiseModel> {
        self.state_at(dim).noise_model()
    }

    /// True when two releases of the same rows differ.
    pub fn has_noise(&self) -> bool {
        self.stages.iter().any(StageConfig::is_noise)
    }

    /// The bound that the first stage with one puts on rows of `dim` coordinates; `None` without any.
    pub fn first_radius(&self, dim: usize) -> Option<f64> {
        let states = self.stages.iter().scan(State::raw_at(dim), |state, config| {
            *state = config.build(state).expect("a pipeline is checked when it is made").guarantee(state);
            Some(state.domain.radius())
        });
        states.flatten().next()
    }

    /// The noise that does not depend on the dimension; see [`Pipeline::noise_at`].
    pub fn noise(&self) -> Option<NoiseModel> {
        self.state().noise_model()
    }

    /// The delta at which outputs quote epsilon: the one that the pipeline was calibrated to, else `1e-5`.
    pub fn delta(&self) -> f64 {
        self.state().delta.unwrap_or(DEFAULT_DELTA)
    }

    /// Sends `clean` through every stage.
    ///
    /// # Shapes
    /// `(n, d)` in; `(n, d)` out, or about `(n / m, d)` after a prototype of `m` members. `strata`, one for each row,
    /// keeps prototypes inside their topic.
    ///
    /// # Errors
    /// When a value is not finite (the row is named), when `strata` has another length than `clean`, or when there are
    /// fewer rows than a prototype needs.
    pub fn release(
        &self,
        clean: &Embeddings,
        strata: Option<&[u32]>,
        rng: &mut dyn rand::Rng,
    ) -> Result<Release, Error> {
        all_finite(clean, "input")?;
        if let Some(strata) = strata.filter(|strata| strata.len() != clean.len()) {
            return Err(Error::Input(format!("{} strata for {} rows", strata.len(), clean.len())));
        }
        let mut release = Release {
            vectors: clean.clone(),
            members: (0..clean.len() as u32).map(|i| vec![i]).collect(),
            strata: strata.map(<[u32]>::to_vec),
            noise: None,
        };
        let mut state = State::raw_at(clean.dim());
        for config in &self.stages {
            let stage = config.build(&state).expect("a pipeline is checked when it is made");
            release = stage.apply(release, &mut *rng)?;
            state = stage.guarantee(&state);
        }
        all_finite(&release.vectors, "released")?;
        release.noise = state.noise_model();
        Ok(release)
    }
}

/// Stages may change rows in place, so that finite input and finite output are checked, not assumed.
pub(super) fn all_finite(vectors: &Embeddings, which: &str) -> Result<(), Error> {
    match vectors.rows().position(|row| row.iter().any(|v| !v.is_finite())) {
        None => Ok(()),
        Some(row) => Err(Error::Input(format!(
            "{which} row {row} holds a value that is not a finite `f32`; remove the record, or scale the vectors down"
        ))),
    }
}

impl std::fmt::Display for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, stage) in self.stages.iter().enumerate() {
            write!(f, "{}{stage}", if i == 0 { "" } else { " | " })?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Pipeline {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Pipeline {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Pipeline> for String {
    fn from(pipeline: Pipeline) -> Self {
        pipeline.to_string()
    }
}

macro_rules! stage_from_parameters {
    ($($stage:ident),*) => {$(
        impl From<$stage> for StageConfig {
            fn from(parameters: $stage) -> Self {
                StageConfig::$stage(parameters)
            }
        }
    )*};
}
stage_from_parameters!(
    Identity,
    Normalize,
    Clip,
    Center,
    Mask,
    JohnsonLindenstrauss,
    Pca,
    Learned,
    Quantize,
    Sign,
    Rotate,
    ScalePerturb,
    Prototype,
    TopicMean,
    Gaussian,
    LaplaceL1,
    LaplaceL2,
    Mahalanobis,
    Vmf,
    Purkayastha,
    PrivUnit,
    PrivUnitG,
    Djw,
    DiscreteGaussian,
    DiscreteLaplace,
    Shuffle,
    Process
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protect::{Domain, Guarantee, Sensitivity, account};
    use crate::seed;
    use proptest::prelude::*;

    fn state(pipeline: &str) -> State {
        Pipeline::parse(pipeline).expect("a valid pipeline").state()
    }

    fn mu(pipeline: &str) -> f64 {
        match state(pipeline).guarantee {
            Guarantee::Gdp { mu } => mu,
            other => panic!("`{pipeline}` promises {other:?}"),
        }
    }

    fn sensitivity(pipeline: &str) -> (f64, String) {
        let Sensitivity { l2, formula } = state(pipeline).sensitivity.expect("a bounded domain");
        (l2, formula)
    }

    fn why(pipeline: &str) -> String {
        let error = Pipeline::parse(pipeline).expect_err("an invalid pipeline");
        assert_eq!(error.exit(), crate::Exit::Usage);
        let text = error.to_string();
        text.strip_prefix(&format!("pipeline `{}`: ", pipeline.trim()))
            .expect("the text as given comes first")
            .to_owned()
    }

    // The typing table, one test for each row.

    #[test]
    fn identity_bounds_and_promises_nothing() {
        assert_eq!(state("identity"), State::raw());
        let claim = Pipeline::parse("identity").expect("valid").claim();
        assert_eq!((claim.mu(), claim.epsilon(1e-5), claim.sigma()), (None, None, None));
        assert_eq!(claim.note(), "the pipeline adds no noise");
    }

    #[test]
    fn clip_bounds_any_domain() {
        assert_eq!(state("clip(l2=0.5)").domain, Domain::L2 { radius: 0.5 });
        assert_eq!(sensitivity("clip(l2=0.5)"), (1.0, "2C".to_owned()));
        // A wider clip changes nothing, a narrower one counts; on the sphere only a radius below 1 does.
        assert_eq!(state("clip(l2=0.5) | clip(l2=3)"), state("clip(l2=0.5)"));
        assert_eq!(sensitivity("clip(l2=3) | clip(l2=0.5)").0, 1.0);
        assert_eq!(state("normalize | clip(l2=1)").domain, Domain::Sphere);
        assert_eq!(state("normalize | clip(l2=0.1)").domain, Domain::L2 { radius: 0.1 });
    }

    #[test]
    fn normalize_puts_rows_on_the_sphere() {
        assert_eq!(state("normalize").domain, Domain::Sphere);
        assert_eq!(sensitivity("normalize"), (2.0, "2".to_owned()));
        // Scaling a mean back to length 1 undoes what averaging bought.
        assert_eq!(sensitivity("clip(l2=1) | prototype(members=20) | normalize").0, 2.0);
    }

    #[test]
    fn prototype_divides_the_sensitivity_by_its_members() {
        assert_eq!(sensitivity("clip(l2=1) | prototype(members=20)"), (0.1, "2C/m".to_owned()));
        assert_eq!(sensitivity("normalize | prototype(members=4)"), (0.5, "2/m".to_owned()));
        assert_eq!(state("normalize | prototype(members=4)").domain, Domain::L2 { radius: 1.0 });
        // The clip is a contraction: it keeps what averaging bought.
        assert_eq!(sensitivity("clip(l2=1) | prototype(members=20) | clip(l2=1)").0, 0.1);
        assert_eq!(state("prototype(members=20)").sensitivity, None);
        assert_eq!(state("clip(l2=1) | prototype(members=2) | prototype(members=3)").members, 6);
    }

    #[test]
    fn gaussian_on_a_bounded_domain_promises_sensitivity_over_sigma() {
        assert_eq!(mu("clip(l2=3) | gaussian(sigma=2)"), 3.0);
        assert_eq!(mu("normalize | gaussian(sigma=2)"), 1.0);
        let after = state("clip(l2=1) | gaussian(sigma=2)");
        assert!(after.implied);
        assert_eq!(after.domain, Domain::Unbounded);
        let calibrated = state("clip(l2=1) | gaussian(epsilon=8, delta=1e-6)");
        assert!(!calibrated.implied);
        assert_eq!(calibrated.delta, Some(1e-6));
        let claim = Claim::of(&calibrated);
        assert!((claim.epsilon(1e-6).expect("a guarantee") - 8.0).abs() < 1e-9);
        assert!(claim.epsilon(1e-6).expect("a guarantee") <= 8.0 * (1.0 + 1e-12));
    }

    #[test]
    fn gaussian_on_an_unbounded_domain_promises_nothing_and_says_so() {
        let after = state("gaussian(sigma=2)");
        assert!(matches!(after.guarantee, Guarantee::None { .. }));
        assert_eq!(after.warnings.len(), 1);
        assert!(after.warnings[0].contains("put `clip(l2=1)`"), "{}", after.warnings[0]);
        // Clipping afterwards repairs nothing.
        assert!(matches!(state("gaussian(sigma=2) | clip(l2=1)").guarantee, Guarantee::None { .. }));
        assert!(matches!(state("prototype(members=20) | gaussian(sigma=2)").guarantee, Guarantee::None { .. }));
    }

    #[test]
    fn stages_after_noise_keep_the_guarantee() {
        for after in ["identity", "normalize", "clip(l2=0.1)", "prototype(members=20)", "rotate(key=7)"] {
            let pipeline = format!("clip(l2=1) | gaussian(sigma=2) | {after}");
            assert_eq!(mu(&pipeline), 1.0, "{pipeline}");
            assert_eq!(Pipeline::parse(&pipeline).expect("valid").claim().unit_of_privacy, "one record");
        }
    }

    #[test]
    fn noise_before_and_after_a_clip_reports_the_stronger_guarantee() {
        assert_eq!(mu("clip(l2=1) | gaussian(sigma=2) | clip(l2=1) | gaussian(sigma=8)"), 0.25);
        assert_eq!(mu("clip(l2=1) | gaussian(sigma=8) | clip(l2=1) | gaussian(sigma=2)"), 0.25);
        // Only the second one promises anything here.
        assert_eq!(mu("gaussian(sigma=1) | clip(l2=1) | gaussian(sigma=2)"), 1.0);
    }

    #[test]
    fn two_gaussians_in_a_row_add_their_variances() {
        for between in ["", "identity | "] {
            let pipeline = format!("clip(l2=1) | gaussian(sigma=3) | {between}gaussian(sigma=4)");
            assert_eq!(mu(&pipeline), 0.4);
            assert_eq!(Pipeline::parse(&pipeline).expect("valid").noise().expect("noise").sigma_per_coordinate, 5.0);
        }
        // Averaging in between: groups may be larger than m, so the first noise is not counted on.
        let after = state("clip(l2=1) | gaussian(sigma=1) | prototype(members=4) | gaussian(sigma=2)");
        assert_eq!(after.guarantee, Guarantee::Gdp { mu: 0.25 });
        assert_eq!(after.noise_model().expect("noise").sigma_per_coordinate, 0.5_f64.hypot(2.0));
        assert_eq!(after.unit_members, 4);
    }

    #[test]
    fn the_headline_pipeline_needs_twenty_times_less_noise() {
        let claim = Pipeline::parse("clip(l2=1) | prototype(members=20) | gaussian(epsilon=1, delta=1e-5)")
            .expect("valid")
            .claim();
        let single = Pipeline::parse("clip(l2=1) | gaussian(epsilon=1, delta=1e-5)").expect("valid").claim();
        assert!((single.sigma().expect("noise") - 7.461_263_269_631_88).abs() < 1e-8);
        assert!((claim.sigma().expect("noise") * 20.0 - 7.461_263_269_631_88).abs() < 1e-8);
        assert_eq!(claim.mu(), claim.sensitivity.as_ref().map(|s| s.l2 / claim.sigma().expect("noise")));
        assert_eq!(
            claim.adjacency_in_words(),
            "replace-one: one record's vector is exchanged for any other; sensitivity 2C/m = 0.1 (L2)"
        );
        let four = claim.clone().after(4);
        assert_eq!(four.mu(), claim.mu().map(|mu| 2.0 * mu));
        assert_eq!(four.epsilon(1e-5), claim.mu().map(|mu| account::epsilon(2.0 * mu, 1e-5)));
        assert_eq!(four.sigma(), claim.sigma());
    }

    #[test]
    fn the_noise_model_knows_what_follows_the_noise() {
        let noise = |text: &str| Pipeline::parse(text).expect("valid").noise();
        assert_eq!(noise("clip(l2=1)"), None);
        let plain = noise("clip(l2=1) | prototype(members=20) | gaussian(sigma=0.25)").expect("noise");
        assert_eq!((plain.members, plain.rescaled, plain.averages), (20, false, true));
        assert!((plain.noise_to_signal(384) - 4.899).abs() < 1e-3);
        assert!((plain.expected_cosine(384, 1) - 0.2).abs() < 1e-3);
        assert!((plain.expected_cosine(384, 16) - 16_f64.sqrt() / (16.0 + 24.0_f64).sqrt()).abs() < 1e-12);
        assert!(noise("normalize | gaussian(sigma=1) | normalize").expect("noise").rescaled);
        let averaged = noise("normalize | gaussian(sigma=1) | prototype(members=16)").expect("noise");
        assert_eq!(averaged.sigma_per_coordinate, 0.25);
        assert_eq!(noise("normalize | gaussian(sigma=1) | normalize | gaussian(sigma=1)"), None);
        // At the clip radius the ratio is relative to it.
        let small = noise("clip(l2=0.5) | gaussian(sigma=0.5)").expect("noise");
        assert_eq!(small.noise_to_signal(4), 2.0);
    }

    #[test]
    fn noise_that_is_metric_pure_or_directional_earns_its_kind() {
        let claim = |text: &str| Pipeline::parse(text).expect("valid").claim_at(384);
        for (pipeline, kind, epsilon) in [
            ("clip(l2=1) | laplace_l1(epsilon=8)", "pure", Some(8.0)),
            ("clip(l2=1) | laplace_l2(rate=4)", "pure", Some(8.0)),
            ("clip(l2=1) | prototype(members=4) | laplace_l2(rate=4)", "pure", Some(2.0)),
            ("laplace_l2(rate=4)", "metric", None),
            ("normalize | vmf(kappa=4)", "pure", Some(8.0)),
            ("normalize | purkayastha(kappa=1)", "pure", Some(std::f64::consts::PI)),
            ("normalize | privunit(epsilon=8)", "pure", Some(8.0)),
            ("normalize | privunit_g(epsilon=8)", "pure", Some(8.0)),
            ("clip(l2=1) | djw(epsilon=1)", "pure", Some(1.0)),
            ("clip(l2=1) | mahalanobis(rate=4)", "none", None),
            ("clip(l2=1) | center | gaussian(sigma=1)", "none", None),
            ("clip(l2=1) | pca(dim=8) | clip(l2=1) | gaussian(epsilon=1)", "none", None),
            ("clip(l2=1) | learned(dim=8) | clip(l2=1) | gaussian(epsilon=1)", "none", None),
            ("clip(l2=1) | johnson_lindenstrauss(dim=64) | clip(l2=1) | gaussian(epsilon=1)", "gdp", Some(1.0)),
            ("clip(l2=1) | mask(keep=0.5) | gaussian(epsilon=1)", "gdp", Some(1.0)),
            ("clip(l2=1) | quantize(bits=8) | clip(l2=1) | gaussian(epsilon=1)", "gdp", Some(1.0)),
            ("clip(l2=1) | gaussian(epsilon=1) | sign", "gdp", Some(1.0)),
            ("sign | gaussian(epsilon=1)", "gdp", Some(1.0)),
            ("sign(epsilon=0.01)", "pure", Some(3.84)),
            ("clip(l2=1) | gaussian(epsilon=0.5, calibration=classic)", "gdp", None),
            ("clip(l2=1) | scale_perturb(scale=2, beta=1)", "none", None),
            ("clip(l2=1) | discrete_gaussian(epsilon=8)", "zcdp", Some(8.0)),
            ("clip(l2=1) | discrete_laplace(epsilon=8)", "pure", Some(8.0)),
            // The stronger of two in one release.
            ("normalize | privunit(epsilon=8) | clip(l2=1) | gaussian(epsilon=1)", "gdp", Some(1.0)),
            ("clip(l2=1) | gaussian(epsilon=1) | normalize | privunit(epsilon=8)", "gdp", Some(1.0)),
        ] {
            let claim = claim(pipeline);
            assert_eq!(claim.kind(), kind, "{pipeline}: {}", claim.note());
            let got = claim.epsilon(1e-5);
            if let Some(epsilon) = epsilon {
                assert!((got.expect("an epsilon") - epsilon).abs() < 1e-6, "{pipeline}: {got:?}");
            } else if kind != "gdp" {
                assert_eq!(got, None, "{pipeline}");
            }
        }
        assert!(
            why("clip(l2=1) | gaussian(epsilon=1, calibration=classic)").contains("must be below 1 for the classic")
        );
        assert!(why("clip(l2=1) | djw(epsilon=1) | gaussian(epsilon=1)").contains("has nothing to scale its noise to"));
        assert!(why("djw(epsilon=1)").contains("needs rows of bounded length"));
    }

    #[test]
    fn several_records_of_a_user_cost_more_and_most_in_one_row() {
        let claim = |text: &str| Pipeline::parse(text).expect("valid").claim_at(384);
        let rows = claim("clip(l2=1) | gaussian(sigma=2)");
        assert_eq!(rows.clone().for_user(9).mu(), Some(3.0));
        assert_eq!(rows.for_user(9).after(4).mu(), Some(6.0));
        let group = claim("clip(l2=1) | prototype(members=10) | gaussian(sigma=0.2)");
        assert_eq!(group.for_user(4).mu(), Some(4.0));
        let pure = claim("normalize | privunit(epsilon=1)").for_user(3);
        assert!(pure.epsilon(1e-5).is_some_and(|e| e > 2.9 && e <= 3.0));
    }

    #[test]
    fn records_of_a_user_add_up_in_one_sum_however_few_a_row_needs() {
        let claim = |text: &str| Pipeline::parse(text).expect("valid").claim_at(384);
        let one = claim("clip(l2=1) | topic_mean(epsilon=1, least=1)");
        assert_eq!((one.members, one.shared), (1, true));
        assert_eq!(one.clone().for_user(4).mu(), one.mu().map(|mu| 4.0 * mu));
        // Groups of one are rows of their own, and so are rows whose noise came before the groups.
        for text in [
            "clip(l2=1) | prototype(members=1) | gaussian(sigma=2)",
            "clip(l2=1) | gaussian(sigma=2) | prototype(members=9)",
        ] {
            assert_eq!(claim(text).for_user(9).mu(), Some(3.0), "{text}");
        }
    }

    #[test]
    fn records_of_a_user_in_one_pool_are_a_group_and_no_further_pools() {
        let claim = |text: &str| Pipeline::parse(text).expect("valid").claim_at(384);
        let pooled = claim("normalize | privunit(epsilon=1) | shuffle(users=10000)");
        let three = pooled.clone().for_user(3).epsilon(1e-6).expect("central");
        let pools = pooled.clone().after(3).epsilon(1e-6).expect("central");
        assert!(three > pools && three < 3.0, "{three} {pools}");
        // Where the pool hides nothing, what each row promises alone adds up.
        let bare = claim("normalize | privunit(epsilon=16) | shuffle(users=10000)");
        assert_eq!(bare.for_user(3).epsilon(1e-6), Some(48.0));
        // Rows that several records share are nobody's row in a pool.
        assert_eq!(
            claim("topic_mean(least=1) | clip(l2=1) | laplace_l1(epsilon=1) | shuffle(users=10)").kind(),
            "pure"
        );
    }

    #[test]
    fn a_grid_replaces_noise_that_has_one_and_names_what_has_none() {
        let grid = |text: &str| Pipeline::parse(text).expect("valid").on_grid();
        let exact = grid("clip(l2=1) | prototype(members=20) | gaussian(epsilon=1)").expect("an exact sampler");
        assert_eq!(exact.to_string(), "clip(l2=1) | prototype(members=20) | discrete_gaussian(epsilon=1, delta=1e-5)");
        assert!(exact.has_noise() && exact.without_noise().to_string() == "clip(l2=1) | prototype(members=20)");
        let why = grid("normalize | vmf(kappa=4) | gaussian(sigma=1)").expect_err("two without").to_string();
        assert!(
            why.contains("drawn in floating point only") && why.contains("no epsilon that a grid could keep"),
            "{why}"
        );
        assert!(grid("clip(l2=1)").expect_err("no noise").to_string().contains("adds no noise"));
    }

    #[test]
    fn what_an_attacker_makes_of_a_pipeline_keeps_its_shape() {
        let of = |text: &str| Pipeline::parse(text).expect("valid");
        assert_eq!(of("normalize | vmf(kappa=4)").without_noise().to_string(), "normalize");
        assert_eq!(of("laplace_l2(rate=4)").without_noise().to_string(), "identity");
        assert_eq!(
            of("normalize | vmf(kappa=4)").with_sigma(0.1).to_string(),
            "normalize | gaussian(sigma=0.1) | normalize"
        );
        assert_eq!(
            of("scale_perturb(scale=2, beta=1)").with_sigma(0.1).to_string(),
            "scale_perturb(scale=2, beta=0) | gaussian(sigma=0.1)"
        );
        assert_eq!(of("sign(epsilon=1)").without_noise().to_string(), "sign");
    }

    // Grammar.

    #[test]
    fn the_printed_form_is_canonical() {
        let printed = |text: &str| Pipeline::parse(text).expect("valid").to_string();
        assert_eq!(
            printed("clip( l2 = 1.0 )|prototype(members=20)  |\tgaussian(delta=0.00001,epsilon=1e0)"),
            "clip(l2=1) | prototype(members=20) | gaussian(epsilon=1, delta=1e-5)"
        );
        assert_eq!(printed("normalize()"), "normalize");
        assert_eq!(printed("clip(l2=1) | gaussian(epsilon=8)"), "clip(l2=1) | gaussian(epsilon=8, delta=1e-5)");
        assert_eq!(printed("gaussian(sigma=2.5e-4)"), "gaussian(sigma=2.5e-4)");
    }

    #[test]
    fn problems_name_the_key_and_the_remedy() {
        let cases = [
            ("", "has no stage; write `identity` to release vectors as they are"),
            ("clipp(l2=1)", "no stage is called `clipp`; did you mean `clip`"),
            ("gauss(sigma=1)", "no stage is called `gauss`; did you mean `gaussian`"),
            (
                "whiten",
                "no stage is called `whiten`; known: `identity`, `normalize`, `clip`, `center`, `mask`, `johnson_lindenstrauss`, `pca`, \
                 `learned`, `quantize`, `sign`, `rotate`, `scale_perturb`, `prototype`, `topic_mean`, `gaussian`, `laplace_l1`, `laplace_l2`, \
                 `mahalanobis`, `vmf`, `purkayastha`, `privunit`, `privunit_g`, `djw`, `discrete_gaussian`, \
                 `discrete_laplace`, `shuffle`, `process`",
            ),
            ("clip", "`clip` needs `l2`, for example `clip(l2=1)`"),
            ("clip(l1=1)", "`clip` needs `l2`, for example `clip(l2=1)`; `clip` has no `l1`; known: `l2`"),
            ("clip(l2=1, l2=2)", "`clip.l2` is given twice"),
            ("clip(l2=0)", "`clip.l2` must be greater than 0, got 0"),
            ("clip(l2=NaN)", "`clip.l2` must lie in 1e-20 ..= 1e20, got NaN"),
            ("clip(l2=one)", "`clip.l2` must be a number, got `one`"),
            ("clip(1)", "`clip` has `1` where `key=value` belongs"),
            ("clip(l2=1", "`clip(l2=1` lacks its closing `)`"),
            ("clip(l2=1) gaussian", "`clip(l2=1) gaussian` goes on after its `)`; stages are separated by `|`"),
            ("clip(l2=1) |", "a stage has no name; write `name(key=value, ...)`, stages separated by `|`"),
            ("normalize(l2=1)", "`normalize` has no `l2`; `normalize` takes none"),
            ("prototype(members=2.5)", "`prototype.members` must be a whole number, got `2.5`"),
            ("rotate", "`rotate` needs `key`, for example `rotate(key=7)`"),
            ("rotate(key=-1)", "`rotate.key` must be a whole number, got `-1`"),
            ("prototype(members=0)", "`prototype.members` must be greater than 0, got 0"),
            ("gaussian(sigma=-1)", "`gaussian.sigma` must be greater than 0, got -1"),
            (
                "gaussian",
                "`gaussian` needs `sigma`, or `epsilon` and `delta`, for example `gaussian(epsilon=1, delta=1e-5)`",
            ),
            (
                "gaussian(delta=1e-5)",
                "`gaussian` has `delta` but no `epsilon`, for example `gaussian(epsilon=1, delta=1e-5)`",
            ),
            ("gaussian(sigma=1, epsilon=1)", "`gaussian` takes `sigma`, or `epsilon` and `delta`, not both"),
            ("clip(l2=1) | gaussian(epsilon=1, delta=2)", "`gaussian.delta` must lie in 1e-15 ..= 0.5, got 2"),
        ];
        for (text, expected) in cases {
            assert_eq!(why(text), expected, "{text}");
        }
        assert!(why("gaussian(epsilon=1)").starts_with(
            "`gaussian(epsilon=1, delta=1e-5)` has nothing to scale its noise to: vectors of any length reach it; put `clip(l2=1)`"
        ));
    }

    #[test]
    fn all_problems_show_at_once() {
        let why = why("clip(l2=-1) | gausian(sigma=1) | prototype(size=3)");
        for part in
            ["`clip.l2` must be greater", "`gausian`; did you mean `gaussian`", "needs `members`", "has no `size`"]
        {
            assert!(why.contains(part), "`{part}` is missing from: {why}");
        }
    }

    fn any_stage() -> impl Strategy<Value = StageConfig> {
        let scale = (-18.0..18.0_f64).prop_map(|log| 10_f64.powf(log));
        prop_oneof![
            Just(Identity.into()),
            Just(Normalize.into()),
            scale.clone().prop_map(|l2| Clip { l2 }.into()),
            (1_usize..1000).prop_map(|members| Prototype { members }.into()),
            any::<u32>().prop_map(|key| Rotate { key: key.into() }.into()),
            scale.prop_map(|sigma| Gaussian::Given { sigma }.into()),
            (-4.9..4.9_f64, -14.0..-0.4_f64).prop_map(|(epsilon, delta)| {
                Gaussian::Calibrated { epsilon: 10_f64.powf(epsilon), delta: 10_f64.powf(delta) }.into()
            }),
        ]
    }

    proptest! {
        #[test]
        fn the_printed_form_parses_back_to_itself(stages in prop::collection::vec(any_stage(), 1..6)) {
            let bounded = std::iter::once(StageConfig::from(Clip { l2: 1.0 })).chain(stages).collect();
            let pipeline = Pipeline::new(bounded).expect("every stage is in range and follows a clip");
            prop_assert_eq!(&Pipeline::parse(&pipeline.to_string()).expect("its own text"), &pipeline);
            let json = serde_json::to_string(&pipeline).expect("a string");
            prop_assert_eq!(serde_json::from_str::<Pipeline>(&json).expect("its own text"), pipeline);
        }

        #[test]
        fn parsing_never_panics(text in "[a-z(),=|0-9. -]{0,40}") {
            let _ = Pipeline::parse(&text);
        }
    }

    // Contracts over examples().

    fn table() -> Embeddings {
        let values = (0..64 * 8).map(|i| (i as f32 * 0.61).sin() * 3.0).collect();
        Embeddings::new(values, 8).expect("sines are finite")
    }

    #[test]
    fn every_example_keeps_the_stage_contract() {
        for config in StageConfig::examples() {
            assert_eq!(config.check(), Vec::<String>::new());
            assert_eq!(config.to_string().parse::<StageConfig>().expect("its own text"), config);
            let pipeline = Pipeline::new(vec![Normalize.into(), config.clone()]).expect("valid on the sphere");
            let built = config.build(&state("normalize")).expect("valid on the sphere");
            assert_eq!(built.name(), config.name());
            let release = |root, threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
                pool.install(|| pipeline.release(&table(), None, &mut seed::stream(root, "test", "release")))
                    .expect("finite rows")
            };
            let one = release(1, 1);
            assert_eq!(one, release(1, 2), "{config}: same seed, same bytes, any thread count");
            assert_eq!(one.vectors.dim(), 8);
            assert_eq!(one.members.len(), one.vectors.len());
            assert_eq!(one.members.concat().len(), 64, "{config}: every row is behind exactly one released row");
        }
    }

    #[test]
    fn identity_releases_the_same_bytes() {
        let clean = table();
        let release = Pipeline::parse("identity")
            .expect("valid")
            .release(&clean, None, &mut seed::stream(1, "", ""))
            .expect("finite");
        assert_eq!(release.vectors, clean);
        assert_eq!(release.members[5], [5]);
    }

    #[test]
    fn rows_that_are_not_finite_are_named() {
        let mut bad = table();
        bad.row_mut(17)[3] = f32::NAN;
        let error = Pipeline::parse("normalize").expect("valid").release(&bad, None, &mut seed::stream(1, "", ""));
        let error = error.expect_err("a NaN");
        assert!(error.to_string().contains("input row 17"), "{error}");
        assert_eq!(error.exit(), crate::Exit::Input);
        let huge = Pipeline::parse("clip(l2=1e20) | gaussian(sigma=1e20) | gaussian(sigma=1e20)").expect("valid");
        assert!(huge.release(&table(), None, &mut seed::stream(1, "", "")).is_ok());
        let short =
            Pipeline::parse("identity").expect("valid").release(&table(), Some(&[1]), &mut seed::stream(1, "", ""));
        assert_eq!(short.expect_err("one stratum").to_string(), "cannot protect the input: 1 strata for 64 rows");
    }
}
