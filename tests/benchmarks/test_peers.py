"""Other libraries beside prunegraph: what is said of them, and the judge of what they leave of a network."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.peers.apart import Outcome, Presence, last_line, look_for, start
from benchmarks.peers.judge import judge
from benchmarks.peers.libraries import LIBRARIES, Library, prepare_prunegraph, prepare_torch_pruning
from benchmarks.peers.quality import Quality
from benchmarks.peers.record import Record, read_record, write_record
from benchmarks.peers.table import markdown
from benchmarks.zoo.kept import kept_indices, tell_apart

SIGNAL = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0))
RIGHT = Outcome(
    pruner="prunegraph",
    network="asteroid-DeMask",
    status="right",
    groups_s=0.25,
    pruning_s=0.5,
    peak_mb=7,
    parameters=0.49,
    difference=1e-15,
)
HANGS = Outcome(pruner="Torch-Pruning", network="asteroid-DeMask", status="hangs", detail="finding groups")
RECORD = Record(
    machine="A machine",
    presences=(
        Presence(pruner="prunegraph", version="1.0", problem=""),
        Presence(pruner="OTO", version="", problem="not installed"),
    ),
    outcomes=(RIGHT, HANGS),
    qualities=(
        Quality(network="Net", pruning="dense", macs=1.0, parameters=1.0, pruned=6.5),
        Quality(network="Net", pruning="by hand", problem="wrong: all of it"),
    ),
)


def stack() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 16, 3), nn.GroupNorm(1, 16), nn.ReLU(), nn.Conv1d(16, 2, 3))


@pytest.mark.parametrize(
    "line",
    [
        "| prunegraph | 1.0 | 1 of 1 networks right |",
        "| OTO |  | not installed |",
        "| asteroid-DeMask | right | hangs | not run | not installed |",
        "| asteroid-DeMask | 0.25 s |  | 0.50 s |  | 7 MB |  | 49.0% |  |",
        "| asteroid-DeMask | Torch-Pruning | hangs | finding groups |",
        "| Net | dense | 100.0% | 100.0% | 6.50 dB |  |",
        "| Net | by hand | wrong: all of it |  |  |  |",
    ],
)
def test_the_table_says(line: str) -> None:
    assert line in markdown(RECORD).splitlines()


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_record(RECORD, tmp_path / "peers.json")
    assert read_record(tmp_path / "peers.json") == RECORD
    assert read_record(tmp_path / "none.json") == Record()


def test_an_outcome_takes_the_place_of_the_earlier_one() -> None:
    again = RECORD.with_outcome(Outcome(pruner="Torch-Pruning", network="asteroid-DeMask", status="right"))
    assert again.of("Torch-Pruning")["asteroid-DeMask"].status == "right"
    assert again.of("prunegraph") == RECORD.of("prunegraph")


def test_a_package_that_is_absent_or_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    library = Library("Absent", "no-such-package", "no_such_package.part", prepare_prunegraph)
    assert (library.problem(), library.version()) == ("not installed", "")
    (tmp_path / "no_such_package").mkdir()
    (tmp_path / "no_such_package" / "__init__.py").write_text("import torch.gone\n")
    assert library.problem().startswith("does not import: ModuleNotFoundError: No module named 'torch.gone'")


def test_a_new_process_looks_into_the_folders(tmp_path: Path) -> None:
    (tmp_path / "only_train_once.py").write_text("raise ImportError('of no use')\n")
    assert look_for("OTO", [tmp_path]).problem.startswith("does not import: ImportError: of no use")


def test_a_comparison_that_fails_itself_is_no_outcome() -> None:
    with pytest.raises(RuntimeError, match="the comparison itself failed"):
        last_line(start(["no such library"], []))


@pytest.mark.parametrize("prepare", [prepare_prunegraph, prepare_torch_pruning])
def test_a_stack_is_pruned_rightly(prepare: object) -> None:
    dense = stack()
    tell_apart(dense)
    model = copy.deepcopy(dense)
    pruned = prepare(model, (SIGNAL,), ["3"])()  # type: ignore[operator]
    assert judge(dense, pruned, (SIGNAL,)).status == "right"


def test_equal_entries_are_told_apart_where_tiny_numbers_are_zero() -> None:
    norm = nn.GroupNorm(1, 16)
    torch.set_flush_denormal(True)
    try:
        tell_apart(norm)
    finally:
        torch.set_flush_denormal(False)
    assert all(len(parameter.unique()) == 16 for parameter in norm.parameters())


class Rotated(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flip(-1))


def test_the_judge_finds_what_is_wrong() -> None:
    dense = stack()
    wider, other = nn.Sequential(nn.Conv1d(1, 2, 3)), copy.deepcopy(dense)
    assert judge(dense, copy.deepcopy(dense), (SIGNAL,)).status == "prunes nothing"
    other[0] = nn.Conv1d(1, 12, 3)
    assert judge(dense, other, (SIGNAL,)).status == "forward fails"
    assert judge(dense, wider, (SIGNAL,)).detail == "weight 1.weight is gone"
    pruned = Rotated(*prepare_prunegraph(stack(), (SIGNAL,), [])())
    assert judge(stack(), pruned, (SIGNAL,)).status == "wrong"


def test_equal_entries_are_told_apart() -> None:
    network = nn.Sequential(nn.Conv1d(1, 3, 1))
    with torch.no_grad():
        network[0].bias.copy_(torch.tensor([0.5, 0.25, 0.5]))
    smaller = nn.Sequential(nn.Conv1d(1, 2, 1))
    tell_apart(network)
    smaller[0].weight = nn.Parameter(network[0].weight[1:])
    smaller[0].bias = nn.Parameter(network[0].bias[1:])
    assert kept_indices(network, smaller)["0.bias"][0].tolist() == [1, 2]
    assert torch.allclose(network[0].bias, torch.tensor([0.5, 0.25, 0.5]))


def test_every_library_has_a_name_of_its_own() -> None:
    assert len({library.name for library in LIBRARIES}) == len(LIBRARIES)
