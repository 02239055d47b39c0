"""The optimizer's successor: moments of kept channels, and the very next step."""

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from prunegraph import PruningPlan, SurgeryError, apply, build_graph, slice_optimizer
from tests.dependency.cases import CASES, random_plan

MAKERS: dict[str, Callable[[Iterable[nn.Parameter]], Optimizer]] = {
    "adam": lambda p: Adam(p, lr=0.01),
    "adam amsgrad": lambda p: Adam(p, lr=0.01, amsgrad=True, weight_decay=0.1),
    "adamw": lambda p: AdamW(p, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1),
    "sgd momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "sgd": lambda p: SGD(p, lr=0.1),
    "rmsprop": lambda p: RMSprop(p, lr=0.01, momentum=0.5, centered=True),
}


def trained(name: str, make: Callable[[Iterable[nn.Parameter]], Optimizer]) -> tuple[nn.Module, Optimizer, Tensor]:
    """A network after three steps, so that the optimizer has a state."""
    model, x = CASES[name].example()
    optimizer = make(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return model, optimizer, x


def kept(tensor: Tensor, plan: PruningPlan, name: str) -> Tensor:
    for dim, indices in plan.kept_indices().get(name, {}).items():
        tensor = tensor[(slice(None),) * dim + (list(indices),)]
    return tensor


@pytest.mark.parametrize("network", ["chain", "gated", "tied", "attention", "weight norm"])
@pytest.mark.parametrize("kind", MAKERS)
def test_moments_of_kept_channels_are_bit_equal(kind: str, network: str) -> None:
    model, optimizer, x = trained(network, MAKERS[kind])
    plan = random_plan(build_graph(model, x), 0)
    pruned = apply(model, plan)
    successor = slice_optimizer(optimizer, model, pruned, plan)
    new = dict(pruned.named_parameters())
    for name, parameter in model.named_parameters():
        before, after = optimizer.state[parameter], successor.state[new[name]]
        assert list(after) == list(before)
        for key, value in before.items():
            want = kept(value, plan, name) if isinstance(value, Tensor) and value.shape == parameter.shape else value
            assert torch.equal(torch.as_tensor(after[key]), torch.as_tensor(want)) if want is not None else True
    assert type(successor) is type(optimizer)
    assert [p for g in successor.param_groups for p in g["params"]] == list(pruned.parameters())


@pytest.mark.parametrize("kind", MAKERS)
def test_the_next_step_is_the_one_of_the_kept_channels(kind: str) -> None:
    """Given the same gradients, kept channels move exactly as they would have in the dense network."""
    model, optimizer, x = trained("residual", MAKERS[kind])
    plan = random_plan(build_graph(model, x), 0)
    pruned = apply(model, plan)
    successor = slice_optimizer(optimizer, model, pruned, plan)
    gradients = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name]
    for name, parameter in pruned.named_parameters():
        parameter.grad = kept(gradients[name], plan, name)
    optimizer.step()
    successor.step()
    dense = dict(model.named_parameters())
    for name, parameter in pruned.named_parameters():
        assert torch.equal(parameter, kept(dense[name], plan, name)), name


def test_an_adam_step_by_hand() -> None:
    model, optimizer, x = trained("chain", MAKERS["adam"])
    graph = build_graph(model, x)
    plan = graph.plan({"a.weight[0]": [1, 4]})
    pruned = apply(model, plan)
    successor = slice_optimizer(optimizer, model, pruned, plan)
    before, state = pruned.a.weight.detach().clone(), copy.deepcopy(optimizer.state[model.a.weight])
    pruned(x).square().mean().backward()
    gradient = pruned.a.weight.grad
    successor.step()
    first = 0.9 * state["exp_avg"][[1, 4]] + 0.1 * gradient
    second = 0.999 * state["exp_avg_sq"][[1, 4]] + 0.001 * gradient**2
    expected = before - 0.01 * (first / (1 - 0.9**4)) / ((second / (1 - 0.999**4)).sqrt() + 1e-8)
    assert torch.allclose(pruned.a.weight, expected, rtol=1e-12, atol=1e-14)


def test_training_goes_on_and_the_old_optimizer_is_untouched() -> None:
    """A successor is bound to the new parameters: its steps move them, and nothing of the old network."""
    model, optimizer, x = trained("cat", MAKERS["adamw"])
    old_state, old_weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    plan = random_plan(build_graph(model, x), 0)
    pruned = apply(model, plan)
    successor = slice_optimizer(optimizer, model, pruned, plan)
    losses = []
    for _ in range(20):
        successor.zero_grad()
        loss = pruned(x).square().mean()
        losses.append(loss.item())
        loss.backward()
        successor.step()
    assert losses[-1] < losses[0]
    assert all(torch.equal(t, old_weights[n]) for n, t in model.state_dict().items())
    assert str(optimizer.state_dict()) == str(old_state)


def test_parameter_groups_keep_their_settings() -> None:
    model, x = CASES["chain"].example()
    groups = [
        {"params": [model.b.weight, model.a.weight], "lr": 0.5},
        {"params": [model.a.bias], "lr": 0.25, "weight_decay": 0.0, "name": "biases"},
    ]
    optimizer = SGD(groups, lr=1.0, momentum=0.9)
    plan = random_plan(build_graph(model, x), 0)
    pruned = apply(model, plan)
    first, second = slice_optimizer(optimizer, model, pruned, plan).param_groups
    assert [id(p) for p in first["params"]] == [id(pruned.b.weight), id(pruned.a.weight)]
    assert (first["lr"], second["lr"], second["name"], first["momentum"]) == (0.5, 0.25, "biases", 0.9)


def test_a_scheduler_goes_on_with_the_successor() -> None:
    model, optimizer, x = trained("cat", MAKERS["sgd momentum"])
    plan = random_plan(build_graph(model, x), 0)
    successor = slice_optimizer(optimizer, model, apply(model, plan), plan)
    scheduler = torch.optim.lr_scheduler.StepLR(successor, 1, gamma=0.5)
    successor.step()
    scheduler.step()
    assert successor.param_groups[0]["lr"] == pytest.approx(0.05)


def test_an_optimizer_of_another_network_is_refused() -> None:
    model, x = CASES["cat"].example()
    other = SGD(CASES["chain"].example()[0].parameters(), lr=0.1)
    plan = random_plan(build_graph(model, x), 0)
    with pytest.raises(SurgeryError, match="not one of the network's"):
        slice_optimizer(other, model, apply(model, plan), plan)


def test_a_state_loads_from_its_own_dict() -> None:
    model, optimizer, x = trained("cat", MAKERS["adam"])
    plan = random_plan(build_graph(model, x), 0)
    pruned = apply(model, plan)
    successor = slice_optimizer(optimizer, model, pruned, plan)
    fresh = MAKERS["adam"](pruned.parameters())
    fresh.load_state_dict(copy.deepcopy(successor.state_dict()))
    for parameter in pruned.parameters():
        parameter.grad = torch.ones_like(parameter)
    twin = copy.deepcopy(pruned)
    fresh.step()
    after = copy.deepcopy(pruned.state_dict())
    pruned.load_state_dict(twin.state_dict())
    successor.step()
    assert all(torch.equal(t, after[n]) for n, t in pruned.state_dict().items())
