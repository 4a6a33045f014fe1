"""Golden values for src/measure/text: sacreBLEU and rouge-score on pairs that are hard to tokenise.

    python3 -m venv venv && venv/bin/pip install sacrebleu==2.6.0 rouge-score==0.1.2
    venv/bin/python tests/golden/text_metrics.py > tests/golden/text_metrics.json

Pairs are (original, guess). Corpus scores are taken over all of them, over the first five, and over two pairs too short
for the longest n-gram.
"""

import importlib.metadata
import json
import platform

from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

PAIRS = [
    ("my doctor is anna smith and i live in boston", "my doctor is anna smith and i live in boston"),
    ("my doctor is anna smith and i live in boston", "i live in boston and my doctor is anna smith"),
    ("my doctor is anna smith and i live in boston", "dr smith lives in boston"),
    ("the invoice of 4821 dollars is due on friday", "the bill of 4812 dollars is due on monday"),
    ("the invoice of 4821 dollars is due on friday", "a tennis ball rolled under the car"),
    # case and repeated words: clipped counts, precision against recall
    ("The Cat sat on the mat.", "the cat sat on the mat."),
    ("the the the the", "the"),
    ("the", "the the the the"),
    ("to be or not to be that is the question", "to be to be to be"),
    ("a b", "a b c d e f g h i j"),
    ("a b c d e f g h i j", "a b"),
    ("one two three four five six seven", "seven six five four three two one"),
    # lengths around the n-gram orders
    ("yes", "yes"),
    ("yes", "no"),
    ("good morning", "good morning"),
    ("good morning all", "good morning all"),
    ("good morning to all", "good morning to all"),
    ("x", "xyz"),
    ("abcde", "abcdef"),
    ("abcdefg", "abcdxfg"),
    # numbers
    ("It costs 1,000.5 dollars, or 1.000,5 euros.", "It costs 1,000.5 dollars or 1,000 euros."),
    ("pi is 3.14159...", "pi is 3.14159."),
    ("from 1990-1995 and A-10", "from 1990 - 1995 and A - 10"),
    ("call 555-1234, ext. 7.", "call 5551234 ext 7"),
    (".5 and ,5 and 5. and 5,", "0.5 and 5"),
    ("v1.2.3,4.5", "v1.2.3.4.5"),
    ("10% of $5.00 = $0.50", "10 % of $ 5.00 is 50c"),
    ("2-3 2--3 -4 4-", "2 - 3 2 - - 3 - 4 4 -"),
    # punctuation, brackets, quotes
    ("He said, \"don't do it!\" (twice).", "he said don't do it twice"),
    ("it's John's book, isn't it?", "its Johns book isnt it"),
    ("[a] {b} <c> |d| ~e~ `f` ^g^ _h_", "a b c d e f g h"),
    ("a.b,c.d..e,,f", "a.b c.d e f"),
    ("...", "..."),
    ("!?!?", "?!"),
    ("wait... what?! no; yes: maybe", "wait what no yes maybe"),
    ("user@example.org/path?q=1&r=2", "user at example org path"),
    ("C:\\dir\\file.txt", "C:/dir/file.txt"),
    ("a+b=c*d/e", "a + b = c * d / e"),
    ("well-known state-of-the-art", "well known state of the art"),
    # html entities: decoded once, in this order
    ("AT&amp;T said &quot;hi&quot; &lt;b&gt;", "AT&T said \"hi\" <b>"),
    ("&amp;quot; is an entity", "&quot; is an entity"),
    ("fish &amp;amp; chips", "fish &amp; chips"),
    ("R&D & Q&A", "R & D and Q & A"),
    ("<skipped> first <skipped>", "first"),
    # unicode
    ("café naïve façade", "cafe naive facade"),
    ("Zürich über Straße 5,5", "ZÜRICH ÜBER STRASSE 5,5"),
    ("“curly” ‘quotes’ — dash…", "\"curly\" 'quotes' - dash..."),
    ("今日は良い天気です", "今日は天気です"),
    ("привет мир", "привет, мир"),
    ("I \u2764\ufe0f NY \U0001f600", "I love NY \U0001f600"),
    ("\u0130stanbul 300 \u212a", "istanbul 300 k"),
    ("e\u0301te\u0301", "\u00e9t\u00e9"),
    ("١٢٣,٤٥ 1,2", "123,45 1,2"),
    # white space: no-break, zero width, separators that Python splits on
    ("a\u00a0b\u2003c d", "a b c d"),
    ("a\u200bb c", "ab c"),
    ("left\x1fright \x1c end", "left right end"),
    ("  padded   text  ", "padded text"),
    ("tab\tseparated\tcells", "tab separated cells"),
    ("hyphen-\nated line\nbreak", "hyphenated line break"),
    ("trailing space and dot . ", "trailing space and dot ."),
    # nothing on one side
    ("something was here", ""),
    ("", "something is here"),
    ("", ""),
    ("   ", "x"),
    ("word", "   "),
    ("§§ ¶", "§§ ¶"),
    # long against short
    (
        "The committee, which met on Tuesday 3 March, decided that the annual budget of 2.5 million would be split "
        "between research (60%), teaching (30%) and buildings (10%); nobody objected.",
        "The committee met on Tuesday and decided the annual budget of 2.5 million would be split between research "
        "and teaching.",
    ),
    ("budget", "The committee, which met on Tuesday 3 March, decided that the annual budget of 2.5 million was split"),
    ("Please send the signed contract to our London office before noon on 14/07/2021.",
     "Please send the signed contract to our London office before noon on 14/07/2021."),
    ("Please send the signed contract to our London office before noon on 14/07/2021.",
     "please sign and send a contract to the office in London by 14 July"),
]


def main() -> None:
    bleu = BLEU(effective_order=True)
    chrf = CHRF()
    rouge = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    rows = []
    for original, guess in PAIRS:
        overlap = rouge.score(original, guess)
        rows.append(
            {
                "original": original,
                "guess": guess,
                "sentence_bleu": bleu.sentence_score(guess, [original]).score,
                "chrf": chrf.sentence_score(guess, [original]).score,
                "rouge_1": overlap["rouge1"].fmeasure,
                "rouge_1_precision": overlap["rouge1"].precision,
                "rouge_1_recall": overlap["rouge1"].recall,
                "rouge_l": overlap["rougeL"].fmeasure,
            }
        )

    def corpus(pairs):
        originals, guesses = [list(side) for side in zip(*pairs)]
        corpus_bleu, corpus_chrf = BLEU(), CHRF()
        result = {
            "corpus_bleu": corpus_bleu.corpus_score(guesses, [originals]).score,
            "corpus_chrf": corpus_chrf.corpus_score(guesses, [originals]).score,
        }
        result["signature"] = str(corpus_bleu.get_signature())
        return result

    versions = {name: importlib.metadata.version(name) for name in ["sacrebleu", "rouge-score"]}
    versions["python"] = platform.python_version()
    document = {
        "versions": versions,
        "sentence_signatures": {"sentence_bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())},
        "first_five": corpus(PAIRS[:5]),
        "all": corpus(PAIRS),
        "short": corpus([("good morning", "good morning"), ("yes", "yes")]),
        "pairs": rows,
    }
    print(json.dumps(document, indent=1, ensure_ascii=True))


if __name__ == "__main__":
    main()
