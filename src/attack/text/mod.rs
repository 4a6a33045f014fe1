//! Text attackers, and what they share: words, a lexicon read from vectors, candidates scored by re-embedding.

pub mod align;
pub mod bag_of_words;
pub mod bigrams;
pub mod corrector;
pub mod crops;
pub mod damage;
pub mod decoder;
mod hypotheses;
pub mod kept;
pub mod lexicon;
pub mod nearest;
pub mod own_space;
pub mod prior;
pub mod search;
pub mod tokenizer;
pub mod words;
