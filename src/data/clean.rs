//! From bytes to sentences that are worth attacking: decoding, splitting, and the rules that keep or drop a sentence.
//!
//! The order is fixed: [`decode`], [`paragraphs`], [`sentences`], then each [`Rule`] in the order of [`Rule::ALL`]. A
//! dropped sentence is counted under the first rule that it breaks. The splitter is a rule of thumb on purpose: it is
//! the same everywhere, it can be read in a minute, and its known errors are listed at [`sentences`].

/// Longest and shortest sentence and the size of the pictures that a study wants. The other rules are not negotiable.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// Fewest characters (Unicode scalar values).
    pub min_chars: usize,
    /// Most characters (Unicode scalar values).
    pub max_chars: usize,
    /// Fewest words: runs between white space that hold a letter or a digit.
    pub min_words: usize,
    /// Width and height of every picture, in pixels.
    pub side_px: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self { min_chars: 20, max_chars: 220, min_words: 5, side_px: 64 }
    }
}

/// Why a sentence is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Fewer characters than [`Keep::min_chars`].
    Short,
    /// More characters than [`Keep::max_chars`].
    Long,
    /// Fewer words than [`Keep::min_words`].
    FewWords,
    /// See [`has_link`].
    Link,
    /// See [`has_markup`].
    Markup,
    /// See [`has_address`].
    Address,
}

impl Rule {
    /// Every rule, in the order in which they are asked.
    pub const ALL: [Rule; 6] = [Rule::Short, Rule::Long, Rule::FewWords, Rule::Link, Rule::Markup, Rule::Address];

    /// The rules on length alone: all that is asked of one's own records.
    pub const LENGTH: [Rule; 3] = [Rule::Short, Rule::Long, Rule::FewWords];

    /// The name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Short => "short",
            Rule::Long => "long",
            Rule::FewWords => "few_words",
            Rule::Link => "link",
            Rule::Markup => "markup",
            Rule::Address => "address",
        }
    }

    /// True when `text` breaks this rule.
    pub fn drops(self, text: &str, keep: &Keep) -> bool {
        match self {
            Rule::Short => text.chars().count() < keep.min_chars,
            Rule::Long => text.chars().count() > keep.max_chars,
            Rule::FewWords => text.split_whitespace().filter(|word| has_letter(word)).count() < keep.min_words,
            Rule::Link => has_link(text),
            Rule::Markup => has_markup(text),
            Rule::Address => has_address(text),
        }
    }
}

/// A web link: `http://` or `https://`, in any case.
pub fn has_link(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.contains("http://") || lower.contains("https://")
}

/// A character of code or mark-up rather than of prose: one of `< > { } = \`.
pub fn has_markup(text: &str) -> bool {
    text.contains(['<', '>', '{', '}', '=', '\\'])
}

/// Something like a mail address: `@` and at least four characters that are not white space behind it.
pub fn has_address(text: &str) -> bool {
    text.match_indices('@')
        .any(|(at, _)| text[at + 1..].chars().take_while(|c| !c.is_whitespace()).take(4).count() == 4)
}

/// Bytes to text: the declared character set, else UTF-8, else latin-1.
///
/// A declared `us-ascii` counts as undeclared (old mail programs declare it for anything), and latin-1 is read as
/// windows-1252, which adds the typographic quotes that such texts really use. Never fails: windows-1252 has a
/// character for every byte.
pub fn decode(bytes: &[u8], declared: Option<&str>) -> String {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let declared = declared.filter(|name| !name.trim().eq_ignore_ascii_case("us-ascii"));
    if let Some(encoding) = declared.and_then(|name| encoding_rs::Encoding::for_label(name.trim().as_bytes())) {
        let (text, broken) = encoding.decode_without_bom_handling(bytes);
        if !broken {
            return text.into_owned();
        }
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
    }
}

/// `text` on one line: every run of white space becomes one space, none at the ends.
pub fn collapse(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

fn has_letter(text: &str) -> bool {
    text.contains(char::is_alphanumeric)
}

/// The paragraphs of `text`, each [`collapse`]d: runs of lines between lines without a letter or a digit (blank lines,
/// rulers).
pub fn paragraphs(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().chain(std::iter::once("")) {
        if has_letter(line) {
            lines.push(line);
        } else if !lines.is_empty() {
            out.push(collapse(&lines.join(" ")));
            lines.clear();
        }
    }
    out
}

/// Titles and the like that are always followed by more of the same sentence; upper and lower case count.
const ABBREVIATIONS: [&str; 34] = [
    "Mr", "Mrs", "Ms", "Messrs", "Dr", "Prof", "St", "Mt", "Sen", "Rep", "Gov", "Gen", "Col", "Maj", "Capt", "Cmdr",
    "Lt", "Sgt", "Cpl", "Pte", "Rev", "Fr", "Hon", "Pres", "Supt", "Insp", "Det", "vs", "cf", "e.g", "i.e", "viz",
    "approx", "al",
];

/// The sentences of a paragraph that stands on one line (see [`collapse`]).
///
/// A sentence ends at a run of `.`, `!`, `?` (closing quotes and brackets belong to it) when white space and then a
/// capital or a quote follow, the capital perhaps behind an opening bracket. A single full stop does not end one behind
/// an abbreviation of a short kept list ("Dr."), a single capital other than "I" ("J. Smith") or capitals with stops
/// between them ("U.S.").
///
/// Known errors, accepted: "in the U.S. The ..." stays one sentence; "Yahoo! Groups" becomes two; a sentence that starts
/// with a digit or a small letter is not seen.
pub fn sentences(paragraph: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut from = 0;
    while let Some(found) = paragraph[from..].find(['.', '!', '?']) {
        let mark = from + found;
        let behind = &paragraph[mark..];
        let marks = behind.len() - behind.trim_start_matches(['.', '!', '?']).len();
        let closers = behind[marks..].len() - behind[marks..].trim_start_matches(is_closer).len();
        let end = mark + marks + closers;
        from = end;
        let Some(next) = paragraph[end..].strip_prefix(' ') else { continue };
        let lone_stop = marks == 1 && closers == 0 && behind.starts_with('.');
        if starts_sentence(next) && !(lone_stop && is_abbreviation(&paragraph[start..mark])) {
            out.push(&paragraph[start..end]);
            start = end + 1;
        }
    }
    if start < paragraph.len() {
        out.push(&paragraph[start..]);
    }
    out
}

fn is_closer(c: char) -> bool {
    matches!(c, '"' | '\'' | ')' | ']' | '\u{201d}' | '\u{2019}' | '\u{bb}')
}

fn starts_sentence(next: &str) -> bool {
    let behind_bracket = next.trim_start_matches(['(', '[']);
    match behind_bracket.chars().next() {
        Some('"' | '\'' | '\u{201c}' | '\u{2018}' | '\u{ab}') => true,
        Some(c) => c.is_uppercase(),
        None => false,
    }
}

/// Whether the full stop behind `text` belongs to its last word.
fn is_abbreviation(text: &str) -> bool {
    let word = text.rsplit(' ').next().unwrap_or(text).trim_start_matches(|c: char| !c.is_alphanumeric());
    if ABBREVIATIONS.contains(&word) {
        return true;
    }
    let letters: Vec<&str> = word.split('.').collect();
    letters.iter().all(|part| {
        let mut chars = part.chars();
        chars.next().is_some_and(char::is_uppercase) && chars.next().is_none()
    }) && word != "I"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_ends_before_a_capital_or_a_quote() {
        assert_eq!(
            sentences("It rained. \"Why?\" she asked! (Nobody knew.) Then it stopped... Really?! Yes"),
            ["It rained.", "\"Why?\" she asked!", "(Nobody knew.)", "Then it stopped...", "Really?!", "Yes"]
        );
        assert_eq!(sentences("He said \u{201c}no.\u{201d} \u{201c}Why?\u{201d}").len(), 2);
        assert_eq!(
            sentences("It costs $3.5m a year. that is a lot. 12 say so."),
            ["It costs $3.5m a year. that is a lot. 12 say so."]
        );
        assert!(sentences("").is_empty());
        assert_eq!(sentences("..."), ["..."]);
    }

    #[test]
    fn a_title_an_initial_and_dotted_capitals_do_not_end_a_sentence() {
        for whole in [
            "My doctor is Dr. Smith of Leeds.",
            "It was J. K. Rowling who wrote (Mr. Potter knows) it.",
            "The U.S. Senate met Gen. Brown.",
            "Some fruit, e.g. Cox apples, keep well.",
        ] {
            assert_eq!(sentences(whole), [whole]);
        }
        assert_eq!(sentences("So do I. They left at 5 p.m. Nobody stayed.").len(), 3);
    }

    #[test]
    fn an_abbreviation_with_another_mark_ends_its_sentence() {
        assert_eq!(
            sentences("Is he a Dr? Smith knows. (He asked the Rev.) Green left."),
            ["Is he a Dr?", "Smith knows.", "(He asked the Rev.)", "Green left."]
        );
    }

    #[test]
    fn nothing_but_the_space_between_sentences_is_lost() {
        let text = "One. Two? \u{201c}Three\u{201d} is it. (Four!) five. Six";
        assert_eq!(sentences(text).join(" "), text);
    }

    #[test]
    fn paragraphs_end_at_blank_lines_and_stand_on_one_line() {
        assert_eq!(
            paragraphs("\r\nOne\r\n  two\tthree \n \t\n\nfour\u{a0}five\n-- * --\nsix"),
            ["One two three", "four five", "six"]
        );
        assert!(paragraphs(" \n\n").is_empty());
    }

    #[test]
    fn bytes_are_read_as_declared_else_utf8_else_latin1() {
        assert_eq!(decode(b"caf\xe9", None), "caf\u{e9}");
        assert_eq!(decode("caf\u{e9}".as_bytes(), None), "caf\u{e9}");
        assert_eq!(decode(b"\xef\xbb\xbfbom", None), "bom");
        assert_eq!(decode(b"\xcf\xf0\xe8", Some("windows-1251")), "\u{41f}\u{440}\u{438}");
        assert_eq!(decode("\u{201c}a\u{201d}".as_bytes(), Some("US-ASCII")), "\u{201c}a\u{201d}");
        assert_eq!(decode(b"\x93a\x94", Some("no-such-set")), "\u{201c}a\u{201d}");
        assert_eq!(decode(b"caf\xe9", Some("utf-8")), "caf\u{e9}");
    }

    #[test]
    fn each_rule_drops_what_it_names_and_nothing_else() {
        let keep = Keep { min_chars: 10, max_chars: 30, min_words: 3, ..Keep::default() };
        for (text, rule) in [
            ("a b c", Some(Rule::Short)),
            ("a sentence that is far too long", Some(Rule::Long)),
            ("onlytwo -- ... words", Some(Rule::FewWords)),
            ("see HTTPS://example today", Some(Rule::Link)),
            ("if a = b then stop", Some(Rule::Markup)),
            ("write to ann@mail.test now", Some(Rule::Address)),
            ("meet me @ the old mill", None),
            ("three eggs @12p each", None),
            ("an ordinary sentence", None),
        ] {
            assert_eq!(Rule::ALL.into_iter().find(|r| r.drops(text, &keep)), rule, "{text}");
        }
    }

    #[test]
    fn lengths_count_characters_not_bytes() {
        let keep = Keep { min_chars: 4, max_chars: 4, min_words: 1, ..Keep::default() };
        assert!(!Rule::ALL.into_iter().any(|r| r.drops("\u{e9}\u{e9}\u{e9}\u{e9}", &keep)));
    }
}
