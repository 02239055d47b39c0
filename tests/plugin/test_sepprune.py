"""Learnable masks: what is learned, what it costs, and that it can be interrupted."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunegraph
from prunegraph import Budget
from prunegraph.errors import PrunegraphError
from prunegraph.plugin.contracts import NetworkScores
from prunegraph_magnitude.relative import log_magnitudes
from prunegraph_reconstruction import macs_saved
from prunegraph_sepprune import SepPrune
from prunegraph_sepprune.candidates import candidate_groups, widths_left
from prunegraph_sepprune.criterion import boldness
from prunegraph_sepprune.learning import LearningSettings
from prunegraph_sepprune.masks import BudgetMasks, StraightThrough

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]
SHORT = SepPrune(learning=LearningSettings(steps=30))
RESTLESS = LearningSettings(steps=150, learning_rate=2.0)
"""Moves masks of a small network although they start from a good guess."""
HALF = Budget(macs=0.5)
USEFUL = (1, 4, 6)
"""The hidden channels that reach the output."""


def network() -> nn.Module:
    """Two hidden layers; of the first one's channels only the `USEFUL` ones count."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 6, 1), nn.Conv1d(6, 1, 1))
    with torch.no_grad():
        useless = torch.ones(8, dtype=torch.bool)
        useless[list(USEFUL)] = False
        model[2].weight[:, useless] *= 1e-3
        model[0].weight[useless] *= 10  # large weights that magnitude would keep
        model[0].bias[~useless] += 1
    return model.eval()


def batches(model: nn.Module, count: int = 5, length: int = 32) -> list[tuple[Tensor, Tensor]]:
    """Inputs with what the dense network makes of them."""
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(2, 1, length, generator=generator) for _ in range(count)]
    device = next(model.parameters()).device
    with torch.no_grad():
        return [(x.to(device), model(x.to(device))) for x in inputs]


def learn(
    criterion: SepPrune = SHORT, budget: Budget | None = HALF, model: nn.Module | None = None, **context: Any
) -> Mapping[str, Tensor]:
    model = network() if model is None else model
    graph = prunegraph.build_graph(model, torch.randn(2, 1, 32))
    context = {"data": batches(model), "loss": functional.mse_loss, **context}
    return prunegraph.score(graph, criterion, budget=budget, **context)


@pytest.mark.parametrize("device", DEVICES)
def test_channels_without_use_go_first(device: str) -> None:
    model = network().to(device)
    result = prunegraph.prune(
        model,
        torch.randn(2, 1, 32, device=device),
        criterion=SepPrune(learning=LearningSettings(steps=150)),
        budget=Budget(params=0.5, exclude=("2.weight[[]0]",)),
        data=batches(model),
        loss=functional.mse_loss,
    )
    assert set(result.plan.kept["0.weight[0]"]) >= set(USEFUL)
    by_magnitude = prunegraph.prune(
        model, torch.randn(2, 1, 32, device=device), budget=Budget(params=0.5), criterion="l1"
    )
    assert not set(by_magnitude.plan.kept["0.weight[0]"]) >= set(USEFUL)


def test_it_is_the_default_where_data_are_given() -> None:
    model = network()
    data = batches(model, count=1)
    result = prunegraph.prune(
        model, torch.randn(2, 1, 32), budget=Budget(macs=0.5), data=data, loss=functional.mse_loss
    )
    assert result.report.criterion == "sepprune"
    assert 0.4 <= result.report.pruned.macs / result.report.dense.macs <= 0.5


def test_the_same_seed_learns_the_same_to_the_bit_and_weights_stay() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = prunegraph.build_graph(model, torch.randn(2, 1, 32))
    data, restless = batches(model), SepPrune(learning=replace(RESTLESS, steps=30))
    first, again, other = (
        prunegraph.score(graph, restless, budget=Budget(macs=0.5), data=data, loss=functional.mse_loss, seed=seed)
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_every_sampled_mask_meets_the_budget() -> None:
    model = network()
    graph = prunegraph.build_graph(model, torch.randn(2, 1, 32))
    program, seen = prunegraph.MaskedProgram(graph), []

    def spy(masks: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
        seen.append(np.concatenate([masks[group.name].detach().numpy() > 0.5 for group in graph.groups]))
        return program(masks, *inputs)

    prunegraph.score(
        graph,
        SepPrune(learning=RESTLESS),
        budget=Budget(macs=0.5),
        data=batches(model),
        loss=functional.mse_loss,
        masked_program=spy,
    )
    dense = graph.cost().macs
    shares = [graph.macs_and_parameters(kept)[0] / dense for kept in seen]
    assert len(shares) == 150
    assert max(shares) <= 0.5
    assert min(shares) > 0.5 - 0.15  # one channel of so small a network is 14 % of its MACs
    assert len({kept.tobytes() for kept in seen}) > 2


def test_epsilon_mode_keeps_what_is_sampled_more_often_than_not() -> None:
    scores = learn(SepPrune(mode="epsilon", learning=LearningSettings(steps=1, learning_rate=1e-9)), budget=None)
    start = torch.rand(14, generator=torch.Generator().manual_seed(0))
    expected = start - (np.log(0.7 / 0.3) + np.log(np.log(2)))
    torch.testing.assert_close(torch.cat(list(scores.values())), expected, rtol=0, atol=1e-6)
    assert isinstance(scores, NetworkScores)


def test_logits_start_from_ranks_within_each_group() -> None:
    model = network()
    graph = prunegraph.build_graph(model, torch.randn(2, 1, 32))
    prior = log_magnitudes(graph, graph.weights)
    first, second = (dict(model.named_parameters())[f"{i}.weight"].detach() for i in (0, 2))
    made, read = first.flatten(1).norm(dim=1), second.flatten(2).norm(dim=(0, 2))
    expected = ((made / made.mean()).log() + (read / read.mean()).log()) / 2
    torch.testing.assert_close(prior["0.weight[0]"], expected)
    start = BudgetMasks([8, 3], [4, 3], 0.5).start([prior["0.weight[0]"], torch.zeros(3)], torch.Generator())
    assert start[:8].argsort().tolist() == expected.argsort().tolist()
    torch.testing.assert_close(start[:8].sort().values, torch.linspace(0, 4, 8))
    assert start[8:].tolist() == [2, 2, 2]


def test_every_group_keeps_its_number_of_channels() -> None:
    logits = torch.tensor([3.0, 0.0, 1.0, 2.0, 5.0, 4.0, 6.0], requires_grad=True)
    masks = BudgetMasks([4, 3], [2, 3], 0.5)
    keep = masks.sample(logits, torch.zeros(7), done=1.0)
    assert (keep > 0.5).tolist() == [True, False, False, True, True, True, True]
    softer = masks.sample(logits / 10, torch.zeros(7), done=0.0).detach()
    around = (torch.tensor([3.0, 0.0, 1.0, 2.0]) / 10 - 0.15) / 0.3  # half-way between 0.1 and 0.2, temperature 0.3
    torch.testing.assert_close(softer[:4], 1.2 * torch.sigmoid(around) - 0.1)
    assert softer[4:].tolist() == [1, 1, 1]
    torch.testing.assert_close(masks.price(logits.detach())[:4], torch.full((4,), 1.5))


@pytest.mark.parametrize(("staying", "gone"), [([8, 6], 0), ([4, 6], 28 / 62), ([1, 1], 59 / 62)])
def test_the_more_goes_the_bolder_masks_learn(staying: list[int], gone: float) -> None:
    """With widths a and b, the network has ``a + a b + b`` MACs at each of its samples: 62 when it is whole."""
    model = nn.Sequential(nn.Conv1d(1, 8, 1), nn.Conv1d(8, 6, 1), nn.Conv1d(6, 1, 1))
    graph = prunegraph.build_graph(model, torch.randn(1, 1, 10))
    assert boldness(graph, staying) == pytest.approx(0.8 * gone**2)


def test_candidates_lose_what_the_prior_ranks_last() -> None:
    graph = prunegraph.build_graph(network(), torch.randn(2, 1, 32))
    everything = frozenset({"0.weight[0]", "2.weight[0]"})
    even = {group.name: torch.linspace(0, 1, group.width) for group in graph.groups}
    assert widths_left(graph, Budget(ratio=0.5), everything, even) == [4, 3]
    assert widths_left(graph, Budget(macs=0.5), frozenset({"0.weight[0]"}), even) == [3, 6]  # 3 k + 6 k + 6 <= 39
    second_first = {**even, "2.weight[0]": even["2.weight[0]"] - 1}
    assert widths_left(graph, Budget(macs=0.5), everything, second_first) == [8, 1]  # 3 * 8 + 8 + 1 <= 39


def test_masks_decide_which_channels_stay_and_the_prior_how_many() -> None:
    graph = prunegraph.build_graph(network(), torch.randn(2, 1, 32))
    data = batches(network(), 4)
    prior = prunegraph.score(graph, "reconstruction", data=data)
    learned = learn(SepPrune(candidate_share=1.0, learning=LearningSettings(steps=10, learning_rate=5.0)))
    for name, scores in learned.items():
        torch.testing.assert_close(scores.sort().values, prior[name].sort().values)
    assert any(learned[name].argsort().tolist() != prior[name].argsort().tolist() for name in prior)


def test_a_threshold_keeps_the_scores_above_it() -> None:
    graph = prunegraph.build_graph(network(), torch.randn(2, 1, 32))
    scores = NetworkScores({group.name: torch.linspace(-1, 1, group.width) for group in graph.groups})
    plan = prunegraph.select(graph, scores, Budget(threshold=0.5))
    assert plan.kept["0.weight[0]"] == (6, 7)
    assert plan.kept["2.weight[0]"] == (4, 5)


def test_the_gradient_passes_clipped() -> None:
    soft = torch.tensor([0.2, 0.7, 0.4], requires_grad=True)
    kept = StraightThrough.apply(soft, torch.tensor([False, True, False]))
    assert kept.tolist() == [0, 1, 0]
    (kept * torch.tensor([0.5, -3.0, 7.0])).sum().backward()
    assert soft.grad is not None
    assert soft.grad.tolist() == [0.5, -1, 1]


def test_an_interrupted_learning_goes_on_to_the_bit(tmp_path: Path) -> None:
    criterion = SepPrune(learning=LearningSettings(steps=70))
    whole = learn(criterion)

    def interrupt(step: int, steps: int, figures: Mapping[str, float]) -> None:
        if step == 60:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "masks.safetensors"
    with pytest.raises(KeyboardInterrupt):
        learn(criterion, progress=interrupt, checkpoint=checkpoint)
    told: list[tuple[int, int, Mapping[str, float]]] = []
    resumed = learn(criterion, progress=lambda *state: told.append(state), checkpoint=checkpoint)
    assert [(step, steps) for step, steps, _ in told] == [(60, 70), (70, 70)]
    assert all(0.35 < figures["MACs"] <= 0.5 and figures["loss"] > 0 for _, _, figures in told)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert [path.name for path in tmp_path.iterdir()] == ["masks.safetensors"]


@pytest.mark.parametrize("what", ["settings", "seed", "budget", "weights"])
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, what: str) -> None:
    checkpoint, other = tmp_path / "masks.safetensors", network()
    nn.init.uniform_(other[2].weight)
    changed: Mapping[str, Any] = {
        "settings": {"criterion": SepPrune(learning=LearningSettings(steps=12))},
        "seed": {"seed": 1},
        "budget": {"budget": Budget(macs=0.4)},
        "weights": {"model": other},
    }[what]
    learn(checkpoint=checkpoint)
    with pytest.raises(prunegraph.CriterionError, match="another run"):
        learn(checkpoint=checkpoint, **changed)


def test_candidates_are_the_groups_that_cost_most() -> None:
    graph = prunegraph.build_graph(network(), torch.randn(2, 1, 32))
    saved = macs_saved(graph)
    macs = {"first": 3 * 8, "second": 8 * 6, "third": 6}  # per sample of the output
    total = sum(macs.values())
    assert saved["0.weight[0]"] == pytest.approx((7 * 3 + 7 * 6) / total)
    assert saved["2.weight[0]"] == pytest.approx((5 * 8 + 5) / total)
    assert candidate_groups(graph, Budget(macs=0.5), share=0.5) == {"0.weight[0]"}
    assert candidate_groups(graph, Budget(macs=0.5), share=0.9) == {"0.weight[0]", "2.weight[0]"}
    assert candidate_groups(graph, Budget(macs=0.7, pin={"2": 6}), share=0.1) == {"0.weight[0]"}
    assert candidate_groups(graph, Budget(params=0.5), share=0.1) == {"0.weight[0]", "2.weight[0]"}


@pytest.mark.parametrize("patterns", [{"include": ("2",)}, {"exclude": ("0",)}])
@pytest.mark.parametrize(
    ("criterion", "limit"), [(SHORT, {"params": 0.8}), (SepPrune(mode="epsilon"), {"threshold": 0.0})]
)
def test_what_the_budget_keeps_whole_is_whole_while_masks_are_learned(
    criterion: SepPrune, limit: dict[str, float], patterns: dict[str, tuple[str, ...]]
) -> None:
    graph = prunegraph.build_graph(network(), torch.randn(2, 1, 32))
    program, seen = prunegraph.MaskedProgram(graph), []

    def watched(masks: Mapping[str, Tensor], *inputs: Tensor) -> Any:
        seen.append({name: mask.detach().clone() for name, mask in masks.items()})
        return program(masks, *inputs)

    learn(replace(criterion, learning=LearningSettings(steps=8)), Budget(**limit, **patterns), masked_program=watched)
    assert all(bool((masks["0.weight[0]"] == 1).all()) for masks in seen)
    assert len({tuple(masks["2.weight[0]"].tolist()) for masks in seen}) > 1


def test_groups_that_are_no_candidates_stay_whole() -> None:
    scores = learn(SepPrune(candidate_share=0.5, learning=LearningSettings(steps=10)), Budget(macs=0.6))
    assert float(scores["2.weight[0]"].min()) > float(scores["0.weight[0]"].max())


def test_data_of_another_shape_than_the_example() -> None:
    model = network()
    data = [*batches(model, 1, length=20), *batches(model, 1, length=40)]
    result = prunegraph.prune(
        model, torch.randn(1, 1, 32), criterion=SHORT, budget=Budget(macs=0.6), data=data, loss=functional.mse_loss
    )
    assert result.report.pruned.macs < result.report.dense.macs


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"data": None}, "it needs data"),
        ({"loss": None}, "it needs loss"),
        ({"budget": None}, "it needs budget"),
        ({"data": []}, "no batch"),
        ({"data": iter(batches(network()))}, r"no batch, after \d+ of 30; a generator can be gone through only once"),
        ({"loss": lambda output, target: output.mean() * float("nan")}, "the loss is nan at step 10"),
    ],
)
def test_what_cannot_be_learned_on_is_refused(context: dict[str, Any], message: str) -> None:
    with pytest.raises(PrunegraphError, match=message):
        learn(**context)
