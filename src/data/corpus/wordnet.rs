//! `wordnet-examples`: the phrases with which a dictionary shows how a word is used. Short, clean, of every topic.
//!
//! A line of `data.noun` and its siblings is a synset: `offset file type ... | definition; "example"; "example"`. Lines
//! that start with two spaces are the licence.

use super::{Corpus, Draft, Entry, Positions};
use crate::data::clean::{Keep, Rule, collapse, decode};
use crate::data::{Error, Record};

/// The corpus's and the asset's name.
pub const NAME: &str = "wordnet-examples";

/// The lexicographer files, by the number in a synset's second field.
const TOPICS: [&str; 45] = [
    "adj.all",
    "adj.pert",
    "adv.all",
    "noun.Tops",
    "noun.act",
    "noun.animal",
    "noun.artifact",
    "noun.attribute",
    "noun.body",
    "noun.cognition",
    "noun.communication",
    "noun.event",
    "noun.feeling",
    "noun.food",
    "noun.group",
    "noun.location",
    "noun.motive",
    "noun.object",
    "noun.person",
    "noun.phenomenon",
    "noun.plant",
    "noun.possession",
    "noun.process",
    "noun.quantity",
    "noun.relation",
    "noun.shape",
    "noun.state",
    "noun.substance",
    "noun.time",
    "verb.body",
    "verb.change",
    "verb.cognition",
    "verb.communication",
    "verb.competition",
    "verb.consumption",
    "verb.contact",
    "verb.creation",
    "verb.emotion",
    "verb.motion",
    "verb.perception",
    "verb.possession",
    "verb.social",
    "verb.stative",
    "verb.weather",
    "adj.ppl",
];

/// The four data files, wherever they lie.
pub fn wanted(path: &str) -> bool {
    matches!(path.rsplit('/').next(), Some("data.noun" | "data.verb" | "data.adj" | "data.adv"))
}

/// Synsets to examples: document `n00002684`, record `n00002684#0` (the example's place in the gloss), topic =
/// lexicographer file.
///
/// # Errors
/// When no entry is a data file, a line is not a synset (it is named), or nothing is left after cleaning.
pub fn read(entries: &[Entry], keep: &Keep) -> Result<Corpus, Error> {
    let mut files: Vec<&Entry> = entries.iter().filter(|entry| wanted(&entry.path)).collect();
    files.sort_by_key(|entry| entry.path.as_str());
    let mut positions = Positions::default();
    let mut found = Vec::new();
    for entry in &files {
        let text = decode(&entry.bytes, None);
        for (number, line) in text.lines().enumerate() {
            if line.starts_with("  ") || line.trim().is_empty() {
                continue;
            }
            let Some((document, topic, gloss)) = synset(line) else {
                return Err(Error::Malformed {
                    path: entry.path.clone(),
                    line: Some(number + 1),
                    why: "not a synset: `offset lexicographer-file type ... | gloss` expected".to_owned(),
                });
            };
            for example in examples(gloss) {
                found.push(Record {
                    id: positions.next(&document),
                    document: document.clone(),
                    owner: None,
                    topic: Some(topic.to_owned()),
                    time: None,
                    text: collapse(example),
                    picture: None,
                });
            }
        }
    }
    let draft =
        Draft { name: NAME.to_owned(), unit: "example", files: files.len(), rules: &Rule::ALL, sentences: found };
    Corpus::build(draft, keep)
}

/// Document id, topic and gloss of a synset's line.
fn synset(line: &str) -> Option<(String, &'static str, &str)> {
    let (fields, gloss) = line.split_once('|')?;
    let mut fields = fields.split(' ');
    let (offset, file, kind) = (fields.next()?, fields.next()?, fields.next()?);
    let topic = TOPICS.get(file.parse::<usize>().ok()?)?;
    let known = offset.bytes().all(|b| b.is_ascii_digit()) && matches!(kind, "n" | "v" | "a" | "s" | "r");
    // Satellite adjectives share the adjectives' offsets.
    let kind = if kind == "s" { "a" } else { kind };
    known.then(|| (format!("{kind}{offset}"), *topic, gloss))
}

/// The quoted parts of a gloss; an unclosed quote is none.
fn examples(gloss: &str) -> impl Iterator<Item = &str> {
    let parts: Vec<&str> = gloss.split('"').collect();
    let closed = parts.len() - 1 - (parts.len() - 1) % 2;
    parts.into_iter().take(closed).skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    const NOUNS: &str = "  1 This is the licence | \"quoted in full here to be skipped\"\n\
        00002684 03 n 02 object 0 physical_object 0 001 @ 00001740 n 0000 | a thing; \"it was full of rackets, balls and other objects\"  \n\
        00003553 14 n 01 whole 0 000 | a unit; \"short one\"; \"how big is that  part compared to the whole?\"; \"the team is \n";

    #[test]
    fn only_the_data_files_are_wanted() {
        assert!(wanted("./usr/share/wordnet/data.noun") && wanted("data.adv"));
        assert!(!wanted("./usr/share/wordnet/index.noun") && !wanted("./usr/share/wordnet/noun.exc"));
    }

    #[test]
    fn examples_keep_their_place_in_the_gloss() {
        let corpus = read(&[entry("./usr/share/wordnet/data.noun", NOUNS)], &Keep::default()).expect("two examples");
        let got: Vec<(&str, &str, Option<&str>)> =
            corpus.records.iter().map(|r| (r.id.as_str(), r.text.as_str(), r.topic.as_deref())).collect();
        assert_eq!(
            got,
            [
                ("n00002684#0", "it was full of rackets, balls and other objects", Some("noun.Tops")),
                ("n00003553#1", "how big is that part compared to the whole?", Some("noun.group")),
            ]
        );
        assert_eq!((corpus.stats.sentences, corpus.stats.documents), (3, 2));
    }

    #[test]
    fn the_same_offset_in_two_files_is_two_documents() {
        let noun = "00002684 03 n 01 a 0 000 | x; \"it was full of balls and other objects\"\n";
        let verb = "00002684 29 v 01 a 0 000 | x; \"she filled it with all those other objects\"\n";
        let corpus = read(&[entry("data.verb", verb), entry("data.noun", noun)], &Keep::default()).expect("two");
        let documents: Vec<&str> = corpus.records.iter().map(|r| r.document.as_str()).collect();
        assert_eq!(documents, ["n00002684", "v00002684"]);
    }

    #[test]
    fn a_line_that_is_no_synset_is_named() {
        for bad in ["00001740 03 n 01 entity", "00001740 99 n 01 entity | x", "entity 03 n | x"] {
            let error = read(&[entry("data.noun", format!("  1 licence\n{bad}\n"))], &Keep::default()).expect_err(bad);
            assert!(error.to_string().starts_with("`data.noun` line 2: not a synset"), "{error}");
        }
    }
}
