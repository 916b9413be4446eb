"""Networks as people train them, small: a residual network, a vision transformer, a decoder, an LSTM."""

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.a = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.b = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.na, self.nb = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.skip = nn.Identity()
        if stride > 1 or channels != out:
            self.skip = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.nb(self.b(self.act(self.na(self.a(x)))))
        h += self.skip(x)
        return self.act(h)


class ResNet(nn.Module):
    def __init__(self, width=8, classes=5):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.body = nn.Sequential(Residual(width, width, 1), Residual(width, 2 * width, 2))
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class ViT(nn.Module):
    def __init__(self, width=16, classes=4):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.cls, self.position = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 5, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        h = self.patch(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.cls.expand(len(x), -1, -1), h], 1) + self.position
        return self.head(self.norm(self.encoder(h))[:, 0])


class Decoder(nn.Module):
    """Causal, pre-norm, fused attention, positions of shape (1, T), embedding tied to the head."""

    def __init__(self, vocabulary=11, width=16, tied=True):
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(8, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(2)
        )
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.token.weight

    def forward(self, x):
        h = self.token(x) + self.position(torch.arange(x.shape[1]).unsqueeze(0))
        for k in range(2):
            q, key, v = (
                t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.qkv[k](self.norms[2 * k](h)).chunk(3, -1)
            )
            a = F.scaled_dot_product_attention(q, key, v, is_causal=True).transpose(1, 2).flatten(2)
            h = h + self.out[k](a)
            h = h + self.mlp[k](self.norms[2 * k + 1](h))
        return self.head(self.norms[4](h))


class LSTMText(nn.Module):
    """Token-level outputs of a two-layer LSTM over embeddings with padding."""

    def __init__(self, vocabulary=11, width=12):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width, padding_idx=0)
        self.lstm = nn.LSTM(width, width, 2, batch_first=True, dropout=0.2)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x):
        return self.head(self.lstm(self.token(x))[0])


class Segmenter(nn.Module):
    """Per-pixel outputs: down, up by a transposed convolution, a skip, classes last."""

    def __init__(self, classes=3):
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 6, 3, 2, 1), nn.ConvTranspose2d(6, 4, 2, 2)
        self.norm, self.head = nn.InstanceNorm2d(4, affine=True), nn.Conv2d(5, classes, 1)

    def forward(self, x):
        h = torch.cat([self.norm(self.up(torch.relu(self.down(x)))), x], 1)
        return self.head(h).movedim(1, -1)
