"""The refits that an audit asked for, kept so that rivals judge by the very same networks."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from benchmarks.field.networks import Network, train

__all__ = ["Refits"]


@dataclass
class Refits:
    """A task's ``refit``: trains without some examples and remembers what those examples then got.

    Args:
        most: refits allowed; the audit asks for as many as it plans, and what goes beyond is answered all the same.
    """

    network: Network
    x: Tensor
    y: Tensor
    law: str
    outputs: int
    made: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # (examples left out, their outputs)

    def __call__(self, index: Tensor, seed: int) -> nn.Module:
        index = torch.as_tensor(index).cpu()
        model = train(self.network, self.x[index], self.y[index], self.law, self.outputs, seed)
        left_out = torch.ones(len(self.x), dtype=torch.bool)
        left_out[index] = False
        at = left_out.nonzero().flatten()
        with torch.no_grad():
            self.made.append((at, model(self.x[at])))
        return model

    def losses(self) -> Tensor:
        """Held-out loss of every (refit, left-out example), nats per prediction."""
        from benchmarks.field.networks import LAWS

        law = LAWS[self.law]()
        found = []
        for at, f in self.made:
            each = law.nll(f.double(), self.y[at])
            found.append(each.flatten(1).mean(1) if each.dim() > 1 else each)
        return torch.cat(found) if found else torch.zeros(0)

    def probabilities(self) -> tuple[Tensor, Tensor]:
        """Mean class probabilities (n, C) over the refits that did not see an example, and (n,) how many there were."""
        total = torch.zeros(len(self.x), self.outputs, dtype=torch.float64)
        times = torch.zeros(len(self.x), dtype=torch.float64)
        for at, f in self.made:
            total[at] += torch.softmax(f.double(), -1)
            times[at] += 1
        return total / times.clamp_min(1)[:, None], times
