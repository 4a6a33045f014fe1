"""The installed package, as its users meet it: `tests/scripts/python_package.sh` builds it and runs these."""

import math
import threading
import time

import numpy as np
import pytest
import stitchback

WORDS = [a + b + c for a in "ba ko mi ru se ta".split() for b in "lan dor vit mes".split() for c in ["", "a", "er", "ing"]]


def sentences(n, seed=0):
    """Different sentences of eight made-up words."""
    rng = np.random.default_rng(seed)
    return [" ".join(words).capitalize() + "." for words in rng.choice(WORDS, (n, 8))]


def bag(texts):
    """A toy encoder: a random direction for each word, summed."""
    rng = np.random.default_rng(1)
    known = {word: rng.standard_normal(32) for word in sorted({w for text in texts for w in text.lower().strip(".").split()})}
    table = np.array([sum(known[w] for w in text.lower().strip(".").split()) for text in texts])
    return (table / np.linalg.norm(table, axis=1, keepdims=True)).astype(np.float32)


def test_identity_gives_back_what_it_got():
    x = np.random.default_rng(0).standard_normal((7, 5))
    for given in (x.astype(np.float32), x, np.asfortranarray(x), x.tolist()):
        released, about = stitchback.protect(given, "identity")
        assert released.dtype == np.float32 and np.array_equal(released, x.astype(np.float32))
    assert not about["private"] and about["claim"]["epsilon"] is None
    released[0, 0] = 1.0  # an array of one's own


def test_noise_has_its_sigma_and_its_claim():
    x = np.zeros((4000, 50), dtype=np.float32)
    released, about = stitchback.protect(x, "clip(l2=1) | gaussian(epsilon=8, delta=1e-5)", seed=1)
    sigma = about["claim"]["sigma"]
    # The standard error of a standard deviation of 200 000 numbers is sigma / sqrt(400 000); five of them.
    assert abs(released.std() / sigma - 1) < 5 / math.sqrt(400_000)
    assert math.isclose(about["claim"]["epsilon"], 8, rel_tol=1e-9)
    assert about["seeded"] and not about["private"]
    again, _ = stitchback.protect(x, "clip(l2=1) | gaussian(epsilon=8, delta=1e-5)", seed=1)
    assert np.array_equal(released, again)
    fresh, about = stitchback.protect(x, "clip(l2=1) | gaussian(epsilon=8, delta=1e-5)")
    assert about["private"] and not np.array_equal(fresh, released)
    _, about = stitchback.protect(x[:50], "clip(l2=1) | gaussian(epsilon=8, delta=1e-5)", secure=True)
    assert about["pipeline"].endswith("discrete_gaussian(epsilon=8, delta=1e-5)")


def test_prototypes_stay_inside_their_topic():
    x = np.concatenate([np.full((20, 3), 1.0), np.full((20, 3), -1.0)])
    topics = ["sport"] * 20 + ["music"] * 20
    released, about = stitchback.protect(x, "prototype(members=20)", seed=1, topics=topics)
    assert released.shape == (2, 3) and set(np.sign(released[:, 0])) == {1.0, -1.0}
    assert sorted(map(len, about["groups"])) == [20, 20]


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda x: stitchback.protect(x, "clip(l2=-1)"), "`clip.l2` must be greater than 0, got -1"),
        (lambda x: stitchback.protect(x, "gausian(sigma=1)"), "did you mean `gaussian`"),
        (lambda x: stitchback.protect(x * np.nan, "identity"), "embedding row 0, column 0 is not finite"),
        (lambda x: stitchback.protect(x[0], "identity"), "two dimensions"),
        (lambda x: stitchback.protect(x.astype(object), "identity"), "dtype object"),
        (lambda x: stitchback.protect(x, "identity", topics=[1]), "1 topics for 4 rows"),
        (lambda x: stitchback.protect(x, "prototype(members=50)"), "50"),
        (lambda x: stitchback.attack(x, ["a"]), "4 rows and 1 texts"),
        (lambda x: stitchback.attack(x, list("abcd"), judge="no-such-judge"), "no-such-judge"),
        (lambda x: stitchback.attack(x, "nowhere.txt", judge="toy-judge"), "nowhere.txt"),
        (lambda x: stitchback.attack(x, list("abcd"), attacks="nearest"), "write ['nearest']"),
        (lambda x: stitchback.score(["a"], ["a", "b"]), "1 originals and 2 guesses"),
        (lambda x: stitchback.score([1], [2]), "got a int"),
        (lambda x: stitchback.score(x[:, :, None, None], x), "uint8 of shape"),
    ],
)
def test_what_is_given_wrongly_is_a_value_error_in_the_programs_words(call, why):
    with pytest.raises(ValueError) as caught:
        call(np.ones((4, 3), dtype=np.float32))
    assert why in str(caught.value)


def test_texts_and_pictures_are_scored():
    texts = sentences(40)
    same = {row["metric"]: row for row in stitchback.score(texts, texts, judge="toy-judge")}
    assert same["token_f1"]["value"] == 1.0 and same["judge_leak"]["value"] == pytest.approx(1.0, abs=1e-6)
    other = {row["metric"]: row for row in stitchback.score(np.array(texts), texts[1:] + texts[:1])}
    assert other["token_f1"]["value"] < 1.0 and "judge_leak" not in other
    pictures = np.random.default_rng(0).integers(0, 256, (6, 24, 32, 3), dtype=np.uint8)
    found = {row["metric"]: row for row in stitchback.score(pictures, pictures)}
    assert found["mse"]["value"] == 0.0 and found["mse"]["n"] == 6


def test_vectors_are_attacked_and_noise_helps(tmp_path):
    texts = sentences(200)
    noisy = "clip(l2=1) | gaussian(sigma=1)"
    summary = stitchback.attack(
        bag(texts), texts, judge="toy-judge", pipelines=[noisy], attacks=["nearest"], targets=20, out=tmp_path / "run"
    )
    given, protected = summary["protections"]
    assert given["name"] == "as-given" and protected["pipeline"] == noisy
    assert given["similarity"]["leak"] > protected["similarity"]["leak"] + 0.1
    assert (tmp_path / "run" / "records.jsonl").exists()


def test_other_threads_go_on_meanwhile():
    x = np.zeros((200_000, 64), dtype=np.float32)
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    begin = time.monotonic()
    stitchback.protect(x, "clip(l2=1) | gaussian(sigma=1)", seed=1)
    end = time.monotonic()
    done.set()
    thread.join()
    assert sum(begin < t < end for t in ticks) >= 3, f"{end - begin:.3f} s"
