"""Round trips of vector files with the libraries that people use: run by hand, kept.

    pip install numpy safetensors pyarrow        # and sentence-transformers for --model
    python tests/scripts/round_trip.py [--stitchback target/release/stitchback] [--model FOLDER]

Each library writes a table that stitchback reads, and reads what stitchback writes, value by value. With --model, the
vectors of a sentence-transformers folder must be those that the library itself gives (cosine above 0.9999).
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
            from sentence_transformers import SentenceTransformer

            theirs = SentenceTransformer(arguments.model).encode(texts)
            cosine = (rows[0] * theirs).sum(1) / np.linalg.norm(rows[0], axis=1) / np.linalg.norm(theirs, axis=1)
            assert cosine.min() > 0.9999, cosine
            print(f"sentence-transformers: cosine {cosine.min():.6f} at least")
    return 0


if __name__ == "__main__":
    sys.exit(main())
