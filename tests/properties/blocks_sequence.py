"""Recurrent and other sequential layers over time."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Recurrent(nn.Module):
    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kind: Literal["lstm", "gru", "rnn", "projected lstm", "relu rnn"],
        layers: Literal[1, 2],
        bidirectional: Literal[False, True],
        bias: Literal[True, False],
        batch_first: Literal[True, False],
        start: Literal["default", "zeros by attribute", "learnt"],
        take: Literal["projection", "outputs", "sum of directions", "last state"],
    ) -> None:
        super().__init__()
        self.hidden_size = width
        self.num_layers, self.directions = layers, 2 if bidirectional else 1
        self.batch_first, self.start, self.take = batch_first, start, take
        options: dict[str, object] = {"num_layers": layers, "bidirectional": bidirectional, "bias": bias}
        options |= {"projected lstm": {"proj_size": width - 1}, "relu rnn": {"nonlinearity": "relu"}}.get(kind, {})
        self.is_lstm = kind.endswith("lstm")
        self.output_size = width - 1 if kind == "projected lstm" else width
        self.rnn = KINDS[kind.split()[-1]](channels, width, batch_first=batch_first, **options)
        self.initial = nn.Parameter(torch.randn(layers * self.directions, 1, self.output_size) * 0.3)
        self.initial_cell = nn.Parameter(torch.randn(layers * self.directions, 1, width) * 0.3)
        self.linear = nn.Linear(self.output_size * self.directions, width)
        self.out_channels = {
            "projection": width,
            "outputs": self.output_size * self.directions,
            "sum of directions": self.output_size,
            "last state": self.output_size,
        }[take]

    def initial_state(self, x: Tensor, batch: int) -> Tensor | tuple[Tensor, Tensor] | None:
        if self.start == "default":
            return None
        if self.start == "learnt":
            hidden, cell = (t.expand(-1, batch, -1).contiguous() for t in (self.initial, self.initial_cell))
        else:
            count = self.num_layers * self.directions
            hidden = torch.zeros(count, batch, self.output_size, dtype=x.dtype, device=x.device)
            cell = x.new_zeros(count, batch, self.hidden_size)
        return (hidden, cell) if self.is_lstm else hidden

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = x.transpose(1, 2) if self.batch_first else x.permute(2, 0, 1)
        y, state = self.rnn(x, self.initial_state(x, batch))
        y = y if self.batch_first else y.transpose(0, 1)
        if self.take == "projection":
            y = self.linear(y)
        elif self.take == "sum of directions":
            y = y.reshape(*y.shape[:2], self.directions, -1).sum(dim=2)
        elif self.take == "last state":
            hidden = state[0] if self.is_lstm else state
            y = y[..., : self.output_size] * hidden[-1].unsqueeze(1)
        return y.transpose(1, 2)


class RecurrentCell(nn.Module):
    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kind: Literal["lstm", "gru", "rnn", "written lstm", "written gru"],
        start: Literal["attribute", "weight shape", "default"],
    ) -> None:
        super().__init__()
        self.hidden = width
        self.kind, self.start = kind, start
        cells = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}
        if kind in cells:
            self.cell = cells[kind](channels, width)
        else:
            gates = 4 if kind == "written lstm" else 3
            self.inputs = nn.Linear(channels, gates * width)
            self.recurrent = nn.Linear(width, gates * width)
        self.out_channels = width

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        if self.kind == "lstm":
            return self.cell(x, (h, c))
        if self.kind in ("gru", "rnn"):
            return self.cell(x, h), c
        if self.kind == "written lstm":
            i, f, g, o = (self.inputs(x) + self.recurrent(h)).chunk(4, dim=-1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(c), c
        (r, z, n), (hr, hz, hn) = (y.split(self.hidden, dim=1) for y in (self.inputs(x), self.recurrent(h)))
        update = torch.sigmoid(z + hz)
        return (1 - update) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + update * h, c

    def forward(self, x: Tensor) -> Tensor:
        width = self.hidden
        if self.start == "weight shape":
            width = (self.cell.weight_hh if self.kind in ("lstm", "gru", "rnn") else self.recurrent.weight).shape[1]
        h = c = torch.zeros(x.shape[0], width, dtype=x.dtype, device=x.device)
        outputs = []
        for frame in x.permute(2, 0, 1):
            if self.start == "default" and self.kind in ("gru", "rnn") and not outputs:
                h = self.cell(frame)
            else:
                h, c = self.step(frame, h, c)
            outputs.append(h)
        return torch.stack(outputs, dim=2)


class GroupedRecurrent(nn.Module):
    """One small GRU per group of channels, the groups interleaved afterwards."""

    def __init__(
        self, channels: int, width: int, *, join: Literal["cat", "stack and interleave"], shared: Literal[False, True]
    ) -> None:
        super().__init__()
        self.groups = 2
        self.spread = nn.Linear(channels, self.groups * width)
        self.rnns = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(self.groups))
        if shared:
            self.rnns[1] = self.rnns[0]
        self.join = join
        self.out_channels = self.groups * width

    def forward(self, x: Tensor) -> Tensor:
        parts = self.spread(x.transpose(1, 2)).chunk(self.groups, dim=-1)
        outputs = [rnn(part)[0] for rnn, part in zip(self.rnns, parts, strict=True)]
        if self.join == "cat":
            return torch.cat(outputs, dim=-1).transpose(1, 2)
        return torch.stack(outputs, dim=-1).flatten(-2).transpose(1, 2)


class CarriedState(nn.Module):
    """Segments in turn, the state of one passed on, through another network, to the next."""

    def __init__(self, channels: int, width: int, *, kind: Literal["lstm", "gru"]) -> None:
        super().__init__()
        self.rnn = KINDS[kind](channels, width, batch_first=True)
        self.memory = nn.LSTM(width, width, batch_first=True)
        self.is_lstm = kind == "lstm"
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        outputs, state, memory = [], None, None
        for segment in x.transpose(1, 2).tensor_split(2, dim=1):
            y, state = self.rnn(segment, state)
            outputs.append(y)
            hidden = state[0] if self.is_lstm else state
            carried, memory = self.memory(hidden.transpose(0, 1), memory)
            hidden = (hidden + carried.transpose(0, 1)).contiguous()
            state = (hidden, state[1]) if self.is_lstm else hidden
        return torch.cat(outputs, dim=1).transpose(1, 2)


class SequenceMemory(nn.Module):
    """A feed-forward memory: a long depthwise filter over projected features."""

    def __init__(self, channels: int, width: int, *, layout: Literal["1-d", "2-d"]) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, width)
        self.project = nn.Linear(width, channels, bias=False)
        self.layout = layout
        self.filter = nn.Conv1d(channels, channels, 5, groups=channels, bias=False)
        self.filter_2d = nn.Conv2d(channels, channels, (5, 1), groups=channels, bias=False)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        p = self.project(F.relu(self.linear(x.transpose(1, 2))))
        if self.layout == "1-d":
            p = p.transpose(1, 2)
            return x + p + self.filter(F.pad(p, (4, 0)))
        p = p.unsqueeze(1).permute(0, 3, 2, 1)
        memory = self.filter_2d(F.pad(p, (0, 0, 4, 0)))
        return x + (p + memory).squeeze(3)


class StateSpace(nn.Module):
    """A diagonal state-space model: ``states`` leaky sums of each channel, stepped or convolved."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        run: Literal["loop", "convolution", "selective"],
        gated: Literal[False, True],
    ) -> None:
        super().__init__()
        self.states = 3
        self.width = width
        self.run, self.gated = run, gated
        self.enter = nn.Linear(channels, 2 * width)
        self.decay = nn.Parameter(torch.randn(width, self.states))
        self.b = nn.Parameter(torch.randn(width, self.states) * 0.5)
        self.c = nn.Parameter(torch.randn(width, self.states) * 0.5)
        self.d = nn.Parameter(torch.randn(width))
        self.select = nn.Linear(width, width + 2 * self.states)
        self.leave = nn.Linear(width, channels)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.enter(x.transpose(1, 2)).chunk(2, dim=-1)
        y = {"loop": self.loop, "convolution": self.convolve, "selective": self.selective}[self.run](u) + self.d * u
        return self.leave(y * F.silu(gate) if self.gated else y).transpose(1, 2)

    def loop(self, u: Tensor) -> Tensor:
        state = torch.zeros(u.shape[0], self.width, self.states, dtype=u.dtype, device=u.device)
        keep, outputs = torch.sigmoid(self.decay), []
        for frame in u.unbind(1):
            state = keep * state + self.b * frame.unsqueeze(-1)
            outputs.append((state * self.c).sum(-1))
        return torch.stack(outputs, dim=1)

    def convolve(self, u: Tensor) -> Tensor:
        times = torch.arange(u.shape[1], dtype=u.dtype, device=u.device)
        powers = torch.sigmoid(self.decay).unsqueeze(-1) ** times
        kernel = torch.einsum("wn,wn,wnt->wt", self.b, self.c, powers)
        padded = F.pad(u.transpose(1, 2), (u.shape[1] - 1, 0))
        return F.conv1d(padded, kernel.flip(-1).unsqueeze(1), groups=kernel.shape[0]).transpose(1, 2)

    def selective(self, u: Tensor) -> Tensor:
        step, b, c = self.select(u).split([self.width, self.states, self.states], dim=-1)
        keep = torch.exp(-F.softplus(step).unsqueeze(-1) * torch.sigmoid(self.decay))
        fed = b.unsqueeze(2) * u.unsqueeze(-1)
        state, outputs = u.new_zeros(u.shape[0], u.shape[2], self.states), []
        for time in range(u.shape[1]):
            state = keep[:, time] * state + fed[:, time]
            outputs.append(torch.einsum("bwn,bn->bw", state, c[:, time]))
        return torch.stack(outputs, dim=1)


BLOCKS = (Recurrent, RecurrentCell, GroupedRecurrent, CarriedState, SequenceMemory, StateSpace)
