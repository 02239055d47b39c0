"""Where only one of two dimensions can shrink, and which of them it is shows later."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget, build_graph


class DynamicFilters(nn.Module):
    """Every channel and time has a filter of its own: ``channels * taps`` outputs viewed as (channels, taps)."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.channels, self.taps = channels, taps
        self.first, self.last = nn.Conv1d(1, channels, 3), nn.Conv1d(channels, 1, 1)
        self.filters = nn.Conv1d(channels, channels * taps, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        weight = self.filters(x).view(x.shape[0], self.channels, self.taps, -1)
        padded = F.pad(x, (self.taps // 2, self.taps // 2))
        return self.last((weight * padded.unfold(2, self.taps, 1).transpose(2, 3)).sum(dim=2))


@pytest.mark.parametrize(("channels", "taps"), [(16, 3), (8, 9), (6, 15)])
def test_filters_per_channel_shrink_in_channels(channels: int, taps: int) -> None:
    """Both sizes are attributes; the larger one is not always that of the channels."""
    model, x = DynamicFilters(channels, taps).double().eval(), torch.randn(2, 1, 20, dtype=torch.float64)
    (group,) = build_graph(model, x).groups
    owned = next(member.indices for member in group.members if member.tensor == "filters.weight" and member.dim == 0)
    assert owned.tolist() == [list(range(c * taps, (c + 1) * taps)) for c in range(channels)]
    pruned = prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5)).model
    assert (pruned.channels, pruned.taps) == (channels // 2, taps)


class NormedFilters(nn.Module):
    """Several filters for each channel, whose outputs are normalised together: as many groups as channels."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(1, channels, 3), nn.GroupNorm(channels, channels * filters)
        self.filters = nn.Conv1d(channels, channels * filters, 3, groups=channels)
        self.last = nn.Conv1d(channels * filters, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.filters(self.first(x))))


@pytest.mark.parametrize(("channels", "filters"), [(8, 3), (3, 8)])
def test_groups_of_a_norm_go_where_their_channels_go_together(channels: int, filters: int) -> None:
    model, x = NormedFilters(channels, filters).double().eval(), torch.randn(2, 1, 20, dtype=torch.float64)
    (group,) = build_graph(model, x).groups
    assert group.width == channels
    result = prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5))
    assert not result.report.unproved
    assert result.model.norm.num_groups == result.model.filters.groups == len(result.plan.kept[group.name])


class Merged(nn.Module):
    """Few filters for several channels each: of a group's channels none can go alone."""

    def __init__(self, groups: int, inputs: int, outputs: int, kind: type[nn.Module] = nn.Conv1d) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, groups * inputs, 3), nn.Conv1d(groups * outputs, 1, 1)
        self.filters = kind(groups * inputs, groups * outputs, 3, groups=groups)
        self.cells = nn.LSTM(groups * outputs, 5, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.filters(self.first(x))
        return self.last(x), self.cells(x.mT)[0]


@pytest.mark.parametrize(("groups", "inputs"), [(6, 2), (4, 3), (2, 8)])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
def test_whole_groups_of_a_convolution_go_where_each_gives_one_channel(
    groups: int, inputs: int, kind: type[nn.Module]
) -> None:
    model, x = Merged(groups, inputs, 1, kind).double().eval(), torch.randn(2, 1, 20, dtype=torch.float64)
    result = prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5))
    assert not result.report.unproved
    filters = result.model.filters
    assert (filters.groups, filters.in_channels, filters.out_channels) == (
        groups // 2,
        groups // 2 * inputs,
        groups // 2,
    )


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
def test_channels_of_each_group_go_where_there_are_several(kind: type[nn.Module]) -> None:
    model, x = Merged(3, 4, 4, kind).double().eval(), torch.randn(2, 1, 20, dtype=torch.float64)
    filters = prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5)).model.filters
    assert (filters.groups, filters.in_channels, filters.out_channels) == (3, 6, 6)


class Wavelets(nn.Module):
    """Analyses each channel in two bands, mixes these, and puts the channels together again."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.first, self.last = nn.Conv1d(3, width, 1), nn.Conv1d(width, 3, 1)
        self.mix = nn.Conv1d(2 * width, 2 * width, 1)
        haar = torch.tensor([[1.0, 1.0], [1.0, -1.0]]).unsqueeze(1) / 2**0.5
        self.register_buffer("analysis", haar.repeat(width, 1, 1))
        self.register_buffer("synthesis", haar.repeat(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        bands = F.conv1d(self.first(x), self.analysis, stride=2, groups=self.width)
        return self.last(F.conv_transpose1d(self.mix(bands), self.synthesis, stride=2, groups=self.width))


def test_channels_of_a_filter_bank_go_with_their_bands() -> None:
    model, x = Wavelets(8).double().eval(), torch.randn(2, 3, 20, dtype=torch.float64)
    result = prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5))
    assert not result.report.unproved
    small = Wavelets(4).double().eval()
    small.load_state_dict(result.model.state_dict())
    torch.testing.assert_close(small(x), result.model(x))


class Involution(nn.Module):
    """Filters shared by the channels of each group of ``channels // groups``."""

    def __init__(self, channels: int, groups: int, taps: int) -> None:
        super().__init__()
        self.channels, self.groups, self.taps, self.per_group = channels, groups, taps, channels // groups
        self.first, self.last = nn.Conv1d(1, channels, 3), nn.Conv1d(channels, 1, 1)
        self.filters = nn.Conv1d(channels, groups * taps, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        batch, _, time = x.shape
        weight = self.filters(x).view(batch, self.groups, self.taps, time).unsqueeze(2)
        rows = F.pad(x, (self.taps // 2, self.taps // 2)).unfold(2, self.taps, 1).transpose(2, 3)
        rows = rows.reshape(batch, self.groups, self.per_group, self.taps, time)
        return self.last((weight * rows).sum(dim=3).view(batch, self.channels, time))


@pytest.mark.parametrize(("channels", "groups", "taps"), [(24, 6, 9), (24, 3, 9), (24, 6, 3)])
def test_filters_per_group_do_not_lock_the_channels(channels: int, groups: int, taps: int) -> None:
    model, x = Involution(channels, groups, taps).double().eval(), torch.randn(2, 1, 20, dtype=torch.float64)
    graph = build_graph(model, x)
    assert "first.weight" in {member.tensor for group in graph.groups for member in group.members}
    prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5))


class JoinedWithPositions(nn.Module):
    """Channels are flattened with a learned table over positions, of which there are more, but which are fixed."""

    def __init__(self, channels: int, positions: int) -> None:
        super().__init__()
        self.channels, self.positions = channels, positions
        self.first, self.last = nn.Conv1d(1, channels, 1), nn.Conv1d(channels, 1, 1)
        self.table = nn.Parameter(torch.randn(positions))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        joined = (x.mean(dim=-1)[:, :, None] * self.table).flatten(1).view(x.shape[0], self.channels, self.positions)
        return self.last(x + joined)


def test_the_flattened_dimension_that_can_shrink_does() -> None:
    model = JoinedWithPositions(6, 20).double().eval()
    x = torch.randn(2, 1, 20, dtype=torch.float64)
    graph = build_graph(model, x)
    (group,) = graph.groups
    assert group.width == 6
    (locked,) = [locked for locked in graph.locked if locked.name == "table[0]"]
    assert "flattened with another channel dimension; only one of the two can shrink" in {
        lock.reason for lock in locked.locks
    }
    prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5))


class CutAtAShare(nn.Module):
    """Treats the first quarter of its channels, or half of them, in another way."""

    def __init__(self, channels: int, cut: Literal["split", "slices", "three parts"]) -> None:
        super().__init__()
        self.cut = cut
        self.first, self.last = nn.Conv1d(1, channels, 1), nn.Conv1d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        fold = x.shape[1] // 4
        if self.cut == "split":
            parts = torch.split(x, [fold, x.shape[1] - fold], dim=1)
        elif self.cut == "slices":
            parts = x[:, :fold], x[:, fold:]
        else:
            parts = x[:, fold : 2 * fold], torch.cat([x[:, :fold], x[:, 2 * fold :]], dim=1)
        return self.last(torch.cat([parts[0].tanh(), parts[1]], dim=1))


@pytest.mark.parametrize("cut", ["split", "slices", "three parts"])
@pytest.mark.parametrize("channels", [12, 16])
def test_quarters_shrink_together(channels: int, cut: Literal["split", "slices", "three parts"]) -> None:
    model = CutAtAShare(channels, cut).double().eval()
    x = torch.randn(2, 1, 5, dtype=torch.float64)
    (group,) = build_graph(model, x).groups
    owned = next(member.indices for member in group.members if member.tensor == "first.weight")
    assert sorted(owned.tolist()) == [[i + part * channels // 4 for part in range(4)] for i in range(channels // 4)]
    prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5))


class WrittenEitherWay(nn.Module):
    """Queries leave the number of heads open, keys and values the time: the likeliest ways do not fit each other."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_dim = 4, 8
        self.queries, self.keys, self.values, self.out = (nn.Linear(32, 32, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        q = self.queries(x).view(batch, time, -1, self.head_dim).transpose(1, 2)
        k = self.keys(x).view(batch, -1, self.heads, self.head_dim).transpose(1, 2)
        v = self.values(x).view(batch, -1, self.heads, self.head_dim).transpose(1, 2)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, time, -1))


def test_choices_are_turned_line_by_line_where_turning_all_swaps_them() -> None:
    model, x = WrittenEitherWay().double().eval(), torch.randn(2, 7, 32, dtype=torch.float64)
    graph = build_graph(model, x)
    assert graph.coverage == 1
    result = prunegraph.prune(model, x, budget=Budget(ratio=0.5))
    assert {layer.weight.shape for layer in (result.model.queries, result.model.keys)} == {(16, 32)}
    assert result.model.out.weight.shape == (32, 16)


class GatedHeads(nn.Module):
    """Values name the number of their heads, and the gate the width of each."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_dim = 2, 6
        self.first, self.values, self.gate, self.last = (
            nn.Linear(*ends) for ends in ((3, 8), (8, 12), (8, 12), (12, 3))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        values = rearrange(self.values(y), "b l (h d) -> b h l d", h=self.heads)
        gate = rearrange(self.gate(y), "b l (h d) -> b h l d", d=self.head_dim)
        return self.last(rearrange(values.cumsum(2) * F.silu(gate), "b h l d -> b l (h d)"))


def test_choices_are_turned_by_the_lines_that_call_another_package() -> None:
    model, x = GatedHeads().double().eval(), torch.randn(2, 7, 3, dtype=torch.float64)
    assert {group.name: group.width for group in build_graph(model, x).groups} == {
        "first.weight[0]": 8,
        "values.weight[0]": 2,
    }
    result = prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5))
    assert (result.model.heads, result.model.last.in_features, result.report.unproved) == (1, 6, {})


class GroupedLinear(nn.Module):
    """DeepFilterNet's linear map in groups of features."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.randn(groups, inputs // groups, outputs // groups))

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(*x.shape[:2], self.groups, -1)
        return torch.einsum("btgi,gih->btgh", x, self.weight).flatten(2, 3)


class SqueezedGRU(nn.Module):
    """A GRU between two such maps, or with a skip connection around it."""

    def __init__(self, inputs: int, hidden: int, outputs: int | None = None) -> None:
        super().__init__()
        self.enter, self.gru = GroupedLinear(inputs, hidden, 4), nn.GRU(hidden, hidden, batch_first=True)
        self.leave = GroupedLinear(hidden, outputs, 4) if outputs else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).relu()
        y, _ = self.gru(x)
        return y + x if self.leave is None else self.leave(y)


class OneLineInManyPlaces(nn.Module):
    """The same view wants its groups in one module, and the features within them in another."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.bands = 16
        self.a, self.b, self.last = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 10, 1), nn.Conv2d(8, 1, 1)
        self.gru, self.filters = SqueezedGRU(128, hidden, 128), SqueezedGRU(128, hidden)
        self.out = GroupedLinear(hidden, 160, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.a(x)
        batch, _, frames, bands = x.shape
        features = self.gru(x.permute(0, 2, 3, 1).flatten(2))
        gains = self.last(x + features.view(batch, frames, bands, -1).permute(0, 3, 1, 2))
        filters = self.out(self.filters(features)).view(batch, frames, self.bands, 10)
        return gains, filters + self.b(x).permute(0, 2, 3, 1)


@pytest.mark.parametrize("hidden", [8, 16, 24])
def test_a_line_may_go_one_way_here_and_another_there(hidden: int) -> None:
    graph = prunegraph.build_graph(OneLineInManyPlaces(hidden), torch.randn(1, 1, 9, 16))
    widths = {group.name: group.width for group in graph.groups}
    assert widths["filters.gru.weight_ih_l0[0]"] == widths["gru.gru.weight_ih_l0[0]"] == hidden // 4
    assert graph.coverage > 0.99


class HeadsInTheBatch(nn.Module):
    """Attention whose heads are computed like further examples, with a padding mask that is made for each batch."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, 3)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        time, batch, _ = x.shape
        y = self.first(x)
        q, k, v = (
            map_(y).view(-1, batch * self.heads, self.width // self.heads).transpose(0, 1)
            for map_ in (self.query, self.key, self.value)
        )
        padding = torch.zeros(batch, time, dtype=torch.bool)
        scores = torch.bmm(q, k.transpose(1, 2)).view(batch, self.heads, time, time)
        weights = scores.masked_fill(padding[:, None, None], -1e8).softmax(-1).view(batch * self.heads, time, time)
        return self.last(torch.bmm(weights, v).transpose(0, 1).reshape(time, batch, self.width))


class MixedHeads(nn.Module):
    """Each head has weights of its own for the times, which are computed from the features (HyperMixing)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, 3)
        self.made = nn.Parameter(torch.randn(heads, 5, width // heads))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x.transpose(0, 1))
        batch, time, _ = y.shape
        parts = y.reshape(batch, time, self.heads, self.width // self.heads)
        mixing = torch.einsum("blmf,mhf->bmlh", parts, self.made).reshape(batch * self.heads, time, -1)
        heads = y.transpose(1, 2).reshape(batch * self.heads, self.width // self.heads, time)
        mixed = torch.bmm(torch.bmm(heads, mixing).tanh(), mixing.transpose(1, 2))
        return self.last(mixed.reshape(batch, self.width, time).transpose(1, 2))


@pytest.mark.parametrize("network", [HeadsInTheBatch, MixedHeads])
@pytest.mark.parametrize(("width", "heads"), [(32, 4), (12, 2), (24, 8)])
def test_what_can_shrink_does_not_depend_on_the_batch(network: type[nn.Module], width: int, heads: int) -> None:
    model = network(width, heads).double().eval()
    inputs = {batch: torch.randn(7, batch, 3, dtype=torch.float64) for batch in (1, 2, 5)}
    found = [{group.name: group.width for group in build_graph(model, x).groups} for x in inputs.values()]
    assert found[0]
    assert found[0] == found[1] == found[2]
    data = [((inputs[5],), torch.zeros(()))]
    result = prunegraph.prune(
        model, inputs[1], criterion="taylor", budget=Budget(ratio=0.4), data=data, loss=lambda y, _: y.square().mean()
    )
    assert not result.report.unproved


class SplitTwoWays(nn.Module):
    """Queries are split by their heads, keys and values by the width of theirs, all of it within one line of einops."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 16, 3), nn.Conv1d(16, 1, 1)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16, bias=False) for _ in range(4))
        self.heads, self.width = Rearrange("b n (h d) -> b h n d", h=2), Rearrange("b n (h d) -> b h n d", d=8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).mT
        q, k, v = self.heads(self.q(x)), self.width(self.k(x)), self.width(self.v(x))
        weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
        attended = rearrange(torch.einsum("bhij,bhjd->bhid", weights, v), "b h n d -> b n (h d)")
        return self.last((x + self.out(attended)).mT)


def test_choices_in_one_line_of_a_package_are_told_apart() -> None:
    graph = build_graph(SplitTwoWays().eval(), torch.randn(1, 1, 20))
    assert [group.name for group in graph.groups if group.name.startswith("q")] == ["q.weight[0]"]


class SplitAgain(nn.Module):
    """What is flattened is split into more parts than before; all of them are fixed in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (2, 2, 3), (2, 2, 2), (2, 3)
        self.first, self.last = nn.Linear(7, 12 * 8 * 6), nn.Linear(7, 7)

    def forward(self, x: Tensor) -> Tensor:
        batch, (a, b, c), (d, e, f), (g, h) = x.shape[0], self.a, self.b, self.c
        y = self.first(x).view(batch, a * b * c, d * e * f, g * h).flatten(1)
        z = y.view(batch, *self.a, *self.b, *self.c)
        return self.last(x) + torch.fft.rfft(z.flatten(1)).abs().mean(1)[:, None]


def test_another_way_may_leave_fewer_ways_to_later_choices() -> None:
    graph = build_graph(SplitAgain().eval(), torch.randn(2, 7))
    assert graph.locked[0].name == "first.weight[0]"


class GroupsOfHalfFrequencies(nn.Module):
    """One line flattens three times; where groups are halves of a frequency's channels, it must turn in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.c = nn.Conv2d(1, 64, 1), nn.Conv2d(2, 64, 1)
        self.join, self.into, self.out = (GroupedLinear(*s) for s in ((3072, 512, 32), (512, 256, 16), (256, 512, 16)))
        self.skip, self.last = nn.Conv2d(64, 64, 1, groups=64), nn.Conv2d(64, 1, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        e = self.e(x)
        batch, _, time, frequencies = e.shape
        joined = e.permute(0, 2, 3, 1).flatten(2) + self.join(self.c(y).permute(0, 2, 3, 1).flatten(2))
        z = self.out(self.into(joined)).view(batch, time, frequencies, -1).permute(0, 3, 1, 2)
        return self.last(self.skip(e) + z)


def test_a_line_turns_in_single_modules() -> None:
    torch.manual_seed(0)
    model, example = GroupsOfHalfFrequencies().eval(), (torch.randn(1, 1, 5, 8), torch.randn(1, 2, 5, 48))
    assert {group.name: group.width for group in build_graph(model, example).groups} == {
        "e.weight[0]": 16,
        "c.weight[0]": 32,
        "into.weight[2]": 16,
    }
    assert not prunegraph.prune(model, example, criterion="l1", budget=Budget(ratio=0.5)).report.unproved


class Blocks(nn.Module):
    """Blocks of a matrix on the diagonal."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        split = x.unflatten(-1, (6, -1))
        mapped = torch.einsum("...hd,hod->...ho", split, self.weight)
        return x + mapped.flatten(-2)


class Gates(nn.Module):
    """A gate for each of six parts."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.view(*x.shape[:2], self.gates.out_features, -1)
        gated = parts * self.gates(x).sigmoid()[..., None]
        return gated.reshape(x.shape)


@pytest.mark.parametrize("layers", [(Blocks, Gates), (Gates, Blocks)], ids=["blocks first", "gates first"])
def test_where_no_line_alone_frees_anything_all_that_split_do(layers: tuple[type[nn.Module], ...]) -> None:
    network = nn.Sequential(nn.Linear(5, 24), *(layer() for layer in layers), nn.Linear(24, 5)).eval()
    graph = build_graph(network, torch.randn(1, 7, 5))
    assert [(group.name, group.width) for group in graph.groups] in ([("0.weight[0]", 6)], [("0.weight[0]", 4)])
