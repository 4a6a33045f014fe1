//! Text as a list of words and marks, and back.

/// Marks that stand on their own and cling to the word before them.
const CLOSING: &str = ".,!?;:)]}%";
/// Marks that stand on their own and cling to the word after them.
const OPENING: &str = "([{$£€#";

/// Cuts a text at white space and splits leading and trailing marks off each piece; inner marks stay (`don't`, `3.5m`).
pub fn split(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for piece in text.split_whitespace() {
        let head = piece.len() - piece.trim_start_matches(is_mark).len();
        let (lead, rest) = piece.split_at(head);
        let body = rest.trim_end_matches(is_mark);
        out.extend(lead.chars().map(String::from));
        if !body.is_empty() {
            out.push(body.to_owned());
        }
        out.extend(rest[body.len()..].chars().map(String::from));
    }
    out
}

/// Puts words and marks back into a text; quotation marks alternate between opening and closing.
pub fn join<S: AsRef<str>>(words: &[S]) -> String {
    let mut out = String::new();
    let mut glue = true;
    let mut open_quote = false;
    for word in words {
        let word = word.as_ref();
        let quote = word == "\"";
        let closes = CLOSING.contains(word) || (quote && open_quote) || word == "'";
        if !glue && !closes {
            out.push(' ');
        }
        out.push_str(word);
        glue = OPENING.contains(word) || (quote && !open_quote);
        if quote {
            open_quote = !open_quote;
        }
    }
    out
}

/// True for a mark that [`split`] separates from words.
fn is_mark(c: char) -> bool {
    CLOSING.contains(c)
        || OPENING.contains(c)
        || matches!(c, '"' | '\'' | '-' | '–' | '—' | '“' | '”' | '‘' | '’' | '…')
}

/// True for an element that is a word rather than a mark.
pub fn is_word(element: &str) -> bool {
    element.chars().any(char::is_alphanumeric)
}

/// A word with a capital at its start.
pub fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The form under which a lexicon files a word.
pub fn key(word: &str) -> String {
    word.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting_and_joining_keep_the_text() {
        for text in [
            "Mr Blair said: \"We don't know\", and left.",
            "Profits rose 3.5% (to $4.5m), said the bank's chief.",
            "It cost £20!",
        ] {
            assert_eq!(join(&split(text)), text);
        }
    }

    #[test]
    fn marks_are_their_own_elements() {
        assert_eq!(split("\"Well,\" he said."), ["\"", "Well", ",", "\"", "he", "said", "."]);
        assert!(split("  ").is_empty());
    }
}
