"""Networks, in torch, whose weights ship in packages without them; parameters are named as in the weights."""

from __future__ import annotations

import math

import torch
from torch import nn


class DigitNet(nn.Module):
    """Three convolutions and two dense layers over 28x28 digits; names as in the package's weights."""

    def __init__(self) -> None:
        super().__init__()
        convs: list[nn.Module] = []
        for before, after in ((1, 32), (32, 64), (64, 128)):
            convs += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.conv_layers = nn.Sequential(*convs)
        self.fc_layers = nn.Sequential(nn.Linear(128 * 9, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, 28, 28) -> (N, 10)."""
        x = self.conv_layers(x)
        scores: torch.Tensor = self.fc_layers(x.view(x.size(0), -1))
        return scores


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(384, eps=1e-12)


class BertLayer(nn.Module):
    """One layer of BERT (Devlin et al., 2018) with 12 heads of 32; names as in its checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        query_key_value = nn.ModuleDict({name: nn.Linear(384, 384) for name in ("query", "key", "value")})
        after_attention = nn.ModuleDict({"dense": nn.Linear(384, 384), "LayerNorm": _norm()})
        self.attention = nn.ModuleDict({"self": query_key_value, "output": after_attention})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(384, 1536)})
        self.output = nn.ModuleDict({"dense": nn.Linear(1536, 384), "LayerNorm": _norm()})

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, 384) and an additive mask (B, 1, 1, T) -> (B, T, 384)."""
        batch, length, width = x.shape
        heads = [
            self.attention["self"][name](x).view(batch, length, 12, width // 12).transpose(1, 2)
            for name in ("query", "key", "value")
        ]
        weights = (heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(width // 12) + mask).softmax(-1)
        mixed = (weights @ heads[2]).transpose(1, 2).reshape(batch, length, width)
        x = self.attention["output"]["LayerNorm"](self.attention["output"]["dense"](mixed) + x)
        inner = nn.functional.gelu(self.intermediate["dense"](x))
        out: torch.Tensor = self.output["LayerNorm"](self.output["dense"](inner) + x)
        return out


class MiniLm(nn.Module):
    """The six-layer BERT of all-MiniLM-L6-v2, without the pooling."""

    def __init__(self) -> None:
        super().__init__()
        tables = {"word_embeddings": 30522, "token_type_embeddings": 2, "position_embeddings": 512}
        self.embeddings = nn.ModuleDict({name: nn.Embedding(rows, 384) for name, rows in tables.items()})
        self.embeddings["LayerNorm"] = _norm()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(BertLayer() for _ in range(6))})

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        """Three times (B, T) -> (B, T, 384)."""
        tables = self.embeddings
        positions = tables["position_embeddings"](torch.arange(input_ids.shape[1]).unsqueeze(0))
        x = tables["word_embeddings"](input_ids) + tables["token_type_embeddings"](token_type_ids) + positions
        x = tables["LayerNorm"](x)
        mask = (1.0 - attention_mask.to(torch.float32))[:, None, None, :] * -1e9
        for layer in self.encoder["layer"]:
            x = layer(x, mask)
        return x
