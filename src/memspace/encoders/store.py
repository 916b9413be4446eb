"""The store of encoders: weights, codes and images in files, what was measured in tables of a file an encoder.

``encoders/`` has a row an encoder, ``measured/`` its scores and its geometry. ``weights/`` and ``codes/`` have a file
of tensors an encoder. The row of an encoder is written after its weights: whatever is listed is finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar

import safetensors.torch
from torch import Tensor

from memspace.encoders.images import WorldImages
from memspace.encoders.method import EncodingMethod
from memspace.encoders.model import Autoencoder, Posterior
from memspace.encoders.specification import EncoderSpec
from memspace.encoders.training import TrainedEncoder, begun_encoder
from memspace.errors import RunFolderError
from memspace.files import written
from memspace.zoo.piece_store import PieceStore

__all__ = ["MEASURED", "TRAINED", "EncoderStore"]

TRAINED, MEASURED = "encoders", "measured"


class EncoderStore(PieceStore):
    """Encoders with their codes and measurements, in a folder."""

    tables: ClassVar[tuple[str, ...]] = (TRAINED, MEASURED)

    def add_trained(self, trained: TrainedEncoder, codes: Posterior, set_name: str, about: Mapping[str, Any]) -> None:
        """Keep a trained encoder: its weights and codes first, then its row.

        Args:
            trained: the encoder.
            codes: posteriors of the images that it is judged by.
            set_name: of the declaration.
            about: further columns: what it ran on.

        Raises:
            OutputError: the folder cannot be written.
        """
        spec = trained.spec
        weights = {f"model.{k}": v for k, v in trained.model.state_dict().items()}
        weights |= {f"method.{k}": v for k, v in trained.method.state_dict().items()}
        self._add_tensors("weights", spec.key, weights)
        self._add_tensors("codes", spec.key, {"mean": codes.mean, "log_variance": codes.log_variance})
        row = {
            "key": spec.key,
            "configuration": spec.configuration,
            "set": set_name,
            **asdict(spec),
            "parameters": sum(p.numel() for p in trained.model.parameters()),
            "finite": trained.finite,
            "loss": trained.curve[-1][1],
            "curve_steps": [s for s, _ in trained.curve],
            "curve_losses": [loss for _, loss in trained.curve],
            "seconds": trained.seconds,
            **about,
        }
        self.add_rows(TRAINED, spec.key, [row])

    def _add_tensors(self, kind: str, key: str, tensors: Mapping[str, Tensor]) -> None:
        self._make(kind)
        content = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        written(self.folder / kind / f"{key}.safetensors", partial(safetensors.torch.save_file, content))

    def trained_keys(self) -> set[str]:
        """List the encoders that are trained.

        Returns:
            Their keys.
        """
        return set(self.rows(TRAINED)["key"].to_list()) if self.packed else self.names(TRAINED)

    def codes(self, key: str) -> Posterior:
        """Read the codes of an encoder.

        Args:
            key: of it.

        Returns:
            Posteriors of the images that it is judged by.

        Raises:
            RunFolderError: they are missing or damaged.
        """
        tensors = self._tensors("codes", key)
        return Posterior(tensors["mean"], tensors["log_variance"])

    def encoder(self, spec: EncoderSpec, images: WorldImages) -> tuple[Autoencoder, EncodingMethod]:
        """Read a trained encoder.

        Args:
            spec: of the encoder.
            images: it was trained on.

        Returns:
            Its networks in evaluation mode, and its method.

        Raises:
            RunFolderError: the weights are missing or damaged.
        """
        model, made = begun_encoder(spec, images)
        tensors = self._tensors("weights", spec.key)
        try:
            for name, module in (("model", model), ("method", made)):
                parts = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
                module.load_state_dict(parts)
        except RuntimeError as error:
            raise self._damaged("weights", spec.key) from error
        return model.eval(), made.eval()

    def _tensors(self, kind: str, key: str) -> dict[str, Tensor]:
        try:
            tensors: dict[str, Tensor] = safetensors.torch.load_file(self.folder / kind / f"{key}.safetensors")
            return tensors
        except (OSError, safetensors.SafetensorError) as error:
            raise self._damaged(kind, key) from error

    def _damaged(self, kind: str, key: str) -> RunFolderError:
        remedy = f"delete {TRAINED}/{key}.parquet and run the set again in this folder"
        return RunFolderError(f"the {kind} cannot be read", where=str(self.folder / kind / key), remedy=remedy)
