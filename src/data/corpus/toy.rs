//! `toy`: short sentences made up from templates, for fast tests only. It proves nothing about real text, and every
//! output that uses it says so.
//!
//! Four topics, twenty documents each, eight sentences in a document. A document keeps its people and its place, so
//! sentences of one document are alike, as in real text; topics share few words.

use super::{Corpus, Draft, Positions};
use crate::data::clean::{Keep, Rule};
use crate::data::{Error, Record};
use crate::seed;
use rand::RngExt;
use rand::seq::SliceRandom;

/// The corpus's name.
pub const NAME: &str = "toy";

/// Documents of a topic.
const DOCUMENTS: usize = 20;

/// Sentences of a document.
const SENTENCES: usize = 8;

const PEOPLE: [&str; 24] = [
    "Anna", "Boris", "Carla", "David", "Elena", "Farid", "Greta", "Henry", "Irina", "Jakob", "Katya", "Leon", "Marta",
    "Nadia", "Oskar", "Paula", "Quentin", "Rosa", "Samir", "Tessa", "Ulrich", "Vera", "Wanda", "Yusuf",
];

const PLACES: [&str; 20] = [
    "Boston", "Leeds", "Lyon", "Porto", "Turin", "Vienna", "Oslo", "Dublin", "Prague", "Seville", "Bergen", "Ghent",
    "Zurich", "Krakow", "Malmo", "Bristol", "Geneva", "Munich", "Riga", "Athens",
];

/// `{p}` and `{q}` are the document's people, `{c}` its place; `{thing}`, `{kind}` and `{time}` are drawn for each sentence.
struct Topic {
    name: &'static str,
    templates: [&'static str; 12],
    things: [&'static str; 12],
    kinds: [&'static str; 10],
    times: [&'static str; 10],
}

const TOPICS: [Topic; 4] = [
    Topic {
        name: "sport",
        templates: [
            "{p} hit the {kind} {thing} over the net {time}.",
            "The coach of {c} praised {p} for the {kind} match {time}.",
            "{q} lost a {thing} in the {kind} final against {p}.",
            "Fans in {c} cheered {time} when {q} lifted the {kind} {thing}.",
            "A {kind} injury kept {p} away from the stadium {time}.",
            "{p} and {q} trained with a {thing} {time} near {c}.",
            "Nobody expected {q} to win the {kind} race {time}.",
            "The referee took the {thing} from {p} and ended the {kind} game.",
            "{c} will host the {kind} tournament {time}.",
            "{q} sold an old {thing} to a {kind} club in {c}.",
            "Rain stopped the {kind} game of {p} {time}.",
            "With a new {thing} {p} broke the {kind} record of {c}.",
        ],
        things: [
            "racket",
            "tennis ball",
            "trophy",
            "helmet",
            "javelin",
            "surfboard",
            "bicycle",
            "goalpost",
            "medal",
            "skate",
            "jersey",
            "whistle",
        ],
        kinds: [
            "national", "junior", "brutal", "friendly", "regional", "indoor", "muddy", "famous", "decisive", "short",
        ],
        times: [
            "on Saturday",
            "last summer",
            "before noon",
            "in extra time",
            "at dawn",
            "during the holidays",
            "twice a week",
            "after the break",
            "in the third set",
            "this season",
        ],
    },
    Topic {
        name: "kitchen",
        templates: [
            "{p} stirred the {kind} {thing} {time}.",
            "There is no better {thing} in {c} than the {kind} one of {q}.",
            "{q} burned the {thing} because {p} forgot the {kind} oven.",
            "Add the {kind} {thing} and wait {time}, said {p}.",
            "The recipe of {q} needs a {kind} {thing} and patience.",
            "{p} bought {thing} at the market of {c} {time}.",
            "A {kind} smell of {thing} filled the flat of {q}.",
            "My grandmother in {c} served {kind} {thing} {time}.",
            "{q} never eats {thing} {time} without pepper.",
            "{p} sliced the {thing} while {q} washed the {kind} pan.",
            "The cook from {c} hid the {kind} {thing} {time}.",
            "Too much salt ruined the {kind} {thing} that {p} made.",
        ],
        things: [
            "soup",
            "pumpkin",
            "dough",
            "cheese",
            "garlic sauce",
            "rice",
            "cinnamon cake",
            "trout",
            "lentils",
            "jam",
            "butter",
            "cabbage",
        ],
        kinds: ["sour", "golden", "frozen", "creamy", "spicy", "bitter", "smoked", "leftover", "sweet", "crusty"],
        times: [
            "for ten minutes",
            "over a low flame",
            "every Sunday",
            "until it thickened",
            "at midnight",
            "before the guests came",
            "since childhood",
            "on a tray",
            "with both hands",
            "all winter",
        ],
    },
    Topic {
        name: "travel",
        templates: [
            "{p} missed the {kind} {thing} to {c} {time}.",
            "The {thing} from {c} was {kind} and arrived {time}.",
            "{q} packed a {kind} map and took the {thing} {time}.",
            "We saw {p} asleep in a {kind} {thing} near {c}.",
            "A {kind} storm held the {thing} of {q} {time}.",
            "{p} wrote a postcard about the {kind} beach {time}.",
            "Tickets for the {thing} to {c} are {kind} {time}.",
            "{q} and {p} shared a {kind} cabin on the {thing}.",
            "The border guard asked {p} about the {kind} suitcase {time}.",
            "{c} looks {kind} from the window of a {thing}.",
            "{q} left a passport on the {kind} {thing} {time}.",
            "Two hours behind {c} the {thing} of {p} broke down {time}.",
        ],
        things: [
            "ferry",
            "night train",
            "airport bus",
            "tram",
            "rented car",
            "cable car",
            "steamboat",
            "plane",
            "taxi",
            "camper",
            "sleigh",
            "gondola",
        ],
        kinds: ["crowded", "delayed", "lonely", "cheap", "northern", "ancient", "foggy", "scenic", "narrow", "sunny"],
        times: [
            "at the last minute",
            "in early March",
            "without warning",
            "past the lighthouse",
            "on platform nine",
            "near the pass",
            "for three days",
            "by mistake",
            "one hour late",
            "across the strait",
        ],
    },
    Topic {
        name: "clinic",
        templates: [
            "{p} asked the doctor in {c} about a {kind} {thing}.",
            "The {kind} {thing} of {q} started {time}.",
            "A nurse gave {p} two pills against the {kind} {thing}.",
            "{q} could not sleep {time} because of a {thing}.",
            "The surgeon from {c} called the {thing} of {p} {kind}.",
            "{p} hides the {kind} diagnosis from {q} {time}.",
            "Blood tests {time} showed that {q} has a {kind} allergy.",
            "The insurance of {p} refused the {kind} therapy {time}.",
            "{q} was brought to the hospital of {c} with a {kind} {thing}.",
            "After the {thing} {p} walked on crutches {time}.",
            "Doctor Lee prescribed {q} a {kind} diet {time}.",
            "An X-ray in {c} explained the {kind} {thing} of {p}.",
        ],
        things: [
            "cough",
            "migraine",
            "broken wrist",
            "rash",
            "fever",
            "back pain",
            "infection",
            "knee operation",
            "toothache",
            "dizziness",
            "sprained ankle",
            "heartbeat",
        ],
        kinds: [
            "chronic", "sudden", "mild", "rare", "painful", "harmless", "stubborn", "seasonal", "severe", "strange",
        ],
        times: [
            "two weeks ago",
            "since Monday",
            "after breakfast",
            "in the waiting room",
            "at the age of forty",
            "every evening",
            "until spring",
            "for the second time",
            "during pregnancy",
            "overnight",
        ],
    },
];

/// Makes the toy corpus that belongs to `seed`; [`super::open`] uses seed 0.
///
/// # Errors
/// When `keep` leaves nothing.
pub fn generate(seed: u64, keep: &Keep) -> Result<Corpus, Error> {
    let mut positions = Positions::default();
    let mut found = Vec::new();
    for topic in &TOPICS {
        for number in 0..DOCUMENTS {
            let document = format!("toy-{}/{number:02}", topic.name);
            let mut rng = seed::stream(seed, &document, "toy corpus");
            let first = rng.random_range(0..PEOPLE.len());
            let second = (first + rng.random_range(1..PEOPLE.len())) % PEOPLE.len();
            let place = PLACES[rng.random_range(0..PLACES.len())];
            let mut templates = topic.templates;
            templates.shuffle(&mut rng);
            for template in templates.iter().take(SENTENCES) {
                let text = template
                    .replace("{p}", PEOPLE[first])
                    .replace("{q}", PEOPLE[second])
                    .replace("{c}", place)
                    .replace("{thing}", topic.things[rng.random_range(0..topic.things.len())])
                    .replace("{kind}", topic.kinds[rng.random_range(0..topic.kinds.len())])
                    .replace("{time}", topic.times[rng.random_range(0..topic.times.len())]);
                found.push(Record {
                    id: positions.next(&document),
                    document: document.clone(),
                    owner: None,
                    topic: Some(topic.name.to_owned()),
                    time: Some(format!("2024-{:02}-{:02}T12:00:00Z", 1 + number / 2, 1 + 14 * (number % 2))),
                    text,
                    picture: None,
                });
            }
        }
    }
    let files = TOPICS.len() * DOCUMENTS;
    let draft = Draft { name: NAME.to_owned(), unit: "sentence", files, rules: &Rule::ALL, sentences: found };
    let mut corpus = Corpus::build(draft, keep)?;
    corpus.toy = true;
    Ok(corpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_toy_is_its_seed() {
        let corpus = generate(0, &Keep::default()).expect("sentences");
        assert_eq!(corpus, generate(0, &Keep::default()).expect("sentences"));
        assert_ne!(corpus.fingerprint, generate(1, &Keep::default()).expect("sentences").fingerprint);
        assert!(corpus.toy);
    }

    #[test]
    fn it_has_four_topics_eighty_documents_and_no_unfilled_slot() {
        let corpus = generate(0, &Keep::default()).expect("sentences");
        let topics: BTreeSet<_> = corpus.records.iter().filter_map(|r| r.topic.as_deref()).collect();
        assert_eq!(topics.into_iter().collect::<Vec<_>>(), ["clinic", "kitchen", "sport", "travel"]);
        assert_eq!((corpus.stats.documents, corpus.stats.sentences), (80, 640));
        assert!(corpus.stats.kept > 600, "{}", corpus.stats);
        assert!(corpus.records.iter().all(|r| !r.text.contains(['{', '}']) && r.text.ends_with('.')));
        assert!(corpus.records.iter().all(|r| r.id.starts_with("toy-")), "the name says toy");
    }
}
