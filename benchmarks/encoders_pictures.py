"""Write the pictures of docs/encoders.md: latents moved one by one, and shortest paths next to straight lines.

python -m benchmarks.encoders_pictures

A β-TCVAE of the open table is trained on sprites again, which takes half a minute.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from memspace.encoders.declaration import load_encoders
from memspace.encoders.images import images_of
from memspace.encoders.model import coded
from memspace.encoders.training import train_encoder
from memspace.geometry.latent import latent_geodesics
from memspace.report.strips import write_strip
from memspace.task.likelihood import Bernoulli

DOCS = Path(__file__).resolve().parents[1] / "docs"
METHOD, STRENGTH = "beta_tcvae", 3.0
COUNT, PAIRS, REACH = 11, 6, 2.0  # pictures of a row, rows, standard deviations of the prior to each side


def main() -> None:
    """Train the encoder and write two pictures."""
    chosen = [s for s in load_encoders("open").specs if (s.world, s.method, s.seed) == ("dsprites", METHOD, 0)]
    (spec,) = [s for s in chosen if s.strength == STRENGTH]
    with TemporaryDirectory() as folder:
        images = images_of(spec.world, spec.pooled, spec.size, Path(folder))
    model = train_encoder(spec, images).model.eval()
    assert model.decoder is not None
    codes = coded(model, images.test).mean
    active = torch.nonzero(codes.std(0) > 0.05).flatten()
    line = torch.linspace(-REACH, REACH, COUNT)
    moved = codes[0].repeat(len(active), COUNT, 1)
    moved[torch.arange(len(active)), :, active] = line
    with torch.no_grad():
        rows = torch.sigmoid(model.decoder(moved.flatten(0, 1))).unflatten(0, (len(active), COUNT))
    write_strip(rows, DOCS / "encoders-latents.png")
    paths = latent_geodesics(model.decoder, codes[:PAIRS], codes[PAIRS : 2 * PAIRS], law=Bernoulli(), limit=1500)
    least, straight = (torch.sigmoid(p) for p in paths.pictures(model.decoder, COUNT))
    both = torch.stack([least, straight], 1).flatten(0, 1)
    write_strip(both, DOCS / "encoders-paths.png")
    print(f"straight lines are longer by {paths.detour()}")


if __name__ == "__main__":
    main()
