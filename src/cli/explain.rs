//! `explain TOPIC`: what a word, an attacker, a protection stage or an exit code means.

use std::io::Write as _;
use stitchback::Exit;

/// Explain a word, an attacker, a protection stage or the exit codes; without a topic, list them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For example `leak`, `decoder`, `gaussian` or `exit-codes`.
    topic: Vec<String>,
}

struct Topic {
    name: &'static str,
    group: &'static str,
    text: &'static str,
}

const WORDS: &str = "words";
const ATTACKS: &str = "attackers";
const STAGES: &str = "protection stages";
const REST: &str = "the program";

const fn topic(group: &'static str, name: &'static str, text: &'static str) -> Topic {
    Topic { name, group, text }
}

/// Every topic, grouped, in the order of the list.
const TOPICS: &[Topic] = &[
    topic(
        WORDS,
        "leak",
        "How far a guess stands above chance: L = (s - f) / (1 - f), where s is the mean judge cosine of guess and original and f\n\
         the floor. 0 % is nothing, 100 % is the original. A leak can be slightly negative: the guesses were worse than shuffled ones.\n\
         It never stands alone: the raw value, the floor, the victim cosine, n and a 95 % interval stand beside it.",
    ),
    topic(
        WORDS,
        "floor",
        "What a score gives when guess and target have nothing to do with each other: the same guesses against shuffled originals.\n\
         Sentence encoders give unrelated texts a high cosine, so a raw `20 %` may be less than nothing.",
    ),
    topic(
        WORDS,
        "blind",
        "A control: the decoder trained on permuted embeddings, so that it learns what texts look like and nothing about which is\n\
         which. A protection whose worst attacker is no better than blind has leaked nothing that these attackers can use.",
    ),
    topic(
        WORDS,
        "identified",
        "The attacker has the released vector and N candidate records, one of them true: how often it picks the true one (top-1).\n\
         Chance is 1/N. A vector can identify its text long after no text can be written from it.",
    ),
    topic(
        WORDS,
        "matched",
        "How often a guess is nearer, by the judge, to its own original than to all of N - 1 decoys. Chance is 1/N.\n\
         It is free of the judge's scale, which a cosine is not.",
    ),
    topic(
        WORDS,
        "adaptive",
        "Fitted to the defence. An adaptive attacker is trained on releases of the real pipeline with fresh noise, knows the pipeline,\n\
         denoises, and averages repeated releases where the pipeline allows them. Verdicts use the worst adaptive attacker, chosen on\n\
         validation targets and scored on the test targets.",
    ),
    topic(
        WORDS,
        "victim",
        "The encoder whose embeddings are released and attacked. The victim cosine of guess and original is easy to satisfy without\n\
         meaning, so it stands beside the leak and never replaces it.",
    ),
    topic(
        WORDS,
        "judge",
        "An encoder of another family than the victim, which decides how similar a guess is to the original. No attacker may query it.",
    ),
    topic(
        WORDS,
        "view",
        "Exactly what one attacker is allowed to see: auxiliary records, released vectors, perhaps the pipeline, perhaps encoder queries.\n\
         Never a target's text.",
    ),
    topic(WORDS, "target", "A held-out record that the attacker tries to read from its release."),
    topic(
        WORDS,
        "auxiliary",
        "The attacker's own records: other documents and other owners than the targets, with near-duplicates of targets removed.",
    ),
    topic(
        WORDS,
        "release",
        "What leaves the user: protected vectors, one for each record or one for each group, with their guarantee.",
    ),
    topic(
        WORDS,
        "retention",
        "The leak under a protection divided by the leak of the unprotected release: 15 % means that 15 % of what could be read before\n\
         can still be read.",
    ),
    topic(
        WORDS,
        "strength",
        "No protection may be called safe unless the same attackers clear the study's bar on the unprotected release. Below the bar\n\
         the verdict is `inconclusive` and the exit code 4: a weak attacker proves nothing.",
    ),
    topic(
        WORDS,
        "utility",
        "What the protected vectors are still good for, on the same noise draws: topic accuracy, recall of the ten true neighbours.\n\
         A low leak is free when the vector is destroyed, so leak and utility are always shown together.",
    ),
    topic(
        WORDS,
        "guarantee",
        "What is proved about a release, whatever the attacker: epsilon and delta, the adjacency (replace-one unless said otherwise)\n\
         and the unit of privacy. Most noise settings that keep utility have none; then only the measured attackers speak.",
    ),
    topic(WORDS, "cell", "One (protection, attack, seed) of a study: the unit of work, of caching and of resuming."),
    topic(
        ATTACKS,
        "constant",
        "Answers every target alike: with the auxiliary sentence that fits all of them best, or with the mean picture. A floor: it has\n\
         read nothing.",
    ),
    topic(ATTACKS, "random", "Answers with a random auxiliary record. A floor: it has read nothing."),
    topic(
        ATTACKS,
        "nearest",
        "Answers with the auxiliary record whose embedding fits the release best: retrieval, no training. For isotropic noise this is\n\
         maximum likelihood, so it is adaptive as it stands.",
    ),
    topic(
        ATTACKS,
        "bag_of_words",
        "Writes the words that the released vector speaks of, strongest first, read by a ridge regression that knows the noise.\n\
         Order is lost, content words are not.",
    ),
    topic(
        ATTACKS,
        "decoder",
        "A language model that writes text from the released vector, trained on fresh releases of the real pipeline; its candidates are\n\
         embedded again and re-ranked by how well they explain the release. The default free-text attacker.",
    ),
    topic(
        ATTACKS,
        "search",
        "Starts from retrieved and written sentences and rewrites them word by word, keeping what explains the release better once\n\
         embedded. Where nothing gets better, the decoder and the kept corrector write new starts of what was found. It spends encoder\n\
         queries: the budget curve of the report shows what they buy.",
    ),
    topic(
        ATTACKS,
        "align",
        "Knows neither the victim encoder nor its key, but `pairs` leaked pairs of text and release: a linear map takes releases into a\n\
         space of the attacker's own, from where its decoder writes: that of its texts' words, or with `space = \"surrogate\"` that of\n\
         the public encoder that the study names. With `space = \"victim\"` it may query the encoder as well, and the map undoes a\n\
         secret transform; with `search_queries` a search goes on from there.",
    ),
    topic(
        ATTACKS,
        "best_of",
        "Chooses, for each target, among the guesses of the study's other attackers: the one whose own vector explains the release best.",
    ),
    topic(
        ATTACKS,
        "corrector",
        "A decoder that reads its own last guess: the released vector, the guess's vector, their difference and the guess's words. It\n\
         writes better guesses, embeds them and goes on. Trained on guesses of decoders that were not tuned on the text, and on the texts\n\
         themselves, spoilt anew in each epoch (`spoilt`, the share of those). Starts from the corrector that is kept for the victim.\n\
         `feedback` hides the guess's vector: `zeroed` when it attacks, `withheld` in training as well; `unembedded` embeds no\n\
         guess at all, so that nothing ranks them either.",
    ),
    topic(
        ATTACKS,
        "ridge",
        "Draws the best linear estimate of every pixel, the noise counted in closed form: colours and coarse shapes, in seconds. It wins\n\
         pixel scores and loses the picture; judge it by what the judge sees.",
    ),
    topic(
        ATTACKS,
        "image_decoder",
        "A network that draws pictures from vectors, trained on clean vectors and then on fresh releases of the real pipeline. It returns\n\
         about the mean picture given the vector.",
    ),
    topic(
        ATTACKS,
        "invert",
        "Starts from retrieved pictures and changes their pixels until the victim encoder, whose weights it knows, gives the released\n\
         vector, whatever the picture is shifted, zoomed or mirrored by. Nothing is scored before its gradient was checked.",
    ),
    topic(
        ATTACKS,
        "generative",
        "Samples pictures from a learnt prior (an autoencoder's codes, a rectified flow) given the release, keeps the one that the victim\n\
         encoder finds likeliest, moves its code until the encoder gives the release, and ends on the pixels (`polish`), where no code\n\
         reaches. What noise takes away the prior invents.",
    ),
    topic(
        ATTACKS,
        "membership",
        "Decides whether a record stands behind a released row, among strangers of the same topic: the matched filter of one member in a\n\
         mean. Counted at 1 % and 0.1 % false alarms and held against the curve that a guarantee allows.",
    ),
    topic(
        ATTACKS,
        "attribute",
        "Infers what kind of text stands behind a vector: its topic, its sender, whether it names somebody, holds a number, is long or\n\
         asks; of a picture, which object it shows. A logistic regression on fresh releases of labelled records; chance and what the\n\
         text's own words tell stand beside it.",
    ),
    topic(
        ATTACKS,
        "slots",
        "Finds the name, date, amount or code in a text of known wording by ranking every value of a list. The victim's record is a real\n\
         sentence with a filled form beside it; in a second variant the attacker knows that sentence as well. Exposure is counted in bits.",
    ),
    topic(
        ATTACKS,
        "linkage",
        "Tells whether two releases are of one text, whether a text is in the store, whether two vectors are of one sender: likelihood\n\
         ratios that know the noise, counted at 1 % and 0.1 % false alarms, and held against what a guarantee allows.",
    ),
    topic(STAGES, "identity", "Releases the embedding as it is: the unprotected reference of every study."),
    topic(
        STAGES,
        "normalize",
        "Scales every vector to norm 1. Before noise it bounds what one record can change (sensitivity 2, replace-one); after noise it\n\
         keeps the direction and hides the length. Alone it protects nothing.",
    ),
    topic(
        STAGES,
        "clip",
        "Scales a vector down to a norm of at most `l2`. It bounds what one record can change; without a bound noise has no guarantee.",
    ),
    topic(
        STAGES,
        "prototype",
        "Releases the mean of at least `members` records of one topic instead of each record. It divides what one record can change by\n\
         the number of members; alone it promises nothing. The unit of privacy is written beside it.",
    ),
    topic(
        STAGES,
        "rotate",
        "Multiplies every vector by one secret orthogonal matrix, which `key` names. It promises nothing: cosines and neighbours stay\n\
         what they were, and a few leaked pairs of text and release undo it. Attackers do not get the key; `align` gets the pairs.",
    ),
    topic(
        STAGES,
        "gaussian",
        "Adds independent normal noise to each coordinate, of given `sigma`, or calibrated to `epsilon` and `delta`.\n\
         Sensitivity under replace-one is 2C for a record clipped to C, 2C/m for a prototype of m members.",
    ),
    topic(
        STAGES,
        "center",
        "Subtracts the mean of `public` vectors, so that a clip cuts differences and not what all rows share. Without a file the mean\n\
         is the rows' own: then no guarantee holds, whatever the noise.",
    ),
    topic(
        STAGES,
        "mask",
        "Releases a public random subset of the coordinates. It promises nothing: coordinates of an embedding are correlated, and a\n\
         regression on those that stay gives most of the others back.",
    ),
    topic(
        STAGES,
        "johnson_lindenstrauss",
        "Projects onto a public random subspace of `dim` dimensions. It promises nothing: cosines survive it, and whoever knows the\n\
         subspace has `dim` exact numbers about every row (Johnson and Lindenstrauss 1984).",
    ),
    topic(
        STAGES,
        "pca",
        "Keeps the `dim` directions in which `public` vectors vary most. It promises nothing and helps the attacker, who would drop the\n\
         others himself. Without a file the directions are the rows' own: then no guarantee holds.",
    ),
    topic(
        STAGES,
        "learned",
        "A projection trained on `public` vectors against an adversary: it keeps cosines between texts and takes from a ridge reader\n\
         what tells a text from its nearest neighbours; `strength` weighs the one against the other. An empirical defence: it promises\n\
         nothing, because the attacker that comes is not the one it was trained against. Adaptive attackers are fitted on its releases.\n\
         Source: Coavoux et al. 2018 (adversarial training of what a text encoder shows); here with a linear reader in closed form.",
    ),
    topic(
        STAGES,
        "memoize",
        "`protect --memoize FILE`: the noise of a record is drawn under a secret from the record and the pipeline, so that releasing it\n\
         again gives the same bytes and averaging gains nothing. Fresh noise costs again with each release: k of them are one with\n\
         sigma / sqrt k. An edited record or another pipeline is another release and adds up. Whoever gets the secret takes the noise off.",
    ),
    topic(
        STAGES,
        "quantize",
        "Rounds every coordinate to `bits` bits between `-range` and `range`. It promises nothing: rows further apart than a step are\n\
         told apart every time.",
    ),
    topic(
        STAGES,
        "sign",
        "Keeps one bit of every coordinate; after a rotation the cosine to the row is still .8. With `epsilon` each bit is flipped with\n\
         its odds (Warner 1965): epsilon is for one bit, and a record of d coordinates costs d times that.",
    ),
    topic(
        STAGES,
        "process",
        "process(command=python3 my_protection.py): a protection that is a program of yours. Rows go in and come out as raw numbers over\n\
         its standard streams, with a seed from which all its noise must come; `python/stitchback_plugin.py` does this for Python, and\n\
         `stitchback plugin check` tries what a protection must keep. It promises nothing: nobody knows what the program does. Attackers\n\
         are trained on its releases like on any other's. A pipeline of a stranger may name a program: read it before you run it.",
    ),
    topic(
        STAGES,
        "scale_perturb",
        "A scale and noise that is even over a ball, as distance-preserving encryption does it (Fuchsbauer et al. 2022). It promises\n\
         nothing: bounded noise never hides rows further apart than its ball, and norms give the scale away.",
    ),
    topic(
        STAGES,
        "topic_mean",
        "The mean of every topic, from a noisy sum and a noisy count: one row a topic, the size of a topic stays private. Divisors are at\n\
         least `least`; `share` of the budget goes to the sums. Which topics occur counts as public.",
    ),
    topic(
        STAGES,
        "laplace_l1",
        "Independent Laplace noise on every coordinate. A pure epsilon of the whole record, paid with sqrt(d): on an L2 ball the\n\
         sensitivity is 2C sqrt(d), so that normal noise is smaller in any dimension that embeddings have (Dwork et al. 2006).",
    ),
    topic(
        STAGES,
        "laplace_l2",
        "Noise of exponential length in an even direction, mean length d / `rate`: epsilon is `rate` for each unit of distance\n\
         (Feyisetan et al. 2020). Only on rows of bounded length is that an epsilon. Quoting the rate as epsilon is the usual mistake.",
    ),
    topic(
        STAGES,
        "mahalanobis",
        "`laplace_l2` stretched along the directions in which `public` vectors vary (Xu et al. 2020). Epsilon grows by\n\
         1 / sqrt(1 - `lambda`); with the rows' own covariance no guarantee holds.",
    ),
    topic(
        STAGES,
        "vmf",
        "A von Mises-Fisher direction around every unit row: `kappa` for each unit of chord, 2 kappa for opposite rows. At a delta the\n\
         worst pair costs about what normal noise of the same cosine costs; `account` prints both.",
    ),
    topic(
        STAGES,
        "purkayastha",
        "A direction whose density falls exponentially with its angle to the row: `kappa` for each radian, pi kappa for opposite rows.\n\
         At a delta it costs about what normal noise of the same cosine costs (Weggenmann and Kerschbaum 2021).",
    ),
    topic(
        STAGES,
        "privunit",
        "A direction from a cap around the row, more often than the cap's share, scaled to be unbiased (Bhowmick et al. 2018). The best\n\
         pure epsilon for unit rows. Implementations that reject and fall back to uncapped noise break it; here nothing is rejected.",
    ),
    topic(
        STAGES,
        "privunit_g",
        "`privunit` with normal coordinates (Asi, Feldman and Talwar 2022): nearly as good, and its releases have no fixed length.",
    ),
    topic(
        STAGES,
        "djw",
        "A point of a sphere on the row's side with odds e^epsilon (Duchi, Jordan and Wainwright 2018). One bit about the row: an\n\
         epsilon much above 1 buys nothing.",
    ),
    topic(
        STAGES,
        "discrete_gaussian",
        "Normal noise in whole steps of a grid, drawn with integers alone (Canonne, Kamath and Steinke 2020): the low bits of floating\n\
         point, which attacks have read, tell nothing. Zero-concentrated, a little more noise. `protect --secure` puts it in place.",
    ),
    topic(
        STAGES,
        "discrete_laplace",
        "`laplace_l1` in whole steps of a grid, drawn with integers alone. `protect --secure` puts it in place.",
    ),
    topic(
        STAGES,
        "shuffle",
        "The rows of at least `users` users in random order, as a trusted shuffler releases them: a smaller, central epsilon behind a\n\
         purely private stage (Feldman, McMillan and Talwar 2021). Shuffling the rows of one user is not this.",
    ),
    topic(
        REST,
        "value",
        "What a contribution is worth to its topic group: volume x novelty x freshness. Engine `coverage` spreads each record over public\n\
         topic cells, adds noise, and pays every record of a cell the average price of the epoch; splitting an account gains nothing, and\n\
         more noise never pays more. Engine `product` is the plain reading, kept to show what noise and splitting do to it.\n\
         In a study, `[utility] valuation = true` ranks targets by the value of their raw and of their released vectors, like for like.",
    ),
    topic(
        REST,
        "receipt",
        "A signed record of a contribution (DAT): a CBOR Web Token with Ed25519 that holds hashes and numbers, no part of a vector. It is a\n\
         leaf of a Merkle log; `value verify` checks receipt and proof offline, `value audit` replays all values of an edge.",
    ),
    topic(
        REST,
        "pipeline",
        "The protection: stages from left to right, written as `clip(l2=1) | prototype(members=20) | gaussian(epsilon=1, delta=1e-5)`.",
    ),
    topic(
        REST,
        "exit-codes",
        "0   everything asked for was done\n\
         1   the gate found a leak, or a loss of utility\n\
         2   usage or configuration: the command line, the study file, a pipeline\n\
         3   bad input or asset: missing, truncated, tampered or unreadable\n\
         4   inconclusive: too few targets, attackers below their bar, an incompatible baseline, an expired waiver\n\
         70  a fault of the program itself\n\
         75  interrupted; the same command resumes",
    ),
    topic(
        REST,
        "audit",
        "`audit` releases two worlds that differ in one record many times and tells them apart. What it can prove is a lower bound of\n\
         epsilon: above the claim, the implementation is broken (exit code 1). Below it nothing is proved: the ceiling says what this\n\
         many trials could have shown. Probes look for noise that is used twice or too coarse.",
    ),
    topic(
        REST,
        "gate",
        "A policy (TOML) against the stored records of a run; trains nothing. Each check is judged by one-sided bounds, never by a point:\n\
         pass when the bad side's bound is within the limit, fail when the other bound is beyond it, inconclusive in between (with the\n\
         number of targets that would settle it). A pass is taken back when attackers were weak where nothing protects, did not adapt,\n\
         were not trained out, or scored below a blind one. Failures are corrected for their number (Holm).\n\
         `gate --schema` prints the policy's schema; presets: claim-80-20, strict.",
    ),
    topic(
        REST,
        "waiver",
        "`[[waiver]]` in a policy: id, scope (a glob over corpus/protection/attack/metric), until, reason, approved_by. What it covers\n\
         stays in every output as waived. After its day a failure that it covered is inconclusive, exit 4: renew it or mend the leak.",
    ),
    topic(
        REST,
        "baseline",
        "`gate --save-baseline FILE` keeps scores and hashes, no texts; `gate --baseline FILE` lets `max_regression` checks compare target by\n\
         target. Other data, encoders, attacks or metric versions: the comparison is refused, exit 4.",
    ),
    topic(
        REST,
        "report",
        "`report.html` is drawn from the records alone: the same records, the same bytes. It holds originals and reconstructions;\n\
         `report --redact` leaves them out and hashes the record ids.",
    ),
];

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let wanted = args.topic.join("-").to_lowercase().replace(['_', ' '], "-");
    if wanted.is_empty() {
        write!(std::io::stdout(), "{}", list())?;
        return Ok(Exit::Pass);
    }
    let Some(topic) = find(&wanted) else {
        writeln!(std::io::stderr(), "{}", unknown(&wanted))?;
        return Ok(Exit::Usage);
    };
    writeln!(std::io::stdout(), "{} ({})\n\n{}", topic.name, topic.group, topic.text)?;
    Ok(Exit::Pass)
}

fn find(wanted: &str) -> Option<&'static Topic> {
    TOPICS.iter().find(|t| t.name.replace('_', "-") == wanted)
}

fn list() -> String {
    let line = |group: &str| {
        let names: Vec<&str> = TOPICS.iter().filter(|t| t.group == group).map(|t| t.name).collect();
        format!("\n{group}\n  {}\n", names.join(", "))
    };
    format!("stitchback explain TOPIC\n{}", [WORDS, ATTACKS, STAGES, REST].map(line).concat())
}

fn unknown(wanted: &str) -> String {
    let mut near: Vec<(f64, &str)> =
        TOPICS.iter().map(|t| (strsim::jaro_winkler(wanted, &t.name.replace('_', "-")), t.name)).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<&str> = near.iter().take_while(|(score, _)| *score > 0.75).take(3).map(|(_, name)| *name).collect();
    let hint = if near.is_empty() {
        "`stitchback explain` lists the topics".to_owned()
    } else {
        format!("did you mean {}?", near.join(", "))
    };
    format!("error: unknown topic `{wanted}`; {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_one_name_and_is_found_by_it() {
        for topic in TOPICS {
            let found = find(&topic.name.replace('_', "-")).expect("the name is in the table");
            assert_eq!(found.text, topic.text, "`{}` is there twice", topic.name);
            assert!(list().contains(topic.name));
        }
    }

    #[test]
    fn every_stage_is_explained() {
        for stage in stitchback::protect::StageConfig::examples() {
            assert!(find(&stage.name().replace('_', "-")).is_some_and(|t| t.group == STAGES), "{}", stage.name());
        }
    }

    #[test]
    fn an_unknown_topic_lists_near_ones() {
        assert_eq!(unknown("leek"), "error: unknown topic `leek`; did you mean leak?");
        assert!(unknown("qqqq").ends_with("`stitchback explain` lists the topics"));
    }

    #[test]
    fn lines_fit_a_terminal_of_132_columns() {
        for topic in TOPICS {
            assert!(topic.text.lines().all(|l| l.chars().count() <= 132), "{}", topic.name);
        }
    }
}
