import torch
from torch import Tensor, nn


class Separator(nn.Module):
    """Encoder, a block with a skip, masks and decoder over ``(batch, 1, time)``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.into = nn.Conv1d(1, 40, 16, stride=8), nn.Conv1d(40, 24, 1)
        self.wide, self.act, self.back = nn.Conv1d(24, 64, 3, padding=1), nn.PReLU(), nn.Conv1d(64, 24, 1)
        self.masks, self.decoder = nn.Conv1d(24, 40, 1), nn.ConvTranspose1d(40, 1, 16, stride=8)

    def forward(self, x: Tensor) -> Tensor:
        coded = self.encoder(x)
        y = self.into(coded)
        y = y + self.back(self.act(self.wide(y)))
        return self.decoder(self.masks(y).sigmoid() * coded)


class Attending(nn.Module):
    """An LSTM, then attention: modules that surgery replaces, ops with several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Linear(8, 32), nn.LSTM(32, 24, batch_first=True)
        self.attention, self.out = nn.MultiheadAttention(24, 4, batch_first=True), nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rnn(self.embed(x))[0]
        return self.out(y + self.attention(y, y, y, need_weights=False)[0])


def separator() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Separator().eval(), torch.randn(1, 1, 400)


def attending() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Attending().eval(), torch.randn(1, 10, 8)
