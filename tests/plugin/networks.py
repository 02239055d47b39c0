"""Small networks for criteria: norms, recurrent gates, grouped and depthwise convolutions, weights used twice."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Normed(nn.Module):
    """A convolution into a batch norm, a group norm and a PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 6, 3, padding=1)
        self.batch = nn.BatchNorm1d(6)
        self.group = nn.GroupNorm(2, 6)
        self.act = nn.PReLU(6)
        self.last = nn.Conv1d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.act(self.group(self.batch(self.first(x)))))
        return out


class Grouped(nn.Module):
    """A grouped, a depthwise and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 8, 3, padding=1)
        self.grouped = nn.Conv1d(8, 12, 3, padding=1, groups=2)
        self.depthwise = nn.Conv1d(12, 12, 3, padding=1, groups=12)
        self.last = nn.ConvTranspose1d(12, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(self.depthwise(self.grouped(F.relu(self.first(x))))))
        return out


class Recurrent(nn.Module):
    """A layer norm, an LSTM of two directions and a GRU of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(2, 6)
        self.norm = nn.LayerNorm(6)
        self.lstm = nn.LSTM(6, 4, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(8, 5, num_layers=2, batch_first=True)
        self.out = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.norm(self.into(x.transpose(1, 2))))
        hidden, _ = self.gru(hidden)
        out: Tensor = self.out(hidden).transpose(1, 2)
        return out


class Shared(nn.Module):
    """One block that is run three times, and an output that reuses the weight of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(2, 6)
        self.block = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.into(x.transpose(1, 2))
        for _ in range(3):
            hidden = self.norm(hidden + torch.tanh(self.block(hidden)))
        return (self.out(hidden) + F.linear(hidden, self.into.weight.t())).transpose(1, 2)


class Tied(nn.Module):
    """Two convolutions that share one parameter, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv1d(2, 6, 3, padding=1)
        self.one = nn.Conv1d(6, 6, 3, padding=1)
        self.two = nn.Conv1d(6, 6, 3, padding=1)
        self.two.weight = self.one.weight
        self.out = nn.Conv1d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.into(x))
        out: Tensor = self.out(torch.tanh(self.two(torch.tanh(self.one(hidden)))))
        return out


class Attentive(nn.Module):
    """Attention with a residual connection, and a spectrum with complex weights."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(2, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.rotate = nn.Parameter(torch.randn(8, dtype=torch.complex64))
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.into(x.transpose(1, 2))
        hidden = hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0]
        out: Tensor = self.out((hidden * self.rotate).real).transpose(1, 2)
        return out


class Writing(nn.Module):
    """Writes into an embedding, a buffer and its input, and leaves a parameter unused."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv1d(2, 6, 1)
        self.speaker = nn.Embedding(3, 6, max_norm=0.5)
        self.free = nn.Conv1d(6, 4, 1)
        self.out = nn.Conv1d(4, 2, 1)
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        x.mul_(2)
        speaker = self.speaker(torch.tensor([1], device=x.device)).view(1, 6, 1)
        out: Tensor = self.out(torch.tanh(self.free(torch.tanh(self.into(x) + speaker))))
        return out


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    network.__name__: network for network in (Normed, Grouped, Recurrent, Shared, Tied, Attentive, Writing)
}


def network(name: str, device: torch.device | str = "cpu") -> nn.Module:
    """The network of this name with random weights, statistics included, in training mode."""
    torch.manual_seed(0)
    made = NETWORKS[name]()
    for tensor in made.state_dict().values():
        if tensor.dim() == 1 and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return made.to(device)


def exact_network(name: str, device: torch.device | str) -> nn.Module:
    """The network in float64, in which devices agree."""
    return network(name, device).double()


def exact_batches(count: int, device: torch.device | str) -> list[tuple[Tensor, Tensor]]:
    """Batches in float64."""
    return [(inputs.double(), targets.double()) for inputs, targets in batches(count, device)]


def batches(count: int = 3, device: torch.device | str = "cpu") -> list[tuple[Tensor, Tensor]]:
    """Pairs (mixture, sources), each of shape ``(2, 2, 9)``."""
    generator = torch.Generator().manual_seed(1)
    pairs = torch.randn(count, 2, 2, 2, 9, generator=generator).to(device)
    return [(pair[0], pair[1]) for pair in pairs]
