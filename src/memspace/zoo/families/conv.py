"""Convolutional networks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from memspace.zoo.registry import ZooData, family

__all__ = ["Convolutional", "conv"]


class Convolutional(nn.Module):
    """Convolutions of 3 × 3 with ReLU, the first two with stride 2, then a linear layer on all positions.

    Args:
        side: height and width of the image.
        width: channels of every layer.
        depth: convolutions.
        outputs: classes.
    """

    def __init__(self, side: int, width: int, depth: int, outputs: int) -> None:
        super().__init__()
        channels = [1, *[width] * depth]
        strides = [2 if k < 2 else 1 for k in range(depth)]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=s, padding=1) for a, b, s in zip(channels, channels[1:], strides, strict=False)
        )
        self.dropped = []
        for s in strides:
            side = -(-side // s)
            self.dropped.append((width, 1, 1))  # whole channels, as is usual for convolutions
        self.head = nn.Linear(width * side * side, outputs)

    def forward(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """Compute the logits.

        Args:
            x: (B, 1, side, side) images.
            masks: (B, width, 1, 1) for each convolution.

        Returns:
            (B, outputs).
        """
        h = x
        for k, layer in enumerate(self.layers):
            h = layer(h).relu()
            if masks is not None:
                h = h * masks[k]
        logits: Tensor = self.head(h.flatten(1))
        return logits


@family("conv")
def conv(data: ZooData, width: int, depth: int) -> nn.Module:
    """Make a convolutional network.

    Args:
        data: its images and classes.
        width: channels.
        depth: convolutions.

    Returns:
        A fresh network.
    """
    return Convolutional(data.x.shape[-1], width, depth, data.outputs)
