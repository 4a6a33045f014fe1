//! Tokenisers: what each text metric counts.

/// Lower-case runs of `[a-z0-9]`: the tokens of the F1s, of ROUGE and of the edit distance.
///
/// Lower-casing comes first and is Unicode's, so the Kelvin sign becomes a `k`; every other script yields no token.
///
/// # Source
/// rouge-score 0.1.2, `tokenize` without stemmer.
pub(super) fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()))
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Tokens that say what a text is about: [`words`] without [`STOP_WORDS`].
pub(super) fn content_words(text: &str) -> Vec<String> {
    let mut tokens = words(text);
    tokens.retain(|token| STOP_WORDS.binary_search(&token.as_str()).is_err());
    tokens
}

/// Lower-case alphanumeric runs of any script, one space between them: equal texts up to case, punctuation and spacing.
pub(super) fn normalised(text: &str) -> String {
    let lower = text.to_lowercase();
    let runs: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty()).collect();
    runs.join(" ")
}

/// Tokens of mteval-v13a, the tokeniser behind every published BLEU of the field.
///
/// # Source
/// sacreBLEU 2.6.0, `tokenizer_13a` and `tokenizer_re`; each pass below is one of its regular expressions, applied to
/// non-overlapping pairs of characters from left to right.
pub(super) fn mteval_13a(text: &str) -> Vec<String> {
    let mut line = text.trim_end_matches(is_space).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    if line.contains('&') {
        line = line.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    }

    // ([\{-\~\[-\` -\&\(-\+\:-\@\/]) -> ` \1 `; the ranges leave out the apostrophe, comma, dash and full stop.
    let mut spaced = String::with_capacity(2 * line.len());
    spaced.push(' ');
    for c in line.chars() {
        if matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/') {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced.push(' ');

    let mark = |c: char| c == '.' || c == ',';
    // ([^0-9])([\.,]) -> `\1 \2 `
    let line = rewrite_pairs(&spaced, |a, b| !a.is_ascii_digit() && mark(b), |a, b| [a, ' ', b, ' ']);
    // ([\.,])([^0-9]) -> ` \1 \2`
    let line = rewrite_pairs(&line, |a, b| mark(a) && !b.is_ascii_digit(), |a, b| [' ', a, ' ', b]);
    // ([0-9])(-) -> `\1 \2 `
    let line = rewrite_pairs(&line, |a, b| a.is_ascii_digit() && b == '-', |a, b| [a, ' ', b, ' ']);
    line.split(is_space).filter(|token| !token.is_empty()).map(str::to_owned).collect()
}

/// The characters of `text` without white space, the units of chrF.
pub(super) fn characters(text: &str) -> Vec<char> {
    text.chars().filter(|&c| !is_space(c)).collect()
}

/// What Python's `str.split()` splits on: Unicode white space and the four information separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn rewrite_pairs(text: &str, found: impl Fn(char, char) -> bool, rewrite: impl Fn(char, char) -> [char; 4]) -> String {
    let mut out = String::with_capacity(2 * text.len());
    let mut chars = text.chars().peekable();
    while let Some(a) = chars.next() {
        match chars.peek() {
            Some(&b) if found(a, b) => {
                out.extend(rewrite(a, b));
                chars.next();
            }
            _ => out.push(a),
        }
    }
    out
}

/// English function words and the pieces that splitting at an apostrophe leaves, sorted.
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "again", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "because",
    "been", "before", "being", "but", "by", "can", "could", "d", "did", "do", "does", "doing", "don", "down", "for",
    "from", "had", "has", "have", "having", "he", "her", "here", "hers", "him", "his", "how", "i", "if", "in", "into",
    "is", "it", "its", "just", "ll", "m", "may", "me", "might", "more", "most", "must", "my", "no", "nor", "not", "of",
    "off", "on", "only", "or", "other", "our", "ours", "out", "over", "own", "re", "s", "same", "shall", "she",
    "should", "so", "some", "such", "t", "than", "that", "the", "their", "theirs", "them", "then", "there", "these",
    "they", "this", "those", "through", "to", "too", "under", "until", "up", "us", "ve", "very", "was", "we", "were",
    "what", "when", "where", "which", "while", "who", "whom", "whose", "why", "will", "with", "would", "you", "your",
    "yours",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stop_words_are_sorted_and_unique() {
        assert!(STOP_WORDS.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn words_are_lower_case_ascii_runs() {
        assert_eq!(words("Dr. Smith's 2nd visit, caf\u{e9}"), ["dr", "smith", "s", "2nd", "visit", "caf"]);
        assert_eq!(content_words("Dr. Smith's 2nd visit to the clinic"), ["dr", "smith", "2nd", "visit", "clinic"]);
        assert!(words("\u{4eca}\u{65e5}").is_empty());
    }

    #[test]
    fn normalised_texts_forget_case_punctuation_and_spacing_in_any_script() {
        assert_eq!(normalised(" \u{41f}\u{440}\u{438}\u{432}\u{435}\u{442},  \u{43c}\u{438}\u{440}! "), "привет мир");
        assert_eq!(normalised("?!"), "");
    }

    #[test]
    fn marks_stay_inside_numbers_only() {
        assert_eq!(mteval_13a("It costs 1,000.5, not 5."), ["It", "costs", "1,000.5", ",", "not", "5", "."]);
        assert_eq!(mteval_13a("don't 1990-1995 A-10"), ["don't", "1990", "-", "1995", "A-10"]);
    }
}
