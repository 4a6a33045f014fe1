//! Drafts to correct: a text of one's own, spoilt on purpose.

use super::words;
use crate::data::Record;
use crate::seed;
use rand::RngExt;

/// Spoils texts, so that a corrector sees drafts of every quality and not only those that a decoder happens to write.
///
/// # Formula
/// A share `q ~ U(0.1, 0.9)` of the words is struck: of ten, six are exchanged for a word of another text, two are left out,
/// one trades places with the next, one gets a strange word behind it.
///
/// # Source
/// Own. Vec2text trains on one decoder's hypotheses only; those of a small decoder share so few words with the text that a
/// corrector learns nothing from reading them.
pub struct Damage<'a> {
    texts: &'a [Record],
}

impl<'a> Damage<'a> {
    /// Strange words are taken from `texts`, in proportion to how often they occur.
    pub fn new(texts: &'a [Record]) -> Self {
        Self { texts }
    }

    /// A spoilt copy of `text`; never empty unless the text is.
    pub fn spoil(&self, text: &str, rng: &mut seed::Stream) -> String {
        let share: f64 = rng.random_range(0.1..0.9);
        let mut sound = words::split(text).into_iter().peekable();
        let mut out = Vec::new();
        while let Some(word) = sound.next() {
            if rng.random::<f64>() >= share {
                out.push(word);
                continue;
            }
            match rng.random_range(0..10) {
                0..6 => out.push(self.strange(rng).unwrap_or(word)),
                6..8 => {
                    if out.is_empty() && sound.peek().is_none() {
                        out.push(word);
                    }
                }
                8 => {
                    out.extend(sound.next());
                    out.push(word);
                }
                _ => {
                    out.push(word);
                    out.extend(self.strange(rng));
                }
            }
        }
        words::join(&out)
    }

    /// A random word of a random text.
    fn strange(&self, rng: &mut seed::Stream) -> Option<String> {
        let text = &self.texts.get(rng.random_range(0..self.texts.len().max(1)))?.text;
        let found = words::split(text);
        found.get(rng.random_range(0..found.len().max(1))).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::scene::Scene;
    use std::collections::BTreeSet;

    #[test]
    fn a_spoilt_text_keeps_some_of_its_words_and_loses_others() {
        let scene = Scene::new(60, "identity", &[]);
        let damage = Damage::new(&scene.records);
        let mut rng = seed::stream(1, "damage tests", "spoil");
        let (mut kept, mut whole) = (0, 0);
        for record in &scene.records {
            let spoilt = damage.spoil(&record.text, &mut rng);
            assert!(!spoilt.is_empty());
            let sound: BTreeSet<String> = words::split(&record.text).into_iter().collect();
            whole += sound.len();
            kept += words::split(&spoilt).into_iter().collect::<BTreeSet<_>>().intersection(&sound).count();
        }
        let share = kept as f64 / whole as f64;
        // Half of the words are struck, and of those two in ten stay.
        assert!((0.5..0.75).contains(&share), "{share} of the words are left");
    }

    #[test]
    fn a_lone_word_is_never_lost() {
        let scene = Scene::new(4, "identity", &[]);
        let damage = Damage::new(&scene.records);
        let mut rng = seed::stream(2, "damage tests", "lone");
        assert!((0..200).all(|_| !damage.spoil("word", &mut rng).is_empty()));
        assert_eq!(Damage::new(&[]).spoil("", &mut rng), "");
    }
}
