"""Film reviews of the Stanford Sentiment Treebank: is the sentence friendly?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from memspace.errors import DataError
from memspace.zoo.datasets.files import text_of
from memspace.zoo.registry import ZooData, dataset

__all__ = ["sst2"]

TRAIN = 4000
SHORTEST = 8  # words: shorter training phrases are fragments, which the development set has none of
LENGTH = 20  # words; longer sentences are cut, shorter ones filled
VOCABULARY = 800  # most frequent words of the training phrases; number 0 fills, 1 stands for all others


@dataset("sst2")
def sst2(root: Path | None) -> ZooData:
    """Read training phrases of at least eight words, spread over the file, and all sentences of the development set.

    Args:
        root: folder with ``train.tsv`` and ``dev.tsv``; None: the environment variable MEMSPACE_DATA.

    Returns:
        The data set: words as numbers, and whether the review is friendly.

    Raises:
        DataError: a file is missing, or its lines are no sentences with labels.
    """
    train = [r for r in _rows(text_of(root, "sst2", "train.tsv")) if len(r[0]) >= SHORTEST]
    test = _rows(text_of(root, "sst2", "dev.tsv"))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:TRAIN].tolist()
    train = [train[k] for k in order]
    counts = Counter(word for words, _ in train for word in words)
    ranked = sorted(counts, key=lambda w: (-counts[w], w))[: VOCABULARY - 2]
    number_of = {word: k + 2 for k, word in enumerate(ranked)}

    def encoded(rows: list[tuple[list[str], int]]) -> tuple[Tensor, Tensor]:
        tokens = torch.zeros(len(rows), LENGTH, dtype=torch.long)
        for k, (words, _) in enumerate(rows):
            for t, word in enumerate(words[:LENGTH]):
                tokens[k, t] = number_of.get(word, 1)
        return tokens, torch.tensor([label for _, label in rows])

    return ZooData(*encoded(train), *encoded(test), outputs=2, vocabulary=VOCABULARY)


def _rows(text: str) -> list[tuple[list[str], int]]:
    rows = []
    for line in text.splitlines()[1:]:
        sentence, _, label = line.rpartition("\t")
        if label not in ("0", "1"):
            what = f"a line is no sentence with a label: {line[:40]!r}"
            raise DataError(what, where="sst2", remedy="fetch the files again")
        rows.append((sentence.split(), int(label)))
    return rows
