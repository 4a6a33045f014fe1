//! `brown`: a million words of American English printed in 1961, 500 samples of 15 genres.
//!
//! The files are tagged (`The/at jury/nn said/vbd ./.`), one sentence a line. [`plain`] undoes that.

use super::{Corpus, Draft, Entry, Positions};
use crate::data::clean::{Keep, Rule, decode};
use crate::data::{Error, Record};

/// The corpus's and the asset's name.
pub const NAME: &str = "brown";

/// The genres, by the letter in the file name.
const GENRES: [(char, &str); 15] = [
    ('a', "press-reportage"),
    ('b', "press-editorial"),
    ('c', "press-reviews"),
    ('d', "religion"),
    ('e', "skill-and-hobbies"),
    ('f', "popular-lore"),
    ('g', "belles-lettres"),
    ('h', "government"),
    ('j', "learned"),
    ('k', "fiction-general"),
    ('l', "fiction-mystery"),
    ('m', "fiction-science"),
    ('n', "fiction-adventure"),
    ('p', "fiction-romance"),
    ('r', "humor"),
];

/// Samples: `package/ca01` and the like.
pub fn wanted(path: &str) -> bool {
    sample(path).is_some()
}

/// File name and genre of the sample that lies at `path`.
fn sample(path: &str) -> Option<(&str, &'static str)> {
    let name = path.rsplit('/').next()?;
    let mut chars = name.chars();
    let (Some('c'), Some(letter)) = (chars.next(), chars.next()) else { return None };
    let genre = GENRES.iter().find(|(l, _)| *l == letter)?.1;
    let number = chars.as_str();
    (number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit())).then_some((name, genre))
}

/// A tagged line as it would be printed: tags dropped, quotes restored, punctuation closed up.
///
/// The tag is what follows a token's last `/`. A mark that ends a sentence and is given twice (`?/. ?/.`, a habit of
/// this edition) is written once. A single `'` opens and closes by turns.
pub fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut glued = true;
    let mut single_open = false;
    let mut previous = "";
    for token in line.split_whitespace() {
        let word = token.rsplit_once('/').map_or(token, |(word, _)| word);
        if word == previous && matches!(word, "?" | "!" | ";" | ":") {
            continue;
        }
        previous = word;
        let opens = match word {
            "``" | "(" | "[" | "{" => true,
            "'" => !single_open,
            _ => false,
        };
        let closes = match word {
            "''" | ")" | "]" | "}" | "." | "," | ";" | ":" | "?" | "!" => true,
            "'" => single_open,
            _ => false,
        };
        if word == "'" {
            single_open = !single_open;
        }
        if !closes && !glued {
            out.push(' ');
        }
        out.push_str(match word {
            "``" | "''" => "\"",
            word => word,
        });
        glued = opens;
    }
    out
}

/// Samples to sentences: document `ca01`, record `ca01#12` (counted over lines that are not blank), topic = genre.
///
/// # Errors
/// When no entry is a sample, or nothing is left after cleaning.
pub fn read(entries: &[Entry], keep: &Keep) -> Result<Corpus, Error> {
    let mut samples: Vec<(&str, &'static str, &Entry)> =
        entries.iter().filter_map(|entry| sample(&entry.path).map(|(name, genre)| (name, genre, entry))).collect();
    samples.sort_by_key(|&(name, ..)| name);
    let mut positions = Positions::default();
    let mut found = Vec::new();
    for (name, genre, entry) in &samples {
        for line in decode(&entry.bytes, None).lines().filter(|line| !line.trim().is_empty()) {
            found.push(Record {
                id: positions.next(name),
                document: (*name).to_owned(),
                owner: None,
                topic: Some((*genre).to_owned()),
                time: None,
                text: plain(line),
                picture: None,
            });
        }
    }
    let draft =
        Draft { name: NAME.to_owned(), unit: "sentence", files: samples.len(), rules: &Rule::ALL, sentences: found };
    Corpus::build(draft, keep)
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    #[test]
    fn only_samples_are_wanted() {
        for (path, yes) in [
            ("package/ca01", true),
            ("package/cr09", true),
            ("package/ci01", false),
            ("package/ca1", false),
            ("package/CONTENTS", false),
            ("package/cats.txt", false),
        ] {
            assert_eq!(wanted(path), yes, "{path}");
        }
    }

    #[test]
    fn a_tagged_line_reads_like_print() {
        for (tagged, printed) in [
            (
                "``/`` Is/bez it/pps yours/pp$$ ''/'' ?/. ?/. She/pps asked/vbd (/( twice/rb )/) ,/, then/rb left/vbd ./.",
                "\"Is it yours\"? She asked (twice), then left.",
            ),
            (
                "The/at 1/2/cd mile/nn --/-- he/pps didn't/dod* run/vb it/ppo :/: no/rb",
                "The 1/2 mile -- he didn't run it: no",
            ),
            ("A/at '/' fine/jj '/' day/nn ;/. ;/.", "A 'fine' day;"),
            ("untagged words", "untagged words"),
            ("", ""),
        ] {
            assert_eq!(plain(tagged), printed);
        }
    }

    #[test]
    fn a_line_is_a_sentence_and_the_letter_is_the_genre() {
        let entries = [
            entry(
                "package/cn05",
                "\n\n\tThe/at mare/nn ran/vbd down/rp the/at hill/nn ./.\nNo/rb ./.\nShe/pps ran/vbd on/rp all/abn night/nn long/rb ./.\n",
            ),
            entry("package/CONTENTS", "not a sample"),
        ];
        let corpus = read(&entries, &Keep::default()).expect("two sentences");
        let got: Vec<(&str, &str)> = corpus.records.iter().map(|r| (r.id.as_str(), r.text.as_str())).collect();
        assert_eq!(got, [("cn05#0", "The mare ran down the hill."), ("cn05#2", "She ran on all night long.")]);
        assert_eq!(corpus.records[0].topic.as_deref(), Some("fiction-adventure"));
        assert_eq!(corpus.stats.files, 1);
    }
}
