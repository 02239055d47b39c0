"""Recurrent layers in the ways people use them."""

import torch
from torch import nn


class RNNMasker(nn.Module):
    """Embeds the spectrum, runs a recurrent network over time and estimates a mask per source."""

    def __init__(self, rnn, n_out, n_freq=33, n_src=2):
        super().__init__()
        self.n_src = n_src
        self.n_freq = n_freq
        self.embed = nn.Linear(n_freq, rnn.input_size)
        self.rnn = rnn
        self.out = nn.Linear(n_out, n_freq * n_src)

    def forward(self, spec):
        x = torch.tanh(self.embed(spec))
        if not self.rnn.batch_first:
            x = x.transpose(0, 1)
        x, _ = self.rnn(x)
        if not self.rnn.batch_first:
            x = x.transpose(0, 1)
        mask = torch.sigmoid(self.out(x))
        mask = mask.view(spec.size(0), spec.size(1), self.n_src, self.n_freq)
        return mask * spec.unsqueeze(2)


class FinalStateGate(nn.Module):
    """The last hidden state of an utterance encoder gates the frames."""

    def __init__(self, n_freq=33, n_hid=16, num_layers=2):
        super().__init__()
        self.num_layers = num_layers
        self.n_hid = n_hid
        self.encoder = nn.GRU(n_freq, n_hid, num_layers, batch_first=True, bidirectional=True)
        self.frames = nn.Linear(n_freq, 2 * n_hid)
        self.out = nn.Linear(2 * n_hid, n_freq)

    def forward(self, spec):
        _, h_n = self.encoder(spec)
        h_n = h_n.view(self.num_layers, 2, spec.shape[0], self.n_hid)[-1]
        utterance = torch.cat([h_n[0], h_n[1]], dim=-1)
        return self.out(torch.relu(self.frames(spec)) * torch.sigmoid(utterance).unsqueeze(1))


class ExplicitStateLSTM(nn.Module):
    """Makes its own zero state, as code for streaming usually does."""

    def __init__(self, n_freq=33, n_hid=24, n_layers=2):
        super().__init__()
        self.n_hid, self.n_layers = n_hid, n_layers
        self.lstm = nn.LSTM(n_freq, n_hid, n_layers, batch_first=True)
        self.out = nn.Linear(n_hid, n_freq)

    def init_hidden(self, batch):
        weight = next(self.parameters())
        return (
            weight.new_zeros(self.n_layers, batch, self.n_hid),
            torch.zeros(self.n_layers, batch, self.n_hid, dtype=weight.dtype, device=weight.device),
        )

    def forward(self, spec):
        y, _ = self.lstm(spec, self.init_hidden(spec.size(0)))
        return torch.sigmoid(self.out(y)) * spec


class StreamingLSTM(nn.Module):
    """Takes the state of the previous call and returns the new one with the frames."""

    def __init__(self, n_freq=33, n_hid=24):
        super().__init__()
        self.inp = nn.Linear(n_freq, 20)
        self.lstm = nn.LSTM(20, n_hid, batch_first=True)
        self.mid = nn.Linear(n_hid, 28)
        self.out = nn.Linear(28, n_freq)

    def forward(self, spec, h, c):
        y, (h, c) = self.lstm(torch.relu(self.inp(spec)), (h, c))
        return torch.sigmoid(self.out(torch.relu(self.mid(y)))), h, c


class CellLoop(nn.Module):
    """Unrolls LSTM, GRU and RNN cells by hand over the frames."""

    def __init__(self, n_freq=33, n_hid=18):
        super().__init__()
        self.n_hid = n_hid
        self.first = nn.LSTMCell(n_freq, n_hid)
        self.second = nn.GRUCell(n_hid, n_hid)
        self.third = nn.RNNCell(n_hid, n_hid + 4, nonlinearity="relu")
        self.out = nn.Linear(n_hid + 4, n_freq)

    def forward(self, spec):
        batch = spec.shape[0]
        h = spec.new_zeros(batch, self.n_hid)
        c = torch.zeros_like(h)
        g = spec.new_zeros(batch, self.n_hid)
        r = None
        frames = []
        for frame in spec.unbind(1):
            h, c = self.first(frame, (h, c))
            g = self.second(h, g)
            r = self.third(g, r)
            frames.append(self.out(r))
        return torch.stack(frames, dim=1)


class StackedWithNorm(nn.Module):
    """A list of one-layer recurrent networks with projection, norm and skip connection."""

    def __init__(self, n_freq=33, n_feat=24, n_hid=20, n_layers=3):
        super().__init__()
        self.inp = nn.Linear(n_freq, n_feat)
        self.rnns = nn.ModuleList(nn.LSTM(n_feat, n_hid, bidirectional=True, batch_first=True) for _ in range(n_layers))
        self.projs = nn.ModuleList(nn.Linear(2 * n_hid, n_feat) for _ in range(n_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(n_feat) for _ in range(n_layers))
        self.out = nn.Linear(n_feat, n_freq)

    def forward(self, spec):
        x = self.inp(spec)
        for rnn, proj, norm in zip(self.rnns, self.projs, self.norms, strict=True):
            rnn.flatten_parameters()
            y = rnn(x)[0].contiguous()
            y = proj(y.view(-1, y.shape[2])).view(x.shape)
            x = x + norm(y)
        return self.out(x)


class GroupedGRU(nn.Module):
    """Splits the features over several small GRUs and shuffles between layers, as in small-footprint enhancers."""

    def __init__(self, n_freq=32, n_feat=24, groups=4, num_layers=2):
        super().__init__()
        self.groups = groups
        self.n_feat = n_feat
        self.inp = nn.Linear(n_freq, n_feat)
        width = n_feat // groups
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(groups)) for _ in range(num_layers)
        )
        self.out = nn.Linear(n_feat, n_freq)

    def forward(self, spec):
        x = self.inp(spec)
        for layer in self.layers:
            chunks = torch.chunk(x, self.groups, dim=-1)
            x = torch.stack([rnn(chunk)[0] for rnn, chunk in zip(layer, chunks, strict=True)], dim=-1)
            x = x.flatten(-2)
        return torch.sigmoid(self.out(x)) * spec


class FSMN(nn.Module):
    """Feed-forward sequential memory: linear, low-rank projection and a depthwise memory with look-back."""

    def __init__(self, n_freq=33, hidden=40, proj=24, lorder=5, layers=2):
        super().__init__()
        self.lorder = lorder
        self.inp = nn.Linear(n_freq, proj)
        self.linears = nn.ModuleList(nn.Linear(proj, hidden) for _ in range(layers))
        self.projects = nn.ModuleList(nn.Linear(hidden, proj, bias=False) for _ in range(layers))
        self.memories = nn.ModuleList(
            nn.Conv2d(proj, proj, [lorder, 1], groups=proj, bias=False) for _ in range(layers)
        )
        self.out = nn.Linear(proj, n_freq)

    def forward(self, spec):
        x = self.inp(spec)
        for linear, project, memory in zip(self.linears, self.projects, self.memories, strict=True):
            p = project(torch.relu(linear(x)))
            per = p.unsqueeze(1).permute(0, 3, 2, 1)
            history = nn.functional.pad(per, [0, 0, self.lorder - 1, 0])
            y = per + memory(history)
            x = x + y.permute(0, 3, 2, 1).squeeze(1)
        return torch.sigmoid(self.out(x)) * spec


class SelectiveStateSpace(nn.Module):
    """A gated, input-dependent diagonal state-space block whose scan is written out in Python."""

    def __init__(self, n_freq=33, d_model=16, d_state=4, d_conv=3, expand=2, dt_rank=4):
        super().__init__()
        self.d_inner = expand * d_model
        self.d_state, self.dt_rank = d_state, dt_rank
        self.inp = nn.Linear(n_freq, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.in_proj = nn.Linear(d_model, self.d_inner * 2, bias=False)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(self.d_inner, dt_rank + d_state * 2, bias=False)
        self.dt_proj = nn.Linear(dt_rank, self.d_inner)
        a = torch.arange(1, d_state + 1, dtype=torch.float32).repeat(self.d_inner, 1)
        self.A_log = nn.Parameter(torch.log(a))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)
        self.out = nn.Linear(d_model, n_freq)

    def scan(self, u, delta, a, b, c):
        state = torch.zeros(u.size(0), self.d_inner, self.d_state, dtype=u.dtype, device=u.device)
        decay = torch.exp(torch.einsum("bld,dn->bldn", delta, a))
        drive = torch.einsum("bld,bln,bld->bldn", delta, b, u)
        outputs = []
        for t in range(u.size(1)):
            state = decay[:, t] * state + drive[:, t]
            outputs.append(torch.einsum("bdn,bn->bd", state, c[:, t]))
        return torch.stack(outputs, dim=1) + u * self.D

    def forward(self, spec):
        x = self.inp(spec)
        length = x.shape[1]
        u, gate = self.in_proj(self.norm(x)).chunk(2, dim=-1)
        u = self.conv1d(u.transpose(1, 2))[..., :length].transpose(1, 2)
        u = nn.functional.silu(u)
        delta, b, c = torch.split(self.x_proj(u), [self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = nn.functional.softplus(self.dt_proj(delta))
        y = self.scan(u, delta, -torch.exp(self.A_log), b, c) * nn.functional.silu(gate)
        return self.out(x + self.out_proj(y))
