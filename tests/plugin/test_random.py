"""The random criterion."""

import torch

from prunegraph.plugin import CriterionContext, run_criterion
from prunegraph_random import Random
from tests.plugin.graphs import WEIGHTS, graph, group, member


def wide(name: str, width: int = 2000) -> object:
    return group(name, member("first.bias", 0, [[0]] * width))


def draw(seed: int, *groups: object) -> dict[str, torch.Tensor]:
    return dict(run_criterion(Random(), graph(*groups), WEIGHTS, CriterionContext(seed=seed)))


def test_a_seed_decides() -> None:
    same, again, other = draw(1, wide("a"))["a"], draw(1, wide("a"))["a"], draw(2, wide("a"))["a"]
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


def test_scores_are_uniform_and_independent_between_groups() -> None:
    scores = draw(0, wide("a"), wide("b"))
    for values in scores.values():
        counts = torch.histc(values, bins=10, min=0, max=1)
        assert float(((counts - 200) ** 2 / 200).sum()) < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001
    assert abs(float(torch.corrcoef(torch.stack([scores["a"], scores["b"]]))[0, 1])) < 0.08


def test_order_of_groups_does_not_matter() -> None:
    forward, backward = draw(3, wide("a"), wide("b")), draw(3, wide("b"), wide("a"))
    assert all(torch.equal(forward[name], backward[name]) for name in ("a", "b"))


def test_torch_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    draw(7, wide("a"))
    assert torch.equal(before, torch.get_rng_state())
