from os import PathLike
from typing import Optional, Sequence, Union

def protect(
    pipeline: str, values: bytes, dim: int, strata: Optional[Sequence[int]], seed: Optional[int], secure: bool
) -> tuple[bytes, int, str]: ...
def score_texts(
    truths: Sequence[str], guesses: Sequence[str], documents: Sequence[int], judge: Optional[str]
) -> str: ...
def score_images(
    truths: Sequence[tuple[int, int, bytes]], guesses: Sequence[tuple[int, int, bytes]], judge: Optional[str]
) -> str: ...
def attack(
    vectors: Union[str, PathLike[str]],
    records: Union[str, PathLike[str]],
    encoder: str,
    judge: str,
    pipelines: Sequence[str],
    attacks: Sequence[str],
    targets: Optional[int],
    seeds: int,
    out: Union[str, PathLike[str]],
) -> str: ...
