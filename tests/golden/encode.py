"""Golden vectors of the text encoders, from an independent forward pass in float64.

    python tests/golden/encode.py MINILM_FOLDER E5_FOLDER > tests/golden/encode.json

The folders are those of `stitchback fetch`. numpy does the arithmetic, `tokenizers` the tokens, `safetensors` the reading;
nothing is shared with the Rust side. Of each vector the first 16 coordinates are kept, and its product with cos(0), cos(1), ...,
which sees every coordinate.
"""

import json
import math
import pathlib
import platform
import sys

import numpy as np
import safetensors
import tokenizers
from safetensors.numpy import load_file

SENTENCES = [
    "My doctor's name is Anna Smith and I live in Boston.",
    "I see Dr. Smith; my home is in Boston.",
    "The tennis ball rolled under the parked car.",
    "",
    "   ",
    "Yes",
    "Call me on 0161 496 0000 after 5 p.m., please!",
    "Das Café in Zürich öffnet um 8 Uhr; 東京のカフェは9時です。",
    "tabs\tand\u00a0no-break\u200bspaces,   and runs",
    "ﬁne ligatures ①②③ and ＦＵＬＬＷＩＤＴＨ letters",
    " ".join(["The board will discuss the quarterly earnings before the market opens."] * 6),
    " ".join(["An over-long text is cut where the window of the encoder ends."] * 60),
]

erf = np.vectorize(math.erf)


def normed(x, weights, name, eps):
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def forward(ids, weights, config):
    def dense(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def table(name):
        return weights[f"embeddings.{name}_embeddings.weight"]

    eps, heads = config["layer_norm_eps"], config["num_attention_heads"]
    x = (table("word")[ids] + table("position")[: len(ids)] + table("token_type")[0]).astype(np.float64)
    x = normed(x, weights, "embeddings.LayerNorm", eps)
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        q, k, v = (
            dense(x, f"{at}.attention.self.{part}").reshape(len(ids), heads, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        mixed = mixed.transpose(1, 0, 2).reshape(len(ids), -1)
        x = normed(x + dense(mixed, f"{at}.attention.output.dense"), weights, f"{at}.attention.output.LayerNorm", eps)
        inner = dense(x, f"{at}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = normed(x + dense(inner, f"{at}.output.dense"), weights, f"{at}.output.LayerNorm", eps)
    pooled = x.mean(0)
    return pooled / np.linalg.norm(pooled)


def encoder(folder, prompt, limit):
    folder = pathlib.Path(folder)
    config = json.loads((folder / "config.json").read_text())
    word = "embeddings.word_embeddings.weight"
    weights = load_file(folder / "model.safetensors")
    weights = {n: w if n == word else w.astype(np.float64) for n, w in weights.items() if w.dtype == np.float32}
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    mapped = folder / "codepoints.json"
    mapped = {cp: "".join(map(chr, to)) for cp, to in json.loads(mapped.read_text())} if mapped.exists() else {}
    for sentence in SENTENCES:
        ids = tokenizer.encode((prompt + sentence).translate(mapped)).ids
        vector = forward(ids, weights, config)
        yield {
            "tokens": len(ids),
            "head": [round(float(v), 8) for v in vector[:16]],
            "product": round(float(vector @ np.cos(np.arange(len(vector)))), 8),
        }


def main():
    minilm, e5 = sys.argv[1:]
    versions = {m.__name__: m.__version__ for m in (np, tokenizers, safetensors)} | {"python": platform.python_version()}
    golden = {
        "made_by": "tests/golden/encode.py",
        "versions": versions,
        "sentences": SENTENCES,
        "all-minilm-l6-v2": list(encoder(minilm, "", 256)),
        "multilingual-e5-small": list(encoder(e5, "passage: ", 512)),
    }
    print(json.dumps(golden, indent=1, ensure_ascii=True))


if __name__ == "__main__":
    main()
