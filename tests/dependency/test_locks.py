"""What must stay, and how it is told why."""

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunegraph import DependencyGraph, build_graph
from prunegraph.ir.channels import Lock
from prunegraph.rules.base import Call, Labels, Product, Rule
from tests.unknown_op import NAME, mystery


class Between(nn.Module):
    """Something between two layers of 8 channels."""

    def __init__(self, between: Callable[[Tensor], Tensor], width: int = 8) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 8, 1), nn.Conv1d(width, 6, 1)
        self.c = nn.Conv1d(6, 1, 1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.between(self.a(x))))


def graph_of(between: Callable[[Tensor], Tensor], width: int = 8) -> DependencyGraph:
    return build_graph(Between(between, width), torch.randn(2, 1, 6))


def locks(graph: DependencyGraph, member: str) -> tuple[Lock, ...]:
    """Why the tensor dimension must stay."""
    return next(g.locks for g in graph.locked if member in [f"{m.tensor}[{m.dim}]" for m in g.members])


def unknown_op(x: Tensor) -> Tensor:
    return mystery(x)


def hard_coded_view(x: Tensor) -> Tensor:
    return x.view(2, 8, -1).relu()


def hard_coded_heads(x: Tensor) -> Tensor:
    return x.view(2, 4, 2, -1).flip(2).flatten(1, 2)


def fixed_operand(x: Tensor) -> Tensor:
    return x * torch.arange(8.0)[:, None]


def noise(x: Tensor) -> Tensor:
    return x + torch.empty_like(x).exponential_()


def part(x: Tensor) -> Tensor:
    return torch.cat([x[:, :3], x[:, 3:]], dim=1).relu()


def chosen(x: Tensor) -> Tensor:
    return x[:, torch.tensor([3, 0, 1, 2, 5, 7, 6, 4])]


@pytest.mark.parametrize(
    ("between", "op", "reason"),
    [
        (unknown_op, NAME, f"prunegraph has no rule for {NAME}"),
        (hard_coded_view, "aten.view", "the size 8 is written in the code"),
        (noise, "aten.exponential_", "a random number is drawn for each element"),
        (fixed_operand, "aten.mul.Tensor", "meets a value of fixed size"),
    ],
)
def test_a_lock_tells_op_reason_and_line(between: Callable[[Tensor], Tensor], op: str, reason: str) -> None:
    graph = graph_of(between)
    (lock,) = [lock for lock in locks(graph, "a.weight[0]") if lock.op == op]
    _, line = inspect.getsourcelines(between)
    assert lock.reason == reason
    assert (Path(lock.site.file).resolve(), lock.site.line) == (Path(__file__).resolve(), line + 1)
    assert lock.site.code in inspect.getsource(between)
    assert f"{Path(__file__).name}:{line + 1}" in str(lock)
    assert [group.name for group in graph.groups] == ["b.weight[0]"]


def test_an_op_without_rule_is_named_and_counted() -> None:
    assert dict(graph_of(unknown_op).without_rule) == {NAME: 1}
    assert dict(graph_of(lambda x: mystery(mystery(x))).without_rule) == {NAME: 2}


class Broken(Rule):
    def labels(self, call: Call) -> Labels:
        raise KeyError("weights")


def test_a_rule_that_fails_locks_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunegraph.graph.load_op_rules", lambda manager: {mystery.default: Broken()})
    graph = graph_of(unknown_op)
    (lock,) = [lock for lock in locks(graph, "a.weight[0]") if lock.op == NAME]
    assert lock.reason == f"the rule Broken for {NAME} failed: KeyError: 'weights'"
    assert [group.name for group in graph.groups] == ["b.weight[0]"]


class Unpriced(Rule):
    def labels(self, call: Call) -> Labels:
        return call.labels("x")

    def macs(self, call: Call) -> Sequence[Product]:
        raise KeyError("taps")


def test_a_rule_that_fails_later_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunegraph.graph.load_op_rules", lambda manager: {mystery.default: Unpriced()})
    with pytest.raises(KeyError, match="taps") as caught:
        graph_of(unknown_op).cost()
    assert caught.value.__notes__ == [f"in the rule Unpriced for {NAME}"]


def test_an_op_without_rule_that_no_channel_meets_needs_none() -> None:
    graph = graph_of(lambda x: x * unknown_op(torch.ones(2, 3)).mean())
    assert dict(graph.without_rule) == {}
    assert graph.groups


def test_an_op_without_rule_locks_what_comes_out_of_it() -> None:
    """The layer that reads its output keeps its input width."""
    assert NAME not in {lock.op for lock in locks(graph_of(unknown_op), "b.weight[1]")}
    assert locks(graph_of(unknown_op), "b.weight[1]")[0].reason == "takes a fixed number of input features"


def test_heads_written_as_numbers_lock() -> None:
    assert any("written in the code" in lock.reason for lock in locks(graph_of(hard_coded_heads), "a.weight[0]"))


@pytest.mark.parametrize("between", [part, chosen])
def test_positions_written_in_the_code_stay(between: Callable[[Tensor], Tensor]) -> None:
    assert locks(graph_of(between), "a.weight[0]")[0].site.file == __file__


def test_outputs_keep_their_width() -> None:
    model = nn.Sequential(nn.Conv1d(1, 8, 1), nn.ReLU(), nn.Conv1d(8, 3, 1))
    locked = locks(build_graph(model, torch.randn(1, 1, 4)), "2.weight[0]")
    assert [lock.reason for lock in locked] == ["the network's output keeps its shape"]


def test_inputs_keep_their_width() -> None:
    locked = locks(build_graph(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)), torch.randn(3, 5)), "0.weight[1]")
    assert [lock.reason for lock in locked] == ["takes a fixed number of input features"]


def test_kernel_taps_are_no_locked_channels() -> None:
    graph = build_graph(nn.Sequential(nn.Conv1d(1, 4, 5), nn.Conv1d(4, 1, 5)), torch.randn(1, 1, 16))
    assert {f"{m.tensor}[{m.dim}]" for g in graph.locked for m in g.members} & {"0.weight[2]", "1.weight[2]"} == set()


class Sizes(nn.Module):
    """One attribute counts channels and something else too."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.width, self.other = kind, 8, 8
        self.a, self.b = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        match self.kind:
            case "twice the same":
                x = x.reshape(-1, self.width, x.shape[-1]).reshape(-1, self.width, x.shape[-1])
            case "width and length":
                x = x.reshape(-1, self.width, x.shape[-1])[..., : self.width]
            case "kernel":
                x = torch.nn.functional.avg_pool1d(x.reshape(-1, self.width, x.shape[-1]), self.width)
            case "positions":
                x = x + torch.arange(self.width)[:, None]
            case "half":
                x = x.reshape(-1, 2, self.width // 2, x.shape[-1]).flip(1).flatten(1, 2)
        return self.b(x)


@pytest.mark.parametrize(
    ("kind", "widths"),
    [("twice the same", [8]), ("width and length", []), ("kernel", []), ("positions", []), ("half", [4])],
)
def test_an_attribute_that_means_two_things_fixes_both(kind: str, widths: list[int]) -> None:
    graph = build_graph(Sizes(kind), torch.randn(2, 1, 12))
    assert [group.width for group in graph.groups] == widths
    if not widths:
        assert any("width" in lock.reason + lock.site.code for lock in locks(graph, "a.weight[0]"))


def test_two_groups_in_one_attribute_are_coupled() -> None:
    """Both views say ``self.width``: the branches come and go together, index by index."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width = 4
            self.a, self.b, self.c = nn.Conv1d(1, 4, 1), nn.Conv1d(1, 4, 1), nn.Conv1d(8, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            left, right = (layer(x).view(x.shape[0], self.width, -1) for layer in (self.a, self.b))
            return self.c(torch.cat([left, right], dim=1))

    (group,) = build_graph(Branches(), torch.randn(2, 1, 6)).groups
    members = {f"{m.tensor}[{m.dim}]": m.indices.tolist() for m in group.members}
    assert members["c.weight[1]"] == [[c, c + 4] for c in range(4)]
    assert members["a.weight[0]"] == members["b.weight[0]"] == [[c] for c in range(4)]


class Multiples(nn.Module):
    """Two branches whose views say multiples of ``self.width``, or one of them alone."""

    def __init__(self, first: int, second: int, *, together: bool) -> None:
        super().__init__()
        self.width, self.first, self.second, self.together = 4, float(first), float(second), together
        self.a, self.b = nn.Conv1d(1, 4 * first, 1), nn.Conv1d(1, 4 * second, 1)
        self.c, self.d = nn.Conv1d(4 * first, 1, 1), nn.Conv1d(4 * second, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x).view(x.shape[0], int(self.second) * self.width, -1)
        if self.together:
            a = a.view(x.shape[0], int(self.first) * self.width, -1)
        return self.c(a) + self.d(b)


@pytest.mark.parametrize(("first", "second"), [(1, 2), (3, 1), (2, 3)])
def test_widths_that_are_multiples_of_one_attribute_shrink_in_proportion(first: int, second: int) -> None:
    """Index i of the attribute stands for a block of neighbours in each of the branches."""
    (group,) = build_graph(Multiples(first, second, together=True), torch.randn(2, 1, 6)).groups
    members = {f"{m.tensor}[{m.dim}]": m.indices.tolist() for m in group.members}
    assert members["a.weight[0]"] == members["c.weight[1]"] == [[i * first + j for j in range(first)] for i in range(4)]
    assert members["b.weight[0]"] == [[i * second + j for j in range(second)] for i in range(4)]


def test_a_multiple_of_an_attribute_loses_whole_multiples() -> None:
    graph = build_graph(Multiples(1, 2, together=False), torch.randn(2, 1, 6))
    members = {f"{m.tensor}[{m.dim}]": m.indices.tolist() for group in graph.groups for m in group.members}
    assert members["b.weight[0]"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert members["a.weight[0]"] == [[i] for i in range(4)]


def test_blocks_are_those_that_are_coupled_already() -> None:
    """The halves of ``2 * self.width`` features meet: feature i goes with i + width, not with its neighbour."""

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width = 4
            self.a, self.b, self.c = nn.Conv1d(1, 8, 1), nn.Conv1d(1, 4, 1), nn.Conv1d(8, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.a(x).view(x.shape[0], 2 * self.width, -1).chunk(2, dim=1)
            other = self.b(x).view(x.shape[0], self.width, -1)
            return self.c(torch.cat([first * second, other], dim=1))

    (group,) = build_graph(Halves(), torch.randn(2, 1, 6)).groups
    members = {f"{m.tensor}[{m.dim}]": m.indices.tolist() for m in group.members}
    assert members["a.weight[0]"] == members["c.weight[1]"] == [[i, i + 4] for i in range(4)]


def test_unused_parameters_are_named_and_in_no_group() -> None:
    model = Between(torch.relu)
    model.spare = nn.Linear(4, 4)
    graph = build_graph(model, torch.randn(2, 1, 6))
    assert graph.unused == {"spare.weight", "spare.bias"}
    assert not any(m.tensor.startswith("spare") for g in (*graph.groups, *graph.locked) for m in g.members)


def test_coverage_is_the_share_of_parameters_in_prunable_groups() -> None:
    graph = graph_of(unknown_op)
    prunable = 8 * 6 + 6 + 6
    assert graph.coverage == pytest.approx(prunable / (8 + 8 + prunable + 1))


def gate(x: Tensor, scale: Tensor) -> Tensor:
    batch, channels, time = x.shape
    return (x.reshape(batch, channels, -1) * scale).view(batch, channels, time)


class Scripted(nn.Module):
    """A function of TorchScript, kept in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.scale = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 1, 1), nn.Parameter(torch.randn(8, 1))
        script = torch.jit.script(gate)
        self.gate, self.more = script, {"gates": [script]}

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.more["gates"][0](self.gate(self.a(x), self.scale), self.scale))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_sizes_are_followed_through_script_functions() -> None:
    graph = build_graph(Scripted(), torch.randn(2, 1, 6))
    assert [group.width for group in graph.groups] == [8]
    assert not graph.locked


class PlainTables(nn.Module):
    """Tables in ordinary attributes, as code has them that forgot to register buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 8, 1), nn.utils.weight_norm(nn.Conv1d(8, 1, 1))
        self.table, self.nested = torch.randn(8, 1), [{"scale": torch.randn(8, 1)}]

    def forward(self, x: Tensor) -> Tensor:
        return self.b((self.a(x) + self.table) * self.nested[0]["scale"])


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_tensors_in_ordinary_attributes_shrink_as_buffers_do() -> None:
    """What weight norm leaves in ``b.weight`` is none of them: it is computed anew."""
    (group,) = build_graph(PlainTables(), torch.randn(2, 1, 6)).groups
    members = {f"{m.tensor}[{m.dim}]" for m in group.members}
    assert members == {"a.weight[0]", "a.bias[0]", "b.weight_v[1]", "table[0]", "nested[0]['scale'][0]"}


class PositionalTable(nn.Module):
    """Adds as much of a table as the input is long."""

    def __init__(self, cut: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 1, 1)
        self.register_buffer("table", torch.randn(8, 50))
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) + self.cut(self.table, x.shape[-1]))


@pytest.mark.parametrize("cut", [lambda table, n: table[:, :n], lambda table, n: table.narrow(1, 0, n)])
def test_what_a_longer_input_would_read_stays(cut: Callable[[Tensor, int], Tensor]) -> None:
    graph = build_graph(PositionalTable(cut), torch.randn(2, 1, 6))
    assert {f"{m.tensor}[{m.dim}]" for group in graph.groups for m in group.members} >= {"table[0]"}
    assert "table[1]" not in {f"{m.tensor}[{m.dim}]" for group in graph.groups for m in group.members}
    reasons = {lock.reason for g in graph.locked for lock in g.locks if g.members[0].tensor == "table"}
    assert "which indices are read depends on the input" in reasons


class ScaledHeads(nn.Module):
    """Attention after a grouped convolution: heads go with its groups, or channels within heads with those in groups.

    A scale may make an ordinary number of the width of a head, which then must stay, as the number of groups must where
    it is written down.
    """

    def __init__(self, scale: Callable[[int], float], *, groups_are_written: bool = True) -> None:
        super().__init__()
        self.scale, self.head, self.groups_are_written = scale, 4, groups_are_written
        self.a, self.b = nn.Conv1d(1, 16, 1), nn.Conv1d(16, 16, 3, padding=1, groups=4)
        self.qkv, self.c = nn.Conv1d(16, 48, 1), nn.Conv1d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = x + (F.conv1d(x, self.b.weight, padding=1, groups=4) if self.groups_are_written else self.b(x))
        q, k, v = (y.unflatten(1, (-1, self.head)) for y in self.qkv(x).chunk(3, 1))
        weights = (q.transpose(-1, -2) @ k * self.scale(self.head)).softmax(-1)
        return self.c(x + (v @ weights.transpose(-1, -2)).flatten(1, 2))


def test_one_channel_that_is_left_tells_of_the_ordinary_number() -> None:
    x, fixed = torch.randn(2, 1, 12), lambda width: math.fsum([width]) ** -0.5
    graph = build_graph(ScaledHeads(fixed), x)
    assert any("ordinary number of the size 4" in lock.reason for lock in locks(graph, "a.weight[0]"))
    assert build_graph(ScaledHeads(fixed, groups_are_written=False), x).coverage > 0.99
    assert build_graph(ScaledHeads(lambda width: width**-0.5), x).coverage > 0.99


def test_a_locked_group_says_where_and_why() -> None:
    graph = graph_of(hard_coded_view)
    text = str(next(group for group in graph.locked if group.name == "a.weight[0]"))
    assert text.startswith("a.weight[0], 8 wide: the size 8 is written in the code (aten.")
    assert "array" not in text
