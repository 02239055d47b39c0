"""`recover` within one process; killed and parallel runs are in test_resuming."""

import errno
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import prunegraph
import prunegraph.recovery.losses
from prunegraph.errors import DataError, FileFormatError, InputError, PlanError
from prunegraph.recovery.batches import share, stream
from prunegraph.recovery.distillation import feature_difference, features_of
from prunegraph.recovery.recovering import recover
from prunegraph.recovery.settings import Check, GradualPruning, RecoverySettings

QUICK = RecoverySettings(steps=20, check_every=5, learning_rate=1e-2)


def _network(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, width, 9, padding=4), nn.PReLU(), nn.Conv1d(width, 2, 9, padding=4)).eval()


def _batches(start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A slow and a fast tone in varying phase: one filter each tells them apart."""
    while True:
        generator = torch.Generator().manual_seed(start)
        phase = 6.28 * torch.rand(4, 2, 1, generator=generator)
        sources = torch.sin(torch.arange(128) * torch.tensor([[0.05], [1.5]]) + phase)
        yield sources.sum(1, keepdim=True), sources
        start += 1


def _fixed(count: int, start: int = 1000) -> list[tuple[Tensor, Tensor]]:
    batches = _batches(start)
    return [next(batches) for _ in range(count)]


def _same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_gets_better_and_leaves_the_network_and_the_generators_alone() -> None:
    network, seen = _network(), []
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    settings = replace(QUICK, steps=60)
    found = recover(network, _batches, settings, validation=_fixed(2), progress=seen.append)
    assert found.checks[-1].validation < found.checks[0].validation - 3
    assert tuple(seen) == found.checks
    assert [module.training for module in found.model.modules()] == [False] * 4
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002


def test_the_best_network_is_returned_and_the_rate_falls_on_a_plateau() -> None:
    """Nothing can be learnt at this rate, so that early checks win, and the training ends before its time."""
    settings = replace(QUICK, steps=400, check_every=2, learning_rate=3.0, patience=1, factor=0.1, stop_after=5)
    found = recover(_network(), _batches, settings, validation=_fixed(1))
    figures = [check.figure for check in found.checks]
    best = int(np.argmin(figures))
    assert found.best_step == found.checks[best].step
    assert len(figures) == best + 1 + 5
    assert found.checks[-1].step < 400
    assert found.checks[-1].learning_rate < 3.0
    inputs, targets = _fixed(1)[0]
    with torch.no_grad():
        again = prunegraph.recovery.losses.pit_si_sdr_loss(found.model(inputs), targets)
    assert float(again) == pytest.approx(figures[best], abs=1e-5)


def test_the_first_step_is_that_of_adam_by_hand() -> None:
    """Adam's first step has the length of the rate; the gradient is clipped to the norm before, to no effect here."""
    network, settings = _network(), RecoverySettings(steps=1, learning_rate=1e-3, clip_norm=0.1)
    found = recover(network, _batches, settings)
    reference = _network()
    inputs, targets = next(_batches(0))
    prunegraph.recovery.losses.pit_si_sdr_loss(reference(inputs), targets).backward()
    norm = torch.sqrt(sum(p.grad.square().sum() for p in reference.parameters()))
    for old, new in zip(reference.parameters(), found.model.parameters(), strict=True):
        gradient = old.grad * min(1.0, 0.1 / float(norm))
        expected = old.detach() - 1e-3 * gradient / (gradient.abs() + 1e-8)
        assert torch.allclose(new, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["list", "loader"])
def test_data_sets_are_gone_through_again_and_resumed(kind: str, tmp_path: Path) -> None:
    items = _fixed(3)
    loader = DataLoader(TensorDataset(*(torch.cat(parts) for parts in zip(*items, strict=True))), 4, shuffle=True)
    data: Any = items if kind == "list" else loader
    whole = recover(_network(), data, QUICK)
    recover(_network(), data, replace(QUICK, steps=10), run=tmp_path)
    resumed = recover(_network(), data, QUICK, run=tmp_path)
    assert _same(whole.model, resumed.model)
    assert whole.checks == resumed.checks


def test_shuffled_batches_differ_between_epochs() -> None:
    loader = DataLoader(torch.arange(8), 8, shuffle=True, collate_fn=lambda items: (torch.stack(items), 0))
    batches = stream(loader, 0, 0)
    first, second = (next(batches)[0] for _ in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(8))
    assert first.tolist() != second.tolist()
    assert torch.equal(next(stream(loader, 1, 0))[0], second)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = recover(_network(), _batches, QUICK, run=tmp_path)
    checks: list[Check] = []
    again = recover(_network(), _batches, QUICK, run=tmp_path, progress=checks.append)
    assert checks == []
    assert _same(first.model, again.model)


def test_processes_share_a_batch() -> None:
    batch = {"x": torch.arange(6)}, torch.arange(12).view(6, 2)
    shares = [share(batch, rank, 3) for rank in range(3)]
    assert [inputs["x"].tolist() for inputs, _ in shares] == [[0, 3], [1, 4], [2, 5]]
    assert shares[1][1].tolist() == [[2, 3], [8, 9]]
    with pytest.raises(InputError, match="cannot be shared by 4"):
        share(batch, 0, 4)


def test_gradual_pruning_ends_at_the_size_of_all_rounds() -> None:
    network, example = _network(16), torch.randn(1, 1, 64)
    budgets = tuple(prunegraph.Budget(macs=0.5 ** (1 / 2)) for _ in range(2))
    gradual = GradualPruning(example_inputs=example, budgets=budgets, between=5)
    found = recover(network, _batches, QUICK, gradual=gradual)
    share = (
        prunegraph.build_graph(found.model, example).cost().macs / prunegraph.build_graph(network, example).cost().macs
    )
    assert 0.4 < share <= 0.5
    assert len(found.plans) == 2
    assert found.best_step > 5
    assert network[0].out_channels == 16


def test_plans_that_follow_each_other_are_one_plan() -> None:
    network, example = _network(16), torch.randn(1, 1, 64)
    results, model = [], network
    for macs in (0.7, 0.4):
        results.append(prunegraph.prune(model, example, budget=prunegraph.Budget(macs=macs)))
        model = results[-1].model
    first, second = (result.plan for result in results)
    graph = prunegraph.build_graph(network, example)
    at_once = prunegraph.apply(network, graph.plan(first.kept_after(second)))
    assert all(torch.equal(ours, at_once.state_dict()[name]) for name, ours in model.state_dict().items())
    with pytest.raises(PlanError, match=r"do not follow each other: group .* is 16 wide, left was"):
        second.kept_after(first)


def test_the_optimizer_goes_on_over_a_round(tmp_path: Path) -> None:
    gradual = GradualPruning(
        example_inputs=torch.randn(1, 1, 64), budgets=(prunegraph.Budget(macs=0.6),) * 2, between=4
    )
    recover(_network(), _batches, replace(QUICK, steps=6, check_every=6), gradual=gradual, run=tmp_path)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert {float(moments["step"]) for moments in state["optimizer"]["state"].values()} == {6.0}


@pytest.mark.parametrize("kind", ["waveform", "features"])
def test_a_teacher_is_imitated(kind: str) -> None:
    """Without useful targets, what is learnt can only come from the teacher."""
    teacher, student = _network(), _network(6)
    weights: dict[str, Any] = {"waveform_weight": 1.0}
    if kind == "features":
        weights = {"feature_weight": 1.0, "features": ("1", "2")}
    nothing = lambda start: ((x, torch.randn_like(y)) for x, y in _batches(start))  # noqa: E731
    loss = (
        (lambda output, target: (output - target).square().mean()) if kind == "waveform" else (lambda o, t: o.sum() * 0)
    )
    settings = replace(QUICK, steps=60, **weights)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    found = recover(student, nothing, settings, loss=loss, teacher=teacher)
    inputs, _ = next(_batches(5000))
    with torch.no_grad():
        errors = [float((model(inputs) - teacher(inputs)).norm()) for model in (student, found.model)]
    assert errors[1] < 0.8 * errors[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_features_are_compared_by_hand() -> None:
    theirs = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    assert float(feature_difference(theirs + 1, theirs)) == pytest.approx(4 / 25)
    ours = torch.tensor([[[1.0, 1.0]]])  # energy (1, 1) along time, against (4.5, 8)
    first, second = np.array([1, 1]) / np.sqrt(2), np.array([4.5, 8]) / np.hypot(4.5, 8)
    assert float(feature_difference(ours, theirs)) == pytest.approx(np.square(first - second).sum(), rel=1e-5)


def test_hooks_are_taken_off_again() -> None:
    network = _network()
    with features_of(network, ("1",)) as found:
        network(torch.randn(1, 1, 20))
    assert found["1"].shape == (1, 8, 20)
    assert not network[1]._forward_hooks


def test_mixed_precision_computes_in_it() -> None:
    from lightning_fabric import Fabric

    seen = set()

    def loss(output: Tensor, targets: Tensor) -> Tensor:
        seen.add(output.dtype)
        return (output.float() - targets).square().mean()

    network = _network()
    network[0].register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    found = recover(
        network, _batches, QUICK, loss=loss, fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    )
    assert torch.bfloat16 in seen
    assert found.checks[-1].loss < found.checks[0].loss
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"settings": replace(QUICK, waveform_weight=1.0)}, "needs a teacher"),
        ({"teacher": _network()}, "needs a teacher"),
        ({"data": iter(_fixed(2))}, "iterator"),
        ({"data": [torch.zeros(1)]}, "expected a pair"),
        ({"data": lambda start: ((x * float("nan"), y) for x, y in _batches(start))}, "in steps 1 to 5"),
        ({"settings": replace(QUICK, feature_weight=1.0, features=("9",)), "teacher": _network()}, "no module '9'"),
        ({"network": _network().requires_grad_(False)}, "no parameter"),
    ],
    ids=["no teacher", "no weight", "iterator", "no pair", "nan", "features", "no parameters"],
)
def test_wrong_requests_are_refused(wrong: dict[str, Any], message: str) -> None:
    arguments = {"network": _network(), "data": _batches, "settings": QUICK, **wrong}
    with pytest.raises(InputError, match=message):
        recover(**arguments)


def test_batches_that_end_are_reported() -> None:
    with pytest.raises(DataError, match="ended before"):
        recover(_network(), lambda start: _fixed(3)[start:], QUICK)
    with pytest.raises(DataError, match="no batches"):
        recover(_network(), [], QUICK)


def test_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    recover(_network(), _batches, replace(QUICK, steps=5), run=tmp_path)
    with pytest.raises(InputError, match=r"learning_rate = 0\.01, not 0\.5"):
        recover(_network(), _batches, replace(QUICK, learning_rate=0.5), run=tmp_path)
    content = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(FileFormatError, match=r"last\.pt cannot be read"):
        recover(_network(), _batches, QUICK, run=tmp_path)


def test_a_run_of_another_network_is_refused(tmp_path: Path) -> None:
    recover(_network(), _batches, replace(QUICK, steps=5), run=tmp_path)
    other = _network()
    with torch.no_grad():
        other[2].weight.mul_(1.01)
    with pytest.raises(InputError, match=r"begun with another network, of another 2\.weight: give another folder"):
        recover(other, _batches, QUICK, run=tmp_path)
    assert recover(_network(), _batches, QUICK, run=tmp_path).checks[-1].step == 20


def _mean_square(output: Tensor, sources: Tensor) -> Tensor:
    return (output - sources).square().mean()


OTHERS: dict[str, dict[str, Any]] = {
    "batches": {"validation": [(mixture.flip(-1) ** 3, sources) for mixture, sources in _fixed(2)]},
    "none": {"validation": ()},
    "loss": {"validation": _fixed(2), "loss": _mean_square},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_validation_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    recover(_network(), _batches, replace(QUICK, steps=5), validation=_fixed(2), run=tmp_path)
    with pytest.raises(
        InputError, match=r"validation loss at step 5 was -?\d.* and is .* now: give the validation batches"
    ):
        recover(_network(), _batches, QUICK, run=tmp_path, **other)
    assert recover(_network(), _batches, QUICK, validation=_fixed(2), run=tmp_path).checks[-1].step == 20


def test_a_full_disk_leaves_nothing_and_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*\.pt'"):
        recover(_network(), _batches, QUICK, run=tmp_path)
    assert not list(tmp_path.iterdir())


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"format": "prunegraph.recovery/2", "step": _Evil()}, tmp_path / "last.pt")
    with pytest.raises(FileFormatError, match="cannot be read"):
        recover(_network(), _batches, QUICK, run=tmp_path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"learning_rate": 0.0},
        {"factor": 1.0},
        {"falling": 1.5},
        {"waveform_weight": -1.0},
        {"feature_weight": 1.0},
    ],
    ids=str,
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"must be|must not|name the modules"):
        RecoverySettings(**wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
def test_it_trains_on_the_gpu(precision: Any) -> None:
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cuda", devices=1, precision=precision)
    found = recover(_network().cuda(), _batches, replace(QUICK, steps=60), validation=_fixed(1), fabric=fabric)
    assert found.checks[-1].figure < found.checks[0].figure
    assert all(parameter.is_cuda for parameter in found.model.parameters())


def test_what_comes_out_is_never_worse_than_what_went_in() -> None:
    """At such a rate every step does harm."""
    learnt = recover(_network(), _batches, replace(QUICK, steps=60), validation=_fixed(2)).model
    spoilt = recover(learnt, _batches, replace(QUICK, learning_rate=5.0), validation=_fixed(2))
    assert spoilt.best_step == 0
    assert spoilt.checks[0].loss is None
    assert spoilt.checks[0].figure < min(check.figure for check in spoilt.checks[1:])
    assert _same(learnt, spoilt.model)


def test_the_rate_falls_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    step = torch.optim.Adam.step

    def watched(self: torch.optim.Adam, *arguments: Any) -> Any:
        used.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    settings = RecoverySettings(steps=6, check_every=2, learning_rate=0.1, falling=0.5, patience=100)
    found = recover(_network(), _batches, settings)
    assert used == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.1 * 2 / 3, 0.1 / 3])
    assert [check.learning_rate for check in found.checks] == pytest.approx([0.1, 0.1 * 2 / 3, 0])
