//! `spam-assassin`: mail of real people and mailing lists, 2002 and 2003, ham only. The realistic victim.
//!
//! Only what the sender typed counts. Quotes carry other people's mail and would put one sentence on both sides of a
//! split; signatures and footers repeat under every mail. The rules, in order:
//!
//! 1. the first `text/plain` part that is no attachment, transfer encoding undone, decoded as declared ([`decode`]);
//! 2. [`before_signature`]: everything from a signature or footer on is dropped;
//! 3. [`without_quotes`]: quoted lines and the line that introduces them are dropped;
//! 4. paragraphs, sentences and keep rules as for every corpus.
//!
//! Nothing that names a person leaves this file except the text itself: the owner is a hash of the address, the
//! document a hash of the subject, so record ids can stand in outputs that anybody may read.

use super::{Corpus, Draft, Entry, Positions, pseudonym};
use crate::data::clean::{Keep, Rule, collapse, decode, paragraphs, sentences};
use crate::data::{Error, Record};
use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::{Encoding, Message, MessageParser, MessagePart, MimeHeaders, PartType};

/// The corpus's and the asset's name.
pub const NAME: &str = "spam-assassin";

/// Ham: `.../data/{easy-ham-1,easy-ham-2,hard-ham-1}/*.txt`.
pub fn wanted(path: &str) -> bool {
    ham(path).is_some()
}

/// `easy-ham-1/00001` for the mail that lies at `path`.
fn ham(path: &str) -> Option<String> {
    let mut parts = path.rsplit('/');
    let (file, group, data) = (parts.next()?, parts.next()?, parts.next()?);
    let number = file.strip_suffix(".txt")?.split('.').next()?;
    (data == "data" && matches!(group, "easy-ham-1" | "easy-ham-2" | "hard-ham-1")).then(|| format!("{group}/{number}"))
}

/// Mails to sentences: record `easy-ham-1/00003#7`, document = thread (the subject without `Re:`, `Fwd:` and list tags,
/// hashed; a mail without a subject is its own), owner = hashed sender, time = `Date` in RFC 3339.
///
/// # Errors
/// When no entry is a mail, a mail has no header, two mails have one number, or nothing is left after cleaning.
pub fn read(entries: &[Entry], keep: &Keep) -> Result<Corpus, Error> {
    let mut mails: Vec<(String, &Entry)> =
        entries.iter().filter_map(|entry| ham(&entry.path).map(|id| (id, entry))).collect();
    mails.sort_by(|a, b| (&a.0, &a.1.path).cmp(&(&b.0, &b.1.path)));
    let parser = MessageParser::default();
    let mut positions = Positions::default();
    let mut found = Vec::new();
    if let Some(pair) = mails.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::Malformed {
            path: pair[1].1.path.clone(),
            line: None,
            why: format!("a second mail with the number `{}`", pair[1].0),
        });
    }
    for (id, entry) in &mails {
        let Some(message) = parser.parse(without_envelope(&entry.bytes)) else {
            return Err(Error::Malformed { path: entry.path.clone(), line: None, why: "not a mail".to_owned() });
        };
        let document = match message.thread_name().map(|name| collapse(&name.to_lowercase())) {
            Some(name) if !name.is_empty() => format!("thread/{}", pseudonym(&name)),
            _ => id.clone(),
        };
        let sender = message.from().and_then(|from| from.first()).and_then(|addr| addr.address());
        let owner = sender.map(|address| pseudonym(&address.trim().to_lowercase()));
        let time = message.date().filter(|date| date.is_valid()).map(mail_parser::DateTime::to_rfc3339);
        let Some(text) = first_plain_text(&message) else { continue };
        for paragraph in paragraphs(&without_quotes(before_signature(&text))) {
            for sentence in sentences(&paragraph) {
                found.push(Record {
                    id: positions.next(id),
                    document: document.clone(),
                    owner: owner.clone(),
                    topic: None,
                    time: time.clone(),
                    text: sentence.to_owned(),
                    picture: None,
                });
            }
        }
    }
    let draft =
        Draft { name: NAME.to_owned(), unit: "sentence", files: mails.len(), rules: &Rule::ALL, sentences: found };
    Corpus::build(draft, keep)
}

/// A mailbox file starts a mail with `From address date`, which is no header.
fn without_envelope(mail: &[u8]) -> &[u8] {
    if mail.starts_with(b"From ") {
        let end = mail.iter().position(|&b| b == b'\n').map_or(mail.len(), |at| at + 1);
        &mail[end..]
    } else {
        mail
    }
}

/// The first `text/plain` part that is no attachment; a part without a type is plain text.
fn first_plain_text(message: &Message) -> Option<String> {
    let part = message.parts.iter().find(|part| {
        let plain = part.content_type().is_none_or(|t| {
            t.ctype().eq_ignore_ascii_case("text") && t.subtype().is_none_or(|s| s.eq_ignore_ascii_case("plain"))
        });
        plain
            && matches!(part.body, PartType::Text(_))
            && !part.content_disposition().is_some_and(mail_parser::ContentType::is_attachment)
    })?;
    Some(part_text(message, part))
}

/// The parser decodes text itself, but loses every byte of an undeclared latin-1; hence from the raw bytes.
fn part_text(message: &Message, part: &MessagePart) -> String {
    let declared = part.content_type().and_then(|t| t.attribute("charset"));
    let raw = message.raw_message.get(part.offset_body as usize..part.offset_end as usize).unwrap_or_default();
    let decoded = match part.encoding {
        Encoding::None => return decode(raw, declared),
        Encoding::QuotedPrintable => quoted_printable_decode(raw),
        Encoding::Base64 => base64_decode(raw),
    };
    match decoded {
        Some(bytes) => decode(&bytes, declared),
        None => part.text_contents().unwrap_or_default().to_owned(),
    }
}

/// The text up to its signature, footer or quoted whole mail.
///
/// That is the first line which is `--` (and white space), holds ten underscores in a row, starts a PGP signature, or
/// says `Original Message` or `Forwarded message` between hyphens.
pub fn before_signature(text: &str) -> &str {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        let words = trimmed.trim_matches('-').trim().to_ascii_lowercase();
        let between_hyphens = trimmed.starts_with("--")
            && (words.starts_with("original message")
                || words.starts_with("forwarded message")
                || words.starts_with("begin pgp signature"));
        if trimmed == "--" || trimmed.contains("__________") || between_hyphens {
            break;
        }
        end += line.len();
    }
    &text[..end]
}

/// The text without quoted lines (`>` or `|` first) and without the lines that introduce them.
///
/// The introduction is the last line before a quote, blank lines aside, if it ends with a colon ("Ann wrote:"); the line
/// above it goes too where the two are one paragraph and it starts with "On " ("On Friday, Ann Smith"). A quote ends a
/// paragraph.
pub fn without_quotes(text: &str) -> String {
    let is_quote = |line: &str| line.trim_start().starts_with(['>', '|']);
    let mut kept: Vec<&str> = Vec::new();
    let mut in_quote = false;
    for line in text.lines() {
        if is_quote(line) {
            if !in_quote {
                drop_introduction(&mut kept);
                kept.push("");
            }
            in_quote = true;
        } else {
            in_quote = false;
            kept.push(line);
        }
    }
    kept.join("\n")
}

fn drop_introduction(kept: &mut Vec<&str>) {
    while kept.last().is_some_and(|line| line.trim().is_empty()) {
        kept.pop();
    }
    if kept.last().is_some_and(|line| line.trim_end().ends_with(':')) {
        kept.pop();
        if kept.last().is_some_and(|line| line.trim_start().starts_with("On ")) {
            kept.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    const MULTIPART: &str = "From ann@mail.test Thu Aug 22 13:52:59 2002\n\
        From: \"Ann Smith\" <Ann@Mail.test>\n\
        Date: Thu, 22 Aug 2002 13:52:38 +0100\n\
        Subject: Re: [walkers] Fwd: The  Hill\n\
        MIME-Version: 1.0\n\
        Content-Type: multipart/alternative; boundary=\"cut\"\n\
        \n\
        --cut\n\
        Content-Type: text/html; charset=utf-8\n\
        \n\
        <p>Not this part, which is HTML.</p>\n\
        --cut\n\
        Content-Type: text/plain; charset=iso-8859-1\n\
        Content-Transfer-Encoding: quoted-printable\n\
        \n\
        Hello Bob,\n\
        \n\
        We met at the caf=E9 below the hill and then we walked=\n \
        up to the old mill. My knee hurt all the way.\n\
        \n\
        On Wednesday, 21 Aug 2002,\n\
        Bob Jones wrote:\n\
        \n\
        > Shall we meet at the church instead of the mill?\n\
        >\n\
        > I could bring my sister and both of her dogs.\n\
        The church is closed until the end of June.\n\
        -- \n\
        Ann Smith, 12 Mill Lane, is my full address.\n\
        --cut--\n";

    fn mail(headers: &str, body: &[u8]) -> Vec<u8> {
        [headers.as_bytes(), b"\n\n", body].concat()
    }

    fn one(headers: &str, body: &[u8]) -> Corpus {
        read(&[entry("package/data/easy-ham-1/00001.abc.txt", mail(headers, body))], &Keep::default())
            .expect("a sentence is left")
    }

    #[test]
    fn only_ham_is_wanted() {
        assert!(wanted("package/data/easy-ham-1/00001.7c53.txt") && wanted("package/data/hard-ham-1/0250.7c.txt"));
        for other in [
            "package/data/spam-1/00001.7c53.txt",
            "package/data/easy-ham-1/00001.7c53.json",
            "package/docs/easy-ham-1/a.txt",
        ] {
            assert!(!wanted(other), "{other}");
        }
    }

    #[test]
    fn a_multipart_mail_yields_what_its_sender_typed() {
        let corpus = read(&[entry("package/data/easy-ham-1/00003.9f.txt", MULTIPART)], &Keep::default())
            .expect("three sentences");
        let got: Vec<(&str, &str)> = corpus.records.iter().map(|r| (r.id.as_str(), r.text.as_str())).collect();
        assert_eq!(
            got,
            [
                ("easy-ham-1/00003#1", "We met at the caf\u{e9} below the hill and then we walked up to the old mill."),
                ("easy-ham-1/00003#2", "My knee hurt all the way."),
                ("easy-ham-1/00003#3", "The church is closed until the end of June."),
            ]
        );
        let first = &corpus.records[0];
        assert_eq!(first.document, format!("thread/{}", pseudonym("the hill")));
        assert_eq!(first.owner, Some(pseudonym("ann@mail.test")));
        assert_eq!(first.time.as_deref(), Some("2002-08-22T13:52:38+01:00"));
        assert_eq!(first.topic, None);
    }

    #[test]
    fn no_record_field_but_the_text_names_anybody() {
        let corpus = read(&[entry("package/data/easy-ham-1/00003.9f.txt", MULTIPART)], &Keep::default())
            .expect("three sentences");
        for record in &corpus.records {
            let shown = format!("{} {} {:?}", record.id, record.document, record.owner).to_lowercase();
            assert!(!["ann", "smith", "hill"].iter().any(|name| shown.contains(name)), "{shown}");
        }
    }

    #[test]
    fn replies_and_forwards_share_a_thread_and_others_do_not() {
        let thread = |subject: &str| {
            one(&format!("From: a@b.test\nSubject: {subject}"), b"The ball rolled under the parked car.").records[0]
                .document
                .clone()
        };
        let first = thread("The old mill");
        for reply in
            ["Re: The old mill", "RE: Fwd: the  OLD mill", "[walkers] Re: The old mill", "FW: Re: The old mill"]
        {
            assert_eq!(thread(reply), first, "{reply}");
        }
        assert_ne!(thread("The new mill"), first);
        assert_eq!(thread(""), "easy-ham-1/00001");
    }

    #[test]
    fn undeclared_bytes_are_utf8_or_else_latin1() {
        let undeclared = |body: &[u8]| one("From: a@b.test\nSubject: x", body).records[0].text.clone();
        assert_eq!(undeclared(b"We met at the caf\xe9 below the hill."), "We met at the caf\u{e9} below the hill.");
        assert_eq!(
            undeclared("We met at the caf\u{e9} below the hill.".as_bytes()),
            "We met at the caf\u{e9} below the hill."
        );
        let quoted = one(
            "From: a@b.test\nContent-Type: text/plain\nContent-Transfer-Encoding: quoted-printable",
            b"We met at the caf=E9 below the hill.",
        );
        assert_eq!(quoted.records[0].text, "We met at the caf\u{e9} below the hill.");
        let base64 = one(
            "From: a@b.test\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64",
            b"V2UgbWV0IGF0IHRoZSBjYWbD\nqSBiZWxvdyB0aGUgaGlsbC4=\n",
        );
        assert_eq!(base64.records[0].text, "We met at the caf\u{e9} below the hill.");
    }

    #[test]
    fn a_mail_without_plain_text_is_counted_and_has_no_sentence() {
        let html = mail("From: a@b.test\nContent-Type: text/html", b"<p>Only a page of marked up text here.</p>");
        let plain = mail("From: a@b.test", b"The ball rolled under the parked car.");
        let corpus = read(
            &[entry("x/data/hard-ham-1/0001.a.txt", html), entry("x/data/hard-ham-1/0002.b.txt", plain)],
            &Keep::default(),
        )
        .expect("one sentence");
        assert_eq!((corpus.stats.files, corpus.stats.documents, corpus.stats.kept), (2, 1, 1));
        assert_eq!((corpus.records[0].owner.is_some(), corpus.records[0].time.as_deref()), (true, None));
    }

    #[test]
    fn a_signature_or_footer_ends_the_text() {
        for footer in [
            "-- \nAnn",
            "--\nAnn",
            "______________________________\nlist footer",
            "-----Original Message-----\nFrom: Bob",
            "---------- Forwarded message ----------\nhello",
            "-----BEGIN PGP SIGNATURE-----\nabc",
        ] {
            assert_eq!(before_signature(&format!("Body text.\n{footer}\n")), "Body text.\n", "{footer}");
        }
        let kept = "A rule --- a dash -- and\n----------\n_____\nmore\n";
        assert_eq!(before_signature(kept), kept);
    }

    #[test]
    fn a_quote_and_its_introduction_go_and_a_colon_elsewhere_stays() {
        assert_eq!(paragraphs(&without_quotes("Ann wrote:\n> a\n\n > b\nmine\n| c\nalso mine")), ["mine", "also mine"]);
        assert_eq!(without_quotes("Bring these:\nboots"), "Bring these:\nboots");
        assert_eq!(paragraphs(&without_quotes("I agree\n> a\nwith Ann.")), ["I agree", "with Ann."]);
        assert_eq!(paragraphs(&without_quotes("Fine.\nOn Friday,\nAnn said:\n> a")), ["Fine."]);
        assert_eq!(without_quotes(""), "");
    }

    #[test]
    fn two_mails_with_one_number_are_refused() {
        let body = mail("From: a@b.test", b"The ball rolled under the parked car.");
        let error = read(
            &[entry("x/data/easy-ham-1/01.a.txt", &body), entry("x/data/easy-ham-1/01.b.txt", &body)],
            &Keep::default(),
        )
        .expect_err("ids would repeat");
        assert!(error.to_string().contains("a second mail with the number `easy-ham-1/01`"), "{error}");
    }
}
