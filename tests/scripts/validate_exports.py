"""Opens what stitchback exports with the programs that it is meant for: run by hand, kept.

    pip install mlcroissant tensorboard altair jsonschema pyarrow
    python tests/scripts/validate_exports.py [--stitchback target/release/stitchback] RUN_DIR

Croissant metadata of a protected set by mlcroissant (which also reads the rows back), learning curves of the run folder by
TensorBoard's own reader, every `plots/*.vl.json` by the Vega-Lite schema that altair carries.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np


def croissant(program: str, folder: pathlib.Path) -> None:
    import mlcroissant

    table = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    np.save(folder / "x.npy", table)
    pipeline = "clip(l2=1) | gaussian(epsilon=8, delta=1e-5)"
    command = ["protect", "--pipeline", pipeline, "--input", "x.npy", "--output", "y.parquet", "--croissant", "y.json"]
    about = ["--licence", "CC0-1.0", "--creator", "somebody", "--url", "https://example.org/y"]
    subprocess.run([program, *command, *about], check=True, cwd=folder, capture_output=True)
    dataset = mlcroissant.Dataset(folder / "y.json")
    issues = dataset.metadata.ctx.issues
    assert not issues.errors, issues.report()
    rows = [next(iter(row.values())) for row in dataset.records("rows")]
    assert len(rows) == 20 and all(len(row) == 6 for row in rows), rows[:1]
    warnings = len(issues.warnings)
    print(f"croissant: valid, {warnings} warnings, {len(rows)} rows of {len(rows[0])} read back")
    for warning in sorted(issues.warnings):
        print(f"  {warning}")


def tensorboard(program: str, folder: pathlib.Path, run: pathlib.Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = folder / "board"
    command = ["report", str(run), "--out", str(folder / "r.html"), "--tensorboard", str(out)]
    subprocess.run([program, *command], check=True, capture_output=True)
    curves = [json.loads(line) for line in open(run / "curves.jsonl")]
    points = 0
    for curve in curves:
        (home,) = [p.parent for p in out.rglob("events*") if p.parts[-4:-1] == tuple(
            "".join(c if c.isalnum() or c in "-_.=()@ " else "_" for c in part)
            for part in (curve["protection"], curve["attack"], f"seed-{curve['seed']}")
        )]
        reader = EventAccumulator(str(home), size_guidance={"scalars": 0})
        reader.Reload()
        found = [(event.step, event.value) for event in reader.Scalars(curve["title"])]
        given = [(round(x), np.float32(y)) for x, y in curve["points"]]
        assert found == given, (curve["title"], found[:3], given[:3])
        points += len(found)
    print(f"tensorboard: {len(curves)} curves, {points} points, value by value")


def vega(run: pathlib.Path) -> None:
    import altair
    import jsonschema

    (schema,) = (pathlib.Path(altair.__file__).parent / "vegalite").glob("v*/schema/vega-lite-schema.json")
    schema = json.loads(schema.read_text())
    specs = sorted((run / "plots").glob("*.vl.json"))
    for path in specs:
        jsonschema.validate(json.loads(path.read_text()), schema)
    assert specs, f"no specification in {run / 'plots'}"
    print(f"vega-lite: {len(specs)} specifications, valid")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stitchback", default="target/release/stitchback")
    parser.add_argument("run", type=pathlib.Path)
    arguments = parser.parse_args()
    program = str(pathlib.Path(arguments.stitchback).resolve())
    with tempfile.TemporaryDirectory() as folder:
        croissant(program, pathlib.Path(folder))
        tensorboard(program, pathlib.Path(folder), arguments.run)
    vega(arguments.run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
