//! Training texts for attackers: whole sentences, spans cut from them, and spans with words exchanged.
//!
//! A decoder trained on two cores has few sentences and many passes to see; new pairs of text and vector teach it more
//! than a second look at old ones. Spans multiply the sentences, and exchanged words make it read rare words from the
//! vector instead of guessing them from their neighbours.

use super::words::capitalised;
use crate::data::Record;
use crate::seed;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How training texts are cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Crops {
    /// Texts in all; whole sentences first, spans for the rest.
    pub texts: usize,
    /// Fewest words of a span.
    pub min_words: usize,
    /// Most words of a span.
    pub max_words: usize,
    /// Longest text in characters.
    pub max_chars: usize,
    /// Share of the spans in which one or two words are exchanged.
    pub exchanged: f64,
}

impl Default for Crops {
    fn default() -> Self {
        Self { texts: 600_000, min_words: 4, max_words: 24, max_chars: 160, exchanged: 0.3 }
    }
}

impl Crops {
    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (ok, what) in [
            (self.texts >= 1, "`texts` must be at least 1"),
            (self.min_words >= 1, "`min_words` must be at least 1"),
            (self.max_words >= self.min_words, "`max_words` must be at least `min_words`"),
            (self.max_chars >= 20, "`max_chars` must be at least 20"),
            ((0.0..=1.0).contains(&self.exchanged), "`exchanged` must be in [0, 1]"),
        ] {
            if !ok {
                problems.push(what.to_owned());
            }
        }
        problems
    }

    /// Cuts `sentences`; `words` are further words that may be put in place of others. Returns the texts, each with its
    /// sentence's document, and how many have words exchanged.
    pub fn cut(&self, sentences: &[Record], words: &[String], rng: &mut seed::Stream) -> (Vec<Record>, usize) {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut out: Vec<Record> = Vec::new();
        let mut add = |text: String, from: &Record, out: &mut Vec<Record>| {
            if text.chars().count() > self.max_chars || !seen.insert(text.clone()) {
                return false;
            }
            let id = format!("{}~{}", from.id, out.len());
            let document = from.document.clone();
            out.push(Record { id, text, document, owner: None, topic: None, time: None, picture: None });
            true
        };
        for sentence in sentences {
            if out.len() < self.texts {
                add(sentence.text.clone(), sentence, &mut out);
            }
        }
        let pool = Pool::new(sentences, words);
        // Longer sentences hold more spans: a sentence is drawn in proportion to its words.
        let mut ends: Vec<usize> = Vec::with_capacity(sentences.len());
        for sentence in sentences {
            ends.push(ends.last().copied().unwrap_or(0) + sentence.text.split_whitespace().count());
        }
        let total = ends.last().copied().unwrap_or(0);
        let mut exchanged = 0;
        // A small corpus runs out of distinct spans; three tries for each text are enough to notice.
        let mut tries = 3 * self.texts;
        while out.len() < self.texts && tries > 0 && total > 0 {
            tries -= 1;
            let word = rng.random_range(0..total);
            let sentence = &sentences[ends.partition_point(|&end| end <= word)];
            let mut span = self.span(&sentence.text, rng);
            let change = rng.random::<f64>() < self.exchanged && pool.exchange(&mut span, rng);
            if span.len() >= self.min_words {
                exchanged += usize::from(add(span.join(" "), sentence, &mut out) && change);
            }
        }
        (out, exchanged)
    }

    /// A random stretch of words. Half of the stretches are dressed as a sentence.
    fn span(&self, text: &str, rng: &mut seed::Stream) -> Vec<String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let length = rng.random_range(self.min_words..=self.max_words).min(words.len());
        let from = rng.random_range(0..=words.len() - length);
        let mut span: Vec<String> = words[from..from + length].iter().map(|w| (*w).to_owned()).collect();
        if rng.random::<bool>() {
            if let Some(first) = span.first_mut() {
                *first = capitalised(first);
            }
            if let Some(last) = span.last_mut() {
                let body = last.trim_end_matches([',', ';', ':', '-']).len();
                last.truncate(body);
                if !last.ends_with(['.', '!', '?', '"', '\'']) {
                    last.push('.');
                }
            }
        }
        span
    }
}

/// Words that may stand for others: common words and names apart.
struct Pool {
    lower: Vec<String>,
    upper: Vec<String>,
}

impl Pool {
    fn new(sentences: &[Record], words: &[String]) -> Self {
        let mut forms: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for sentence in sentences {
            for word in sentence.text.split_whitespace().skip(1).map(core) {
                if word.len() >= 3 && word.chars().all(char::is_alphabetic) {
                    let (lower, upper) = forms.entry(word.to_lowercase()).or_default();
                    if word.starts_with(char::is_uppercase) { *upper += 1 } else { *lower += 1 }
                }
            }
        }
        // A word that no text holds is most often a name.
        for word in words {
            forms.entry(word.to_lowercase()).or_insert((0, 1));
        }
        let (mut lower, mut upper) = (Vec::new(), Vec::new());
        for (word, (small, large)) in forms {
            if large > small { upper.push(capitalised(&word)) } else { lower.push(word) }
        }
        Self { lower, upper }
    }

    /// Exchanges one or two words for others of their kind; false when there was none to exchange.
    fn exchange(&self, span: &mut [String], rng: &mut seed::Stream) -> bool {
        let places: Vec<usize> = (0..span.len())
            .filter(|&i| core(&span[i]).len() >= 4 && core(&span[i]).chars().all(char::is_alphabetic))
            .collect();
        let mut changed = false;
        for _ in 0..rng.random_range(1..=2) {
            let Some(&at) = places.get(rng.random_range(0..places.len().max(1))) else { break };
            let word = core(&span[at]).to_owned();
            let from = if word.starts_with(char::is_uppercase) { &self.upper } else { &self.lower };
            let Some(other) = from.get(rng.random_range(0..from.len().max(1))) else { break };
            span[at] = span[at].replacen(&word, other, 1);
            changed = true;
        }
        changed
    }
}

/// A word without the marks around it.
fn core(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentences() -> Vec<Record> {
        ["The committee met in Boston on Monday, and Anna spoke first.", "Nobody expected the engine to stop so early."]
            .iter()
            .enumerate()
            .map(|(i, text)| Record {
                id: format!("d{i}#0"),
                document: format!("d{i}"),
                owner: None,
                topic: None,
                time: None,
                text: (*text).to_owned(),
                picture: None,
            })
            .collect()
    }

    #[test]
    fn texts_are_distinct_bounded_and_keep_their_document() {
        let crops = Crops { texts: 40, min_words: 3, max_words: 6, max_chars: 60, exchanged: 0.0 };
        let (texts, exchanged) = crops.cut(&sentences(), &[], &mut seed::stream(1, "crops", "cut"));
        let distinct: BTreeSet<&str> = texts.iter().map(|r| r.text.as_str()).collect();
        assert_eq!((distinct.len(), exchanged), (texts.len(), 0));
        assert!(texts.len() > 20, "{}", texts.len());
        for text in &texts {
            assert!(text.text.chars().count() <= 60 && text.text.split_whitespace().count() >= 3, "{}", text.text);
            let source = if text.document == "d0" { &sentences()[0].text } else { &sentences()[1].text };
            let source = source.to_lowercase();
            assert!(source.contains(core(&text.text.to_lowercase())), "{}", text.text);
        }
        let again = crops.cut(&sentences(), &[], &mut seed::stream(1, "crops", "cut")).0;
        assert_eq!(again, texts);
    }

    #[test]
    fn every_part_of_a_corpus_is_drawn_in_proportion_to_its_words() {
        let words = |i: usize| (0..20).map(|w| format!("w{i}x{w}")).collect::<Vec<_>>().join(" ");
        let record = |i: usize| Record {
            id: i.to_string(),
            text: words(i),
            document: i.to_string(),
            owner: None,
            topic: None,
            time: None,
            picture: None,
        };
        let corpus: Vec<Record> = (0..64).map(record).collect();
        let crops = Crops { texts: 6464, min_words: 4, max_words: 12, max_chars: 160, exchanged: 0.0 };
        let (texts, _) = crops.cut(&corpus, &[], &mut seed::stream(1, "crops", "shares"));
        let mut drawn = [0_usize; 8];
        for text in &texts[64..] {
            drawn[text.document.parse::<usize>().expect("a number") / 8] += 1;
        }
        assert_eq!(drawn.iter().sum::<usize>(), 6400);
        assert!(drawn.iter().all(|n| (700..=900).contains(n)), "800 spans an eighth are expected: {drawn:?}");
    }

    #[test]
    fn exchanged_words_come_from_the_pool_and_keep_their_capital() {
        let crops = Crops { texts: 60, exchanged: 1.0, ..Crops::default() };
        let extra = ["zanzibar".to_owned()];
        let (texts, exchanged) = crops.cut(&sentences(), &extra, &mut seed::stream(2, "crops", "cut"));
        assert!(exchanged > 20, "{exchanged}");
        assert!(texts.iter().any(|r| r.text.contains("Zanzibar")), "a name takes the place of a name");
        assert!(texts.iter().all(|r| !r.text.contains("zanzibar")));
    }

    #[test]
    fn no_sentences_give_no_texts() {
        assert!(Crops::default().cut(&[], &[], &mut seed::stream(3, "crops", "cut")).0.is_empty());
    }
}
