"""Joins speechbrain's encoder, mask network and decoder into one network, as its recipes do."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def fit_length(sources: Tensor, length: int) -> Tensor:
    """Pads or cuts ``(batch, time, speakers)`` to ``length`` samples."""
    missing = length - sources.size(1)
    return functional.pad(sources, (0, 0, 0, missing)) if missing > 0 else sources[:, :length, :]


class MaskingSeparator(nn.Module):
    """Multiplies the features ``(batch, channels, frames)`` by one mask per speaker and decodes each product."""

    def __init__(self, encoder: nn.Module, masker: nn.Module, decoder: nn.Module, speakers: int = 2) -> None:
        super().__init__()
        self.encoder = encoder
        self.masker = masker
        self.decoder = decoder
        self.speakers = speakers

    def forward(self, mixture: Tensor) -> Tensor:
        features = self.encoder(mixture)
        masks = self.masker(features)
        separated = torch.stack([features] * self.speakers) * masks
        sources = torch.cat([self.decoder(separated[i]).unsqueeze(-1) for i in range(self.speakers)], dim=-1)
        return fit_length(sources, mixture.size(1))
