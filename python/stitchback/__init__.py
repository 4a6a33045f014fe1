"""Protect, attack and score embeddings held in NumPy arrays.

    import stitchback
    released, about = stitchback.protect(x, "clip(l2=1) | gaussian(epsilon=8, delta=1e-5)")
    summary = stitchback.attack(x, texts, encoder="all-minilm-l6-v2", pipelines=["clip(l2=1) | gaussian(sigma=0.1)"])
    metrics = stitchback.score(originals, guesses)

Everything is computed by the code of the program `stitchback`, with its messages: what is given wrongly is a `ValueError`,
Ctrl-C a `KeyboardInterrupt`, anything else a `RuntimeError`. Other Python threads go on meanwhile.
"""

import json as _json
import os as _os
import pathlib as _pathlib
import tempfile as _tempfile
from typing import Any, Optional, Sequence, Union

import numpy as _np
import numpy.typing as _npt

from . import _native

__all__ = ["attack", "protect", "score"]

_Path = Union[str, "_os.PathLike[str]"]


def _table(x: _npt.ArrayLike) -> "_npt.NDArray[_np.float32]":
    given = _np.asarray(x)
    if given.dtype.kind not in "fiu":
        raise ValueError(f"real numbers are expected, got an array of dtype {given.dtype}")
    if given.ndim != 2 or given.shape[1] == 0:
        raise ValueError(f"a table of two dimensions (rows, coordinates) is expected, got shape {given.shape}")
    return _np.ascontiguousarray(given, dtype="<f4")


def _labels(labels: Optional[Sequence[Any]], n: int, what: str) -> list[int]:
    """Small numbers for labels of any kind, in the order in which they come."""
    if labels is None:
        return list(range(n))
    labels = list(labels)
    if len(labels) != n:
        raise ValueError(f"{len(labels)} {what} for {n} rows; one for each row is expected")
    seen: dict[Any, int] = {}
    return [seen.setdefault(label, len(seen)) for label in labels]


def protect(
    x: _npt.ArrayLike,
    pipeline: str,
    *,
    seed: Optional[int] = None,
    secure: bool = False,
    topics: Optional[Sequence[Any]] = None,
) -> tuple["_npt.NDArray[_np.float32]", dict[str, Any]]:
    """The released rows, and what may be promised about them (the metadata of `stitchback protect`).

    `x` is `(n, d)`. With a `seed` the release can be drawn again and is marked not private; `secure` draws noise exactly,
    on a grid. `topics`, one for each row, keeps prototypes inside their topic; `about["groups"]` has the rows of each.
    """
    table = _table(x)
    strata = None if topics is None else _labels(topics, len(table), "topics")
    data, dim, about = _native.protect(pipeline, table.tobytes(), table.shape[1], strata, seed, secure)
    return _np.frombuffer(data, dtype="<f4").reshape(-1, dim).copy(), _json.loads(about)


def _images(images: "_npt.NDArray[Any]") -> list[tuple[int, int, bytes]]:
    if images.dtype != _np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:3]:
        raise ValueError(
            f"images are an array of uint8 of shape (n, height, width, 3), got {images.dtype} of shape {images.shape}"
        )
    return [(image.shape[0], image.shape[1], image.tobytes()) for image in images]


def score(
    truths: Union[Sequence[str], "_npt.NDArray[Any]"],
    guesses: Union[Sequence[str], "_npt.NDArray[Any]"],
    *,
    judge: Optional[str] = None,
    documents: Optional[Sequence[Any]] = None,
) -> list[dict[str, Any]]:
    """Every metric on given pairs: a list of dicts with `metric`, `value`, `low`, `high`, `floor`, `n` and more.

    Texts are sequences of strings, pictures arrays of uint8 of shape (n, height, width, 3). `judge` is an encoder by name
    or folder that adds leak, cosine and matching. Originals with one label in `documents` are resampled together.
    """
    if len(truths) != len(guesses) or len(truths) == 0:
        raise ValueError(f"{len(truths)} originals and {len(guesses)} guesses; one guess for each original is expected")
    if isinstance(truths, _np.ndarray) and truths.dtype.kind not in "UO":
        found: list[dict[str, Any]] = _json.loads(
            _native.score_images(_images(truths), _images(_np.asarray(guesses)), judge)
        )
        return found
    for text in (*truths, *guesses):
        if not isinstance(text, str):
            raise ValueError(f"texts are expected, got a {type(text).__name__}")
    labels = _labels(documents, len(truths), "documents")
    found = _json.loads(_native.score_texts(list(map(str, truths)), list(map(str, guesses)), labels, judge))
    return found


def attack(
    x: _npt.ArrayLike,
    records: Union[_Path, Sequence[str]],
    *,
    encoder: _Path = "",
    judge: _Path = "multilingual-e5-small",
    pipelines: Sequence[str] = (),
    attacks: Sequence[str] = (),
    targets: Optional[int] = None,
    seeds: int = 1,
    out: Optional[_Path] = None,
) -> dict[str, Any]:
    """How much of the records can be read back from their vectors? `summary.json` of a study on them.

    `records` is a list of texts, one for each row of `x`, or the path of a file of texts or of a folder of pictures. With
    `encoder`, the one that made the vectors, attackers may also ask it, and it is checked. `pipelines` are protections on
    trial beside the vectors as they are; `attacks` stand beside `blind` (`nearest`, `bag_of_words`, `decoder` unless
    given). The run folder, for reports and gates, stays where `out` is given.
    """
    table = _table(x)
    for name, given in (("pipelines", pipelines), ("attacks", attacks)):
        if isinstance(given, str):
            raise ValueError(f"`{name}` is a list of strings, got one string; write [{given!r}]")
    with _tempfile.TemporaryDirectory(prefix="stitchback-") as name:
        folder = _pathlib.Path(name)
        _np.save(folder / "vectors.npy", table)
        if isinstance(records, (str, _os.PathLike)):
            path = _pathlib.Path(records)
        else:
            texts = list(records)
            if len(table) != len(texts):
                raise ValueError(f"{len(table)} rows and {len(texts)} texts; one row for each text is expected")
            path = folder / "texts.jsonl"
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(_json.dumps({"text": str(text)}) + "\n" for text in texts)
        summary: dict[str, Any] = _json.loads(
            _native.attack(
                folder / "vectors.npy",
                path,
                str(encoder),
                str(judge),
                list(pipelines),
                list(attacks),
                targets,
                seeds,
                folder / "run" if out is None else _pathlib.Path(out),
            )
        )
        return summary
