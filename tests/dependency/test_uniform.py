"""Zeros of which parts are the states of several layers: only how many there are couples these."""

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget, build_graph


class GroupedLayer(nn.Module):
    """Several GRUs, each for its part of the features and with its part of the states."""

    def __init__(self, inputs: int, hidden: int, groups: int) -> None:
        super().__init__()
        self.input_size, self.groups = inputs // groups, groups
        self.layers = nn.ModuleList(nn.GRU(inputs // groups, hidden // groups, batch_first=True) for _ in range(groups))

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        size = self.input_size
        outputs = [
            layer(x[..., i * size : (i + 1) * size], state[i : i + 1].detach())[0]
            for i, layer in enumerate(self.layers)
        ]
        return torch.cat(outputs, -1)


class GroupedGRU(nn.Module):
    """DeepFilterNet's: the groups are shuffled between layers, all outputs are summed, all states are one tensor."""

    def __init__(self, hidden: int, *, groups: int = 2, layers: int = 2, shuffle: bool = True) -> None:
        super().__init__()
        self.groups, self.hidden_size, self.shuffle = groups, hidden // groups, shuffle
        widths = [8, *[hidden] * (layers - 1)]
        self.grus = nn.ModuleList(GroupedLayer(width, hidden, groups) for width in widths)
        self.last = nn.Linear(hidden, 8)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        states = torch.zeros(len(self.grus) * self.groups, batch, self.hidden_size, dtype=x.dtype)
        total = torch.zeros((), dtype=x.dtype)
        for i, gru in enumerate(self.grus):
            x = gru(x, states[i * self.groups : (i + 1) * self.groups])
            if self.shuffle and i < len(self.grus) - 1:
                x = x.view(batch, time, -1, self.groups).transpose(2, 3).reshape(batch, time, -1)
            total = total + x
        return self.last(total)


@pytest.mark.parametrize(
    ("options", "width"), [({}, 8), ({"shuffle": False}, 16), ({"layers": 3}, 8), ({"groups": 4, "layers": 3}, 2)]
)
def test_shuffled_groups_of_recurrent_layers_shrink(options: dict[str, int], width: int) -> None:
    model, x = GroupedGRU(32, **options).double().eval(), torch.randn(2, 6, 8, dtype=torch.float64)
    assert [group.width for group in build_graph(model, x).groups] == [width]
    result = prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5))
    assert (result.report.unproved, result.model.hidden_size * 2) == ({}, model.hidden_size)
    small = GroupedGRU(16, **options).double().eval()
    small.load_state_dict(result.model.state_dict())
    torch.testing.assert_close(small(x), result.model(x))


class Layered(nn.Module):
    """Two recurrent layers with the same attribute for the states, which must stay equally wide."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.hidden = 6
        self.first, self.middle = kind(3, 6, batch_first=True), nn.Linear(6, 6)
        self.second, self.last = kind(6, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(2, len(x), self.hidden)
        states = [(part, part) if isinstance(self.first, nn.LSTM) else part for part in state.chunk(2)]
        return self.last(self.second(self.middle(self.first(x, states[0])[0]), states[1])[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_layers_whose_states_are_of_one_size_stay_equally_wide(kind: type[nn.Module]) -> None:
    model, x = Layered(kind).double().eval(), torch.randn(2, 5, 3, dtype=torch.float64)
    result = prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5))
    pruned = result.model
    assert pruned.first.hidden_size == pruned.second.hidden_size == pruned.hidden == 3
    assert not result.report.unproved


class Overwritten(nn.Module):
    """Zeros that are written into are features like any others."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = x.new_zeros(2, len(x), self.width)
        y[0] = self.first(x)
        y[1] = y[0].tanh()
        return self.last(y.sum(0))


def test_zeros_that_are_written_into_are_coupled_index_by_index() -> None:
    model, x = Overwritten().double().eval(), torch.randn(2, 3, dtype=torch.float64)
    result = prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5))
    assert (result.model.width, result.model.first.out_features, result.report.unproved) == (3, 3, {})


def test_the_cost_of_the_whole_is_that_of_its_parts() -> None:
    model, x = GroupedGRU(32).double().eval(), torch.randn(2, 6, 8, dtype=torch.float64)
    result = prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5))
    assert result.report.pruned == build_graph(result.model, x).cost()
