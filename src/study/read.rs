//! From TOML to a checked study: every problem with its line, unknown names with their neighbours.

use super::{Contender, Data, Encode, Error, Gate, Protection, Strength, Study, Utility};
use crate::attack::AttackConfig;
use crate::encode::split_side;
use crate::protect::Pipeline;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

const SECTIONS: [&str; 10] =
    ["schema", "name", "seeds", "data", "encode", "protect", "attack", "utility", "strength", "gate"];

pub(super) fn study(path: &str, text: &str) -> Result<Study, Error> {
    let mut reader = Reader { text, problems: Vec::new() };
    let study = reader.study();
    match study {
        Some(study) if reader.problems.is_empty() => Ok(study),
        _ => Err(Error { path: path.to_owned(), problems: reader.problems }),
    }
}

/// Reads a TOML file that people write: collects every problem with its line instead of stopping at the first.
pub(crate) struct Reader<'t> {
    pub(crate) text: &'t str,
    pub(crate) problems: Vec<String>,
}

/// A protection as it stands in the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawProtection {
    name: String,
    pipeline: String,
    releases: usize,
    targets: usize,
}

/// The scalars at the top of the file.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Head {
    schema: u32,
    name: String,
    seeds: Vec<u64>,
}

impl Default for Head {
    fn default() -> Self {
        Self { schema: 0, name: String::new(), seeds: vec![1] }
    }
}

impl<'t> Reader<'t> {
    fn study(&mut self) -> Option<Study> {
        let table = match DeTable::parse(self.text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let start = error.span().map_or(0, |s| s.start);
                self.problem(start, error.message());
                return None;
            }
        };
        let (mut head_table, mut sections) = (DeTable::new(), Vec::new());
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "schema" | "name" | "seeds" => {
                    head_table.insert(key, value);
                }
                name if SECTIONS.contains(&name) => sections.push((name.to_owned(), value)),
                name => {
                    let known = near(name, SECTIONS.iter().copied());
                    self.problem(key.span().start, &format!("unknown section or key `{name}`; {known}"));
                }
            }
        }
        let head: Head = self.table(head_table, "");
        if head.schema != 1 {
            self.problem(0, "`schema = 1` must stand at the top of the study");
        }
        if !is_name(&head.name) {
            self.problem(0, "`name` must be given: letters, digits, `-` and `_`");
        }
        let distinct: BTreeSet<u64> = head.seeds.iter().copied().collect();
        if head.seeds.is_empty() || distinct.len() != head.seeds.len() {
            self.problem(0, "`seeds` must list at least one seed, each once");
        }

        let mut data = None;
        let (mut encode, mut utility) = (Encode::default(), Utility::default());
        let (mut strength, mut gate) = (Strength::default(), Gate::default());
        let (mut protect, mut attack) = (Vec::new(), Vec::new());
        for (name, value) in sections {
            let start = value.span().start;
            match name.as_str() {
                "data" => data = Some((start, self.section::<Data>(value, "data"))),
                "encode" => {
                    // `vectors` is not written out when it is empty: it is no default that could name its key.
                    encode = self.section_of(value, "encode", &["victim", "vectors", "judges", "surrogate"]);
                    self.encode(start, &encode);
                }
                "utility" => utility = self.section(value, "utility"),
                "strength" => strength = self.section(value, "strength"),
                "gate" => gate = self.section(value, "gate"),
                "protect" => {
                    for entry in self.entries(value, "protect") {
                        protect.extend(self.protection(entry));
                    }
                }
                _ => {
                    for entry in self.entries(value, "attack") {
                        attack.extend(self.attack(entry));
                    }
                }
            }
        }
        let data = if let Some((start, data)) = data {
            self.data(start, &data);
            for one in &protect {
                self.groups(start, &data, one);
            }
            data
        } else {
            self.problem(0, "section `[data]` is missing; it needs at least `corpus`");
            Data::default()
        };
        if !(0.0..=1.0).contains(&strength.victim_cosine) {
            self.problem(0, "`strength.victim_cosine` must be in [0, 1]");
        }
        self.families(&protect, &mut attack);
        for twin in &strength.twins {
            if !attack.iter().any(|(_, one, _)| one.name == *twin && one.config.is_rival()) {
                self.problem(
                    0,
                    &format!("`strength.twins` names `{twin}`, which is no text-writing attack of this study"),
                );
            }
        }
        Some(Study {
            schema: head.schema,
            name: head.name,
            seeds: head.seeds,
            data,
            encode,
            protect,
            attack: attack.into_iter().map(|(_, one, _)| one).collect(),
            utility,
            strength,
            gate,
        })
    }

    fn data(&mut self, start: usize, data: &Data) {
        for (ok, what) in [
            (!data.corpus.is_empty(), "`data.corpus` must name a corpus or a path"),
            (data.targets >= 2, "`data.targets` must be at least 2"),
            (data.validation >= 2, "`data.validation` must be at least 2"),
            (data.auxiliary >= 16, "`data.auxiliary` must be at least 16"),
            (data.min_chars <= data.max_chars, "`data.min_chars` must not exceed `data.max_chars`"),
            (data.min_words >= 1, "`data.min_words` must be at least 1"),
            ((8..=512).contains(&data.side_px), "`data.side_px` must be from 8 to 512"),
            (data.also.iter().all(|a| a.auxiliary >= 16), "`data.also.auxiliary` must be at least 16"),
        ] {
            if !ok {
                self.problem(start, what);
            }
        }
    }

    /// Attackers rehearse on releases of validation records: a pipeline that cannot release them would fail in every cell.
    fn groups(&mut self, start: usize, data: &Data, protection: &Protection) {
        let members = protection.pipeline.state().members;
        for (key, records) in [("targets", data.targets), ("validation", data.validation)] {
            if records < members {
                let name = &protection.name;
                let what = format!("`data.{key}` is {records}, but groups of `{name}` have {members} members");
                self.problem(start, &what);
            }
        }
    }

    fn encode(&mut self, start: usize, encode: &Encode) {
        if encode.victim.is_empty() && encode.vectors.is_empty() {
            self.problem(start, "`encode.victim` must name an encoder or a folder, or `encode.vectors` a file");
        }
        if encode.judges.is_empty() {
            self.problem(start, "`encode.judges` must list at least one encoder");
        }
        if encode.judges.contains(&encode.victim) {
            self.problem(start, "`encode.judges` must not hold the victim: it would judge its own inversion");
        }
        let surrogate = &encode.surrogate;
        if surrogate.is_empty() {
            return;
        }
        if encode.judges.first().is_some_and(|judge| split_side(judge).0 == split_side(surrogate).0) {
            self.problem(start, "`encode.surrogate` must not be the first judge: attackers descend through it");
        }
        if split_side(&encode.victim).0 == split_side(surrogate).0 {
            self.problem(start, "`encode.surrogate` must not be the victim, which attackers know anyway");
        }
    }

    fn protection(&mut self, entry: Spanned<DeValue<'t>>) -> Option<Protection> {
        let start = entry.span().start;
        let raw: RawProtection = self.section(entry, "protect");
        if !is_name(&raw.name) {
            self.problem(start, "`protect.name` must be given: letters, digits, `-`, `_` and `.`");
        }
        match raw.pipeline.parse::<Pipeline>() {
            Ok(pipeline) => {
                Some(Protection { name: raw.name, pipeline, releases: raw.releases.max(1), targets: raw.targets })
            }
            Err(error) => {
                self.problem(start, &format!("`protect.pipeline`: {error}"));
                None
            }
        }
    }

    /// The attack, and whether a search brought a decoder of its own.
    fn attack(&mut self, entry: Spanned<DeValue<'t>>) -> Option<(usize, Contender, bool)> {
        let start = entry.span().start;
        let DeValue::Table(mut table) = entry.into_inner() else {
            self.problem(start, "`attack` must be a table: write `[[attack]]`");
            return None;
        };
        let Some(kind) = take(&mut table, "kind") else {
            self.problem(start, &format!("`attack.kind` is missing; one of {}", AttackConfig::KINDS.join(", ")));
            return None;
        };
        let kind_start = kind.span().start;
        let kind = kind.get_ref().as_str().unwrap_or_default().to_owned();
        let name = take(&mut table, "name");
        let own_decoder = table.keys().any(|k| k.get_ref() == "decoder");
        let place = format!("attack.{kind}");
        let config = match kind.as_str() {
            "blind" => AttackConfig::Blind(self.table(table, &place)),
            "constant" => AttackConfig::Constant(self.table(table, &place)),
            "random" => AttackConfig::Random(self.table(table, &place)),
            "nearest" => AttackConfig::Nearest(self.table(table, &place)),
            "best_of" => AttackConfig::BestOf(self.table(table, &place)),
            "corrector" => AttackConfig::Corrector(self.table(table, &place)),
            "bag_of_words" => AttackConfig::BagOfWords(self.table(table, &place)),
            "decoder" => AttackConfig::Decoder(self.table(table, &place)),
            "align" => AttackConfig::Align(self.table(table, &place)),
            "search" => AttackConfig::Search(self.table(table, &place)),
            "attribute" => AttackConfig::Attribute(self.table(table, &place)),
            "slots" => AttackConfig::Slots(self.table(table, &place)),
            "linkage" => AttackConfig::Linkage(self.table(table, &place)),
            "membership" => AttackConfig::Membership(self.table(table, &place)),
            "ridge" => AttackConfig::Ridge(self.table(table, &place)),
            "image_decoder" => AttackConfig::ImageDecoder(self.table(table, &place)),
            "invert" => AttackConfig::Invert(self.table(table, &place)),
            "generative" => AttackConfig::Generative(self.table(table, &place)),
            _ => {
                let known = near(&kind, AttackConfig::KINDS.into_iter());
                self.problem(kind_start, &format!("unknown attack kind `{kind}`; {known}"));
                return None;
            }
        };
        for problem in config.check() {
            self.problem(start, &format!("`{place}`: {problem}"));
        }
        let name = match name {
            None => kind,
            Some(value) => {
                let name = value.get_ref().as_str().unwrap_or_default().to_owned();
                if name != kind && !(config.is_rival() && is_name(&name)) {
                    let why =
                        "letters, digits, `-`, `_` and `.`, and only for attacks that write texts and are no floor";
                    self.problem(value.span().start, &format!("`attack.name`: {why}"));
                    return None;
                }
                let is_taken = RESERVED.contains(&name.as_str()) || AttackConfig::KINDS.contains(&name.as_str());
                if name != kind && (is_taken || name.contains(TWIN)) {
                    let why = format!(
                        "`{name}` means something else in records and policies; call this attack `{kind}-{}`, say",
                        name.replace(TWIN, "2")
                    );
                    self.problem(value.span().start, &format!("`attack.name`: {why}"));
                    return None;
                }
                name
            }
        };
        Some((start, Contender { name, config }, own_decoder))
    }

    /// What must hold between entries.
    fn families(&mut self, protect: &[Protection], attack: &mut [(usize, Contender, bool)]) {
        if protect.is_empty() {
            self.problem(0, "at least one valid `[[protect]]` is needed");
        } else if !protect.iter().any(|p| p.pipeline.is_identity()) {
            self.problem(
                0,
                "one `[[protect]]` must have `pipeline = \"identity\"`: nothing is safe without its baseline",
            );
        }
        let mut names = BTreeSet::new();
        for p in protect {
            if !names.insert(p.name.as_str()) {
                self.problem(0, &format!("`protect.name` `{}` is given twice", p.name));
            }
            if p.releases > 1 && p.pipeline.has_groups() && p.pipeline.has_noise() {
                self.problem(0, &format!("`protect.releases` of `{}` must be 1: prototypes are released once", p.name));
            }
        }
        if attack.is_empty() {
            self.problem(0, "at least one valid `[[attack]]` is needed");
        } else if !attack.iter().any(|(_, a, _)| matches!(a.config, AttackConfig::Blind(_))) {
            self.problem(0, "one `[[attack]]` must be `blind`: no figure stands without it");
        }
        let mut names = BTreeSet::new();
        for (start, a, _) in attack.iter() {
            if !names.insert(a.name.as_str()) {
                self.problem(*start, &format!("attack `{}` is given twice; give one of them a `name`", a.name));
            }
        }
        // A search or an alignment without a decoder of its own uses the study's, so that one training serves both.
        let shared = attack.iter().find_map(|(_, a, _)| match &a.config {
            AttackConfig::Decoder(d) => Some(d.clone()),
            _ => None,
        });
        for (_, a, own) in attack.iter_mut() {
            if let (Some(decoder), false) = (&shared, *own) {
                match &mut a.config {
                    AttackConfig::Corrector(corrector) => corrector.decoder = decoder.clone(),
                    AttackConfig::Search(search) => search.decoder = decoder.clone(),
                    AttackConfig::Align(align) => align.decoder = decoder.clone(),
                    _ => {}
                }
            }
        }
    }

    pub(crate) fn entries(&mut self, value: Spanned<DeValue<'t>>, place: &str) -> Vec<Spanned<DeValue<'t>>> {
        let start = value.span().start;
        if let DeValue::Array(array) = value.into_inner() {
            return array.into_iter().collect();
        }
        self.problem(start, &format!("`{place}` must be a list: write `[[{place}]]`"));
        Vec::new()
    }

    fn section<T: Default + Serialize + DeserializeOwned>(&mut self, value: Spanned<DeValue<'t>>, place: &str) -> T {
        let start = value.span().start;
        if let DeValue::Table(table) = value.into_inner() {
            return self.table(table, place);
        }
        self.problem(start, &format!("`{place}` must be a table: write `[{place}]`"));
        T::default()
    }

    fn table<T: Default + Serialize + DeserializeOwned>(&mut self, table: DeTable<'t>, place: &str) -> T {
        let known: Vec<String> =
            toml::Table::try_from(T::default()).map(|t| t.keys().cloned().collect()).unwrap_or_default();
        self.keyed(table, place, &known)
    }

    fn section_of<T: Default + DeserializeOwned>(
        &mut self,
        value: Spanned<DeValue<'t>>,
        place: &str,
        known: &[&str],
    ) -> T {
        let start = value.span().start;
        if let DeValue::Table(table) = value.into_inner() {
            return self.keyed(table, place, &known.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>());
        }
        self.problem(start, &format!("`{place}` must be a table: write `[{place}]`"));
        T::default()
    }

    /// Reads a table key by key, so that one bad value does not hide the next.
    pub(crate) fn keyed<T: Default + DeserializeOwned>(
        &mut self,
        table: DeTable<'t>,
        place: &str,
        known: &[String],
    ) -> T {
        let mut good = DeTable::new();
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let dotted = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
            if !known.contains(&name) {
                let near = near(&name, known.iter().map(String::as_str));
                self.problem(key.span().start, &format!("unknown key `{dotted}`; {near}"));
                continue;
            }
            let start = value.span().start;
            let mut one = DeTable::new();
            one.insert(key.clone(), value.clone());
            match T::deserialize(ValueDeserializer::from(Spanned::new(0..0, DeValue::Table(one)))) {
                Ok(_) => {
                    good.insert(key, value);
                }
                Err(error) => self.problem(start, &format!("`{dotted}`: {}", error.message())),
            }
        }
        T::deserialize(ValueDeserializer::from(Spanned::new(0..0, DeValue::Table(good)))).unwrap_or_default()
    }

    pub(crate) fn problem(&mut self, at: usize, what: &str) {
        let line = self.line(at);
        self.problems.push(format!("  line {line}: {what}"));
    }

    /// The line of a byte.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.text[..at.min(self.text.len())].matches('\n').count() + 1
    }
}

/// What records and policies call something else by.
const RESERVED: [&str; 6] = ["release", "identification", "utility", "worst", "claim", "none"];
/// Marks the twin of an attack.
const TWIN: &str = "non-adaptive";

fn take<'t>(table: &mut DeTable<'t>, name: &str) -> Option<Spanned<DeValue<'t>>> {
    let key = table.keys().find(|k| k.get_ref() == name)?.clone();
    table.remove(&key)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && !name.starts_with('.')
}

/// The names close to a misspelt one, or all of them.
pub(crate) fn near<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let known: Vec<&str> = known.collect();
    let mut close: Vec<&str> = known.iter().copied().filter(|k| strsim::jaro_winkler(name, k) > 0.8).collect();
    close.sort_by(|a, b| strsim::jaro_winkler(name, b).total_cmp(&strsim::jaro_winkler(name, a)));
    if close.is_empty() {
        format!("known: {}", known.join(", "))
    } else {
        format!("did you mean `{}`?", close.join("`, `"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
schema = 1
name = "tiny"
seeds = [1, 2]
[data]
corpus = "toy"
targets = 20
[encode]
victim = "toy"
judges = ["toy-judge"]
[[protect]]
name = "unprotected"
pipeline = "identity"
[[protect]]
name = "noisy"
pipeline = "clip(l2=1) | gaussian(sigma=0.1)"
[[attack]]
kind = "blind"
[[attack]]
kind = "decoder"
steps = 7
[[attack]]
kind = "search"
"#;

    #[test]
    fn a_study_is_resolved_with_its_defaults() {
        let study = Study::parse("tiny.toml", GOOD).expect("valid");
        assert_eq!(study.data.auxiliary, Data::default().auxiliary);
        assert_eq!(study.cells().len(), 2 * 2 * 4);
        let AttackConfig::Search(search) = &study.attack[2].config else { panic!("third is the search") };
        assert_eq!(search.decoder.steps, 7, "the search shares the study's decoder");
        let again = Study::parse("plan.toml", &study.to_toml()).expect("the plan is a study");
        assert_eq!(again, study);
    }

    #[test]
    fn attacks_may_be_named_and_repeated_and_have_twins() {
        let more = r#"
[[attack]]
kind = "best_of"
[[attack]]
kind = "search"
name = "search-short"
queries = 10
[strength]
twins = ["search-short"]
"#;
        let study = Study::parse("tiny.toml", &format!("{GOOD}{more}")).expect("valid");
        let names: Vec<String> = study.cells().iter().map(|cell| study.attack_name(cell)).collect();
        // Two seeds; release, four attacks, `best_of` behind them, and under noise the twin.
        assert_eq!(names.len(), 2 * (6 + 7));
        assert_eq!(names[..6], ["release", "blind", "decoder", "search", "search-short", "best_of"]);
        assert_eq!(names[12], "search-short, non-adaptive");
        let again = Study::parse("plan.toml", &study.to_toml()).expect("the plan is a study");
        assert_eq!(again, study);
        for (bad, why) in [
            ("[[attack]]\nkind = \"search\"", "given twice"),
            ("[[attack]]\nkind = \"random\"\nname = \"chance\"", "`attack.name`"),
            ("[strength]\ntwins = [\"blind\"]", "`strength.twins`"),
        ] {
            let error = Study::parse("tiny.toml", &format!("{GOOD}{bad}")).expect_err(why);
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn an_attack_takes_no_name_that_means_something_else() {
        let named = |name: &str| {
            Study::parse("tiny.toml", &GOOD.replace("\"search\"", &format!("\"search\"\nname = \"{name}\"")))
        };
        for taken in
            ["release", "identification", "utility", "worst", "claim", "none", "linkage", "search-non-adaptive"]
        {
            let message = named(taken).expect_err("taken").to_string();
            let expected = format!("line 24: `attack.name`: `{taken}` means something else");
            assert!(message.contains(&expected), "{message}");
        }
        assert!(named("worst").expect_err("taken").to_string().contains("call this attack `search-worst`, say"));
        for free in ["search", "search-linkage", "worst-search"] {
            named(free).expect("its own kind, or a name of its own");
        }
    }

    #[test]
    fn every_problem_is_reported_with_its_line() {
        let bad = r#"schema = 1
name = "bad"
sedes = [1]
[data]
corpus = "bbc-news"
targets = "many"
auxilary = 3
[encode]
victim = "a"
judges = ["a"]
[[protect]]
name = "p"
pipeline = "clip(l2=0)"
[[attack]]
kind = "desoder"
[[attack]]
kind = "decoder"
lr = -1.0
"#;
        let message = Study::parse("bad.toml", bad).expect_err("invalid").to_string();
        for expected in [
            "line 3: unknown section or key `sedes`; did you mean `seeds`",
            "line 6: `data.targets`",
            "line 7: unknown key `data.auxilary`; did you mean `auxiliary`?",
            "line 8: `encode.judges` must not hold the victim",
            "line 11: `protect.pipeline`",
            "line 15: unknown attack kind `desoder`; did you mean `decoder`?",
            "line 16: `attack.decoder`: `lr` must be greater than 0",
            "must be `blind`",
        ] {
            assert!(message.contains(expected), "{expected} is missing from\n{message}");
        }
    }

    #[test]
    fn groups_that_the_validation_records_cannot_fill_are_named() {
        let study = |validation: usize| {
            format!(
                "schema = 1\nname = \"groups\"\n[data]\ncorpus = \"toy\"\ntargets = 40\nvalidation = {validation}\n[encode]\n\
                 victim = \"toy\"\njudges = [\"toy-judge\"]\n[[protect]]\nname = \"open\"\npipeline = \"identity\"\n\
                 [[protect]]\nname = \"dp\"\npipeline = \"clip(l2=1) | prototype(members=20) | gaussian(epsilon=1)\"\n\
                 [[attack]]\nkind = \"blind\"\n"
            )
        };
        let message = Study::parse("groups.toml", &study(19)).expect_err("too few").to_string();
        assert!(message.contains("line 3: `data.validation` is 19, but groups of `dp` have 20 members"), "{message}");
        assert!(!message.contains("`data.targets`"), "{message}");
        Study::parse("groups.toml", &study(20)).expect("enough");
    }

    #[test]
    fn every_kind_of_attack_can_be_asked_for() {
        let head = "schema = 1\nname = \"all\"\n[data]\ncorpus = \"toy\"\n[encode]\nvictim = \"toy\"\njudges = [\"toy-judge\"]\n\
                    [[protect]]\nname = \"p\"\npipeline = \"identity\"\n";
        let attacks = AttackConfig::KINDS.map(|kind| format!("[[attack]]\nkind = \"{kind}\"\n")).concat();
        let study = Study::parse("all.toml", &format!("{head}{attacks}")).expect("every kind has its defaults");
        let kinds: Vec<&str> = study.attack.iter().map(|a| a.config.kind()).collect();
        assert_eq!(kinds, AttackConfig::KINDS);
    }

    #[test]
    fn broken_toml_names_its_line() {
        let message = Study::parse("x.toml", "schema = 1\nname = \n").expect_err("invalid").to_string();
        assert!(message.contains("line 2"), "{message}");
    }
}
