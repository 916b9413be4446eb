"""The store of a zoo: Parquet files queried in place, one a finished piece of work, so that writers never meet.

``trained/`` has a row a network, ``outcomes/`` its losses at every moment, ``measured/`` a row a measurement,
``layers/`` a row a layer, ``layer_costs/`` what a layer costs when it is lost, ``nuisance/`` the measures of a changed
network, each file named by the network's key; ``weights/`` has the states. The row of a network is written after its
weights: whatever is listed is finished. Packed stores have no weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar

import safetensors.torch
import torch
from torch import Tensor

from memspace.errors import RunFolderError
from memspace.files import written
from memspace.zoo.piece_store import PieceStore
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.training.group import TrainedNetwork

__all__ = ["TABLES", "ZooStore"]

# Tables of a store: networks first, then what stages have found out about them.
TABLES = ("trained", "outcomes", "measured", "layers", "layer_costs", "nuisance", "capacity", "memory", "planted")


class ZooStore(PieceStore):
    """Networks of a zoo, their outcomes and measurements, in a folder."""

    tables: ClassVar[tuple[str, ...]] = TABLES

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

    def trained_keys(self) -> set[str]:
        """List the networks that are trained.

        Returns:
            Their keys.
        """
        if self.packed:
            return set(self.rows("trained")["key"].to_list())
        return self.names("trained")

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
