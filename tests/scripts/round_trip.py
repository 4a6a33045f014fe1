"""Round trips of vector files with the libraries that people use: run by hand, kept.

    pip install numpy safetensors pyarrow        # and sentence-transformers for --model
    python tests/scripts/round_trip.py [--stitchback target/release/stitchback] [--model FOLDER]

Each library writes a table that stitchback reads, and reads what stitchback writes, value by value. With --model, the
vectors of a sentence-transformers folder must be those that the library itself gives (largest difference 1e-5): of the folder
as it is (the cache has one, `assets/all-minilm-l6-v2-v1`), as the library saves it again, and of folders that the library
builds around its transformer: other poolings, dense layers, a prompt.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy


TEXTS = [
    "The ball rolled under the parked car.",
    "She wrote a letter.",
    "",
    "Rain is expected in June, and the river, which had been low since spring, will rise by a metre or more. " * 8,
    "na\u00efve caf\u00e9 \u2014 \U0001f3be",
]


def encoders(run, model: str, folder: pathlib.Path) -> None:
    """Folders that sentence-transformers opens, saves and builds: the same vectors from both programs."""
    import torch
    from sentence_transformers import SentenceTransformer, models

    torch.manual_seed(0)
    original = SentenceTransformer(model, device="cpu")

    def built(*modes, dense=None, normalize=False, **options):
        words = models.Transformer(model, max_seq_length=64)
        width = words.get_word_embedding_dimension()
        pooling = models.Pooling(width, pooling_mode="+".join(modes) if len(modes) == 1 else list(modes))
        parts = [words, pooling]
        if dense:
            act = {"tanh": torch.nn.Tanh(), "identity": torch.nn.Identity()}[dense]
            parts.append(models.Dense(width * len(modes), 48, activation_function=act))
        if normalize:
            parts.append(models.Normalize())
        return SentenceTransformer(modules=parts, device="cpu", **options)

    cases = {"as it is": None, "saved again": original}
    for mode in ["cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]:
        cases[f"pooling {mode}"] = built(mode)
    cases["mean and max, dense tanh, normalised"] = built("mean", "max", dense="tanh", normalize=True)
    cases["dense without activation"] = built("mean", dense="identity")
    cases["a prompt by default"] = built("mean", prompts={"query": "query: "}, default_prompt_name="query")
    (folder / "e.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    for number, (name, case) in enumerate(cases.items()):
        path = model
        if case is not None:
            path = folder / f"model-{number}"
            case.save_pretrained(str(path))
        theirs = SentenceTransformer(str(path), device="cpu").encode(TEXTS, batch_size=2)
        run("embed", "--encoder", path, "--input", folder / "e.jsonl", "--output", folder / "m.npy")
        apart = float(np.abs(np.load(folder / "m.npy") - theirs).max())
        assert apart <= 1e-5, f"{name}: {apart:.2e}"
        print(f"sentence-transformers, {name}: {apart:.1e} apart at most")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stitchback", default="target/release/stitchback")
    parser.add_argument("--model")
    arguments = parser.parse_args()
    program = str(pathlib.Path(arguments.stitchback).resolve())

    def run(*command):
        return subprocess.run([program, *map(str, command)], check=True, capture_output=True, text=True).stdout

    rng = np.random.default_rng(0)
    table = rng.standard_normal((50, 16)).astype(np.float32)
    ids = [f"r{i}" for i in range(len(table))]
    lists = pa.array(table.tolist(), type=pa.list_(pa.float32()))
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), 16)
    doubles = pa.array(table.astype(np.float64).tolist(), type=pa.list_(pa.float64()))

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        np.save(folder / "n.npy", table)
        np.save(folder / "d.npy", table.astype(np.float64))
        safetensors.numpy.save_file({"x": table}, folder / "s.safetensors")
        for name, column in [("list", lists), ("fixed", fixed), ("double", doubles)]:
            for codec in ["snappy", "zstd", "gzip", "none"]:
                written = pa.table({"id": ids, "embedding": column})
                pq.write_table(written, folder / f"{name}-{codec}.parquet", compression=codec)
        with open(folder / "j.jsonl", "w") as out:
            for i, row in enumerate(table):
                out.write(json.dumps({"id": ids[i], "embedding": [float(v) for v in row]}) + "\n")
        given = sorted(folder.iterdir())
        for source in given:
            for suffix in ["npy", "safetensors", "parquet"]:
                out = folder / f"out.{suffix}"
                run("protect", "--pipeline", "identity", "--input", source, "--output", out)
                if suffix == "npy":
                    back = np.load(out)
                elif suffix == "safetensors":
                    (back,) = safetensors.numpy.load_file(out).values()
                else:
                    read = pq.read_table(out)
                    back = np.array(read["embedding"].to_pylist(), dtype=np.float32)
                assert np.array_equal(back, table), f"{source.name} -> {suffix}"
            print(f"{source.name}: read; written as npy, safetensors and parquet, value by value")

        texts = ["The ball rolled under the parked car.", "She wrote a letter.", "Rain is expected in June."]
        (folder / "t.txt").write_text("\n".join(texts) + "\n")
        (folder / "t.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
        pq.write_table(pa.table({"text": texts}), folder / "t.parquet")
        rows = []
        for source in ["t.txt", "t.jsonl", "t.parquet"]:
            run("embed", "--encoder", arguments.model or "toy", "--input", folder / source, "--output", folder / "e.npy")
            rows.append(np.load(folder / "e.npy"))
        assert all(np.array_equal(rows[0], other) for other in rows), "the container changes the vectors"
        print("texts from txt, jsonl and parquet: the same vectors")
        if arguments.model:
            encoders(run, arguments.model, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
