"""The store of a zoo: Parquet files queried in place, one a finished piece of work, so that writers never meet.

``trained/`` has a row a network, ``outcomes/`` its losses at every moment, ``measured/`` a row a measurement,
``layers/`` a row a layer, ``layer_costs/`` what a layer costs when it is lost, ``nuisance/`` the measures of a changed
network, each file named by the network's key; ``weights/`` has the states. A file is written whole under another name
and renamed, the row of a network after its weights: whatever is listed is finished. Packed stores have one file a kind
and no weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor

from memspace.errors import RunFolderError
from memspace.files import writing, written
from memspace.frames import polars
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.training.group import TrainedNetwork

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "TABLES",
    "ZooStore",
]

# Tables of a store: networks first, then what stages have found out about them.
TABLES = ("trained", "outcomes", "measured", "layers", "layer_costs", "nuisance", "capacity", "memory", "planted")
TIMES = ("seconds", "machine", "threads", "finished")  # columns that say when and where, not what
# Columns that rows are sorted by, where they are there.
ORDER = ("key", "moment", "transform", "amount", "place", "name")


class ZooStore:
    """Networks of a zoo, their outcomes and measurements, in a folder.

    Args:
        folder: created when the first network is added.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    # --- writing --------------------------------------------------------------------------------------------------

    def add_trained(self, trained: TrainedNetwork, block: str, about: Mapping[str, Any]) -> None:
        """Keep a trained network: its weights first, then its row.

        Args:
            trained: the network.
            block: of the declaration.
            about: further columns: what it ran on.

        Raises:
            OutputError: the folder cannot be written.
        """
        key = trained.spec.key
        steps = torch.tensor([s for s, _ in trained.states], dtype=torch.float64)
        states = torch.stack([v for _, v in trained.states])
        self._make("weights")
        written(
            self.folder / "weights" / f"{key}.safetensors",
            partial(safetensors.torch.save_file, {"steps": steps, "states": states}),
        )
        row = {
            "key": key,
            "configuration": trained.spec.configuration,
            "block": block,
            **asdict(trained.spec),
            "parameters": states.shape[1],
            "reached": trained.reached,
            "steps": trained.steps,
            "loss": trained.loss,
            "seconds": trained.seconds,
            "curve_steps": [s for s, _ in trained.curve],
            "curve_losses": [loss for _, loss in trained.curve],
            **about,
        }
        self.add_rows("trained", key, [row])

    def add_rows(self, kind: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a file of rows, whole or not at all.

        Args:
            kind: of ``TABLES``.
            name: of the file, unique to this piece of work.
            rows: with the same columns.

        Raises:
            OutputError: the folder cannot be written.
        """
        self._make(kind)
        frame = polars().DataFrame(list(rows), infer_schema_length=None)
        written(self.folder / kind / f"{name}.parquet", partial(_write, frame))

    def _make(self, kind: str) -> None:
        path = self.folder / kind
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)

    # --- reading --------------------------------------------------------------------------------------------------

    def names(self, kind: str) -> set[str]:
        """List the finished files of a kind.

        Args:
            kind: of ``TABLES``.

        Returns:
            Their names without endings.
        """
        return {path.stem for path in (self.folder / kind).glob("*.parquet")}

    def rows(self, kind: str) -> pl.DataFrame:
        """Read all rows of a kind.

        Args:
            kind: of ``TABLES``.

        Returns:
            A frame; without columns where nothing is there.

        Raises:
            RunFolderError: a file is damaged.
        """
        frames = polars()
        paths = sorted((self.folder / kind).glob("*.parquet"))
        try:
            parts = [frames.read_parquet(p) for p in paths]
            frame: pl.DataFrame = frames.concat(parts, how="diagonal_relaxed") if parts else frames.DataFrame()
        except (frames.exceptions.PolarsError, OSError) as error:
            what = f"the store's files cannot be read ({str(error).splitlines()[0]})"
            remedy = "delete the damaged file: its network is trained or measured again"
            raise RunFolderError(what, where=str(self.folder / kind), remedy=remedy) from error
        return frame.sort([c for c in ORDER if c in frame.columns])

    def rows_of(self, kind: str, key: str) -> pl.DataFrame:
        """Read the rows of one network.

        Args:
            kind: of ``TABLES``.
            key: of the network.

        Returns:
            A frame; without columns where nothing is there.
        """
        path = self.folder / kind / f"{key}.parquet"
        if path.is_file():
            frame: pl.DataFrame = polars().read_parquet(path)
            return frame
        frame = self.rows(kind) if self.packed else polars().DataFrame()
        return frame.filter(polars().col("key") == key) if len(frame) else frame

    def version_at(self, kind: str, key: str) -> str:
        """Read by which version of the code and settings the rows of a network were made.

        Args:
            kind: of ``TABLES``, with a column ``version``.
            key: of the network.

        Returns:
            The version; empty where it has no rows.
        """
        rows = self.rows_of(kind, key)
        return str(rows["version"][0]) if len(rows) else ""

    def keys_at(self, kind: str, version: str) -> set[str]:
        """List the networks whose rows were made by a version.

        Args:
            kind: of ``TABLES``, with a column ``version``.
            version: of code and settings.

        Returns:
            Their keys.
        """
        rows = self.rows(kind)
        return set(rows.filter(polars().col("version") == version)["key"].to_list()) if len(rows) else set()

    def trained_keys(self) -> set[str]:
        """List the networks that are trained.

        Returns:
            Their keys.
        """
        if self.packed:
            return set(self.rows("trained")["key"].to_list())
        return self.names("trained")

    @property
    def packed(self) -> bool:
        """True where all rows of a kind lie in one file."""
        return (self.folder / "trained" / "all.parquet").is_file()

    def states(self, key: str) -> tuple[Tensor, Tensor]:
        """Read the recorded weights of a network.

        Args:
            key: of it.

        Returns:
            (S,) steps and (S, P) weights, the initialisation first.

        Raises:
            RunFolderError: they are missing or damaged.
        """
        path = self.folder / "weights" / f"{key}.safetensors"
        try:
            tensors = safetensors.torch.load_file(path)
            return tensors["steps"], tensors["states"]
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            remedy = "train the zoo again in this folder: what is there is not repeated"
            raise RunFolderError("the weights cannot be read", where=str(path), remedy=remedy) from error

    def spec(self, row: Mapping[str, Any]) -> NetworkSpec:
        """Make a network's specification from its row.

        Args:
            row: of ``trained``.

        Returns:
            The specification.
        """
        names = NetworkSpec.__dataclass_fields__
        return NetworkSpec(**{n: row[n] for n in names})

    def has_results(self, keys: Iterable[str] | None = None) -> bool:
        """Tell whether anything but the training of networks is there: outcomes, measurements, costs of layers.

        Args:
            keys: of the networks; None: any.

        Returns:
            True where there are.
        """
        asked = None if keys is None else set(keys)
        for kind in TABLES[1:]:
            rows = self.rows(kind)
            if len(rows) and (asked is None or asked & set(rows["key"].to_list())):
                return True
        return False

    def digest(self) -> str:
        """Compute a hash of what the store says: networks and all that is known of them, without times.

        Returns:
            SHA-256 in hexadecimal digits; the same for a packed copy.
        """
        content = hashlib.sha256()
        for kind in TABLES:
            frame = self.rows(kind)
            columns = sorted(c for c in frame.columns if c not in TIMES)
            for row in frame.select(columns).iter_rows():
                content.update(json.dumps([kind, *row], default=str).encode())
        return content.hexdigest()

    def pack(self, folder: str | Path) -> ZooStore:
        """Write a copy of all rows, a file a kind, without weights.

        Args:
            folder: where it goes.

        Returns:
            The copy.

        Raises:
            OutputError: the folder cannot be written.
        """
        copy = ZooStore(folder)
        for kind in TABLES:
            frame = self.rows(kind)
            if len(frame):
                copy._make(kind)
                written(copy.folder / kind / "all.parquet", partial(_write, frame))
        return copy


def _write(frame: pl.DataFrame, path: Path) -> None:
    frame.write_parquet(path, compression="zstd")
