"""An optimised network computes the same, and its maker is left as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunegraph import Budget, InputError, deployment, optimize, prune
from prunegraph.modules.attention import WeightlessAttention
from prunegraph.timing import using_threads
from tests.latency.networks import attending, separator


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Sets what stands in for ``torch.compile``; at first, one that fails as where there is no C++ compiler."""

    def install(compiled: Callable[..., Any]) -> None:
        monkeypatch.setattr(torch, "compile", compiled)

    def missing(function: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    install(missing)
    return install


@pytest.mark.parametrize("make", [separator, attending])
def test_the_results_are_the_same(make) -> None:
    model, example = make()
    fast = optimize(model, example, measure_for=1e-9)
    assert fast.form == "eager"
    for inputs in (example, example.repeat(2, 1, 1)):
        torch.testing.assert_close(fast(inputs), model(inputs).detach())


def test_a_compiled_form_is_taken_when_it_is_faster(compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    model, example = separator()
    compiler(lambda function: lambda *args: function(*args))
    monkeypatch.setattr(deployment, "_fastest_threads", lambda run, measure_for: 1)
    monkeypatch.setattr(deployment, "interleaved", lambda calls, device, measure_for: ((0.003,), (0.001,)))
    fast = optimize(model, example)
    assert (fast.form, fast.milliseconds) == ("compiled", {"eager": 3.0, "compiled": 1.0})
    torch.testing.assert_close(fast(example), model(example).detach())


@pytest.mark.parametrize("wrong", [lambda y: 1.01 * y, lambda y: y[..., 1:], lambda y: (y, y)])
def test_a_form_with_other_results_is_out(compiler, wrong: Callable[[Tensor], Any]) -> None:
    model, example = separator()
    compiler(lambda function: lambda *args: wrong(function(*args)))
    assert list(optimize(model, example, measure_for=1e-9).milliseconds) == ["eager"]


def test_nothing_is_compiled_unasked(compiler) -> None:
    model, example = separator()
    compiler(lambda function: pytest.fail("compiled"))
    assert list(optimize(model, example, measure_for=1e-9, compiled=False).milliseconds) == ["eager"]


class Counting(nn.Module):
    """Notes on how many threads torch runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.counted = nn.Parameter(torch.ones(1)), []

    def forward(self, x: Tensor) -> Tensor:
        self.counted.append(torch.get_num_threads())
        return self.scale * x


@pytest.mark.parametrize(
    ("most", "medians", "best"), [(6, (3, 1, 2), 3), (6, (10, 9.5, 12), 6), (5, (3, 2, 1), 1), (1, (1,), 1)]
)
def test_the_network_runs_on_as_many_threads_as_is_fastest(most, medians, best, monkeypatch) -> None:
    def timed(calls, device, measure_for):
        for call in calls:
            call()
        return [[median] for median in medians[: len(calls)]]

    monkeypatch.setattr(deployment, "interleaved", timed)
    with using_threads(most):
        fast = optimize(Counting().eval(), torch.ones(3), compiled=False)
        assert sorted(set(fast.network.counted)) == sorted({most >> n for n in range(len(medians))})
        fast(torch.ones(3))
        assert (fast.threads, fast.network.counted[-1], torch.get_num_threads()) == (best, best, most)


class Listening(nn.Module):
    """Two attentions that are asked for their weights, and one that is not; ``reads`` says whose weights matter."""

    def __init__(self, reads: str) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(3))
        self.reads = reads

    def forward(self, x: Tensor) -> Tensor:
        heard, first = self.first(x, x, x)
        heard, second = self.second(heard, x, x)
        heard, _ = self.third(heard, heard, heard, None, False)
        weights = {"first": first, "second": second, "nobody's": None}[self.reads]
        return heard if self.reads == "nobody's" else heard + weights.mean()


@pytest.mark.parametrize(
    ("reads", "left_out"), [("nobody's", ["first", "second"]), ("first", ["second"]), ("second", ["first"])]
)
@pytest.mark.parametrize("is_pruned", [False, True])
def test_attention_weights_that_nobody_reads_are_left_out(reads: str, left_out: list[str], is_pruned: bool) -> None:
    torch.manual_seed(0)
    model, example = Listening(reads).eval(), torch.randn(2, 10, 8)
    if is_pruned:
        model = prune(model, example, budget=Budget(ratio=0.5)).model
    fast = optimize(model, example, measure_for=1e-9)
    names = [name for name, module in fast.network.named_modules() if isinstance(module, WeightlessAttention)]
    assert names == left_out
    assert not any(isinstance(module, WeightlessAttention) for module in model.modules())
    torch.testing.assert_close(fast(example), model(example).detach())


def test_the_callers_network_is_left_alone() -> None:
    model, example = separator()
    model.wide.weight.data = model.wide.weight.data.transpose(0, 1).contiguous().transpose(0, 1)
    before = {name: (p.data_ptr(), p.stride(), p.requires_grad) for name, p in model.named_parameters()}
    fast = optimize(model, example, measure_for=1e-9)
    assert {name: (p.data_ptr(), p.stride(), p.requires_grad) for name, p in model.named_parameters()} == before
    assert fast.network.wide.weight.is_contiguous()
    with torch.no_grad():
        model.wide.weight.zero_()
    assert not torch.equal(fast(example), model(example))


def test_keyword_arguments_are_passed_on() -> None:
    model, example = separator()
    fast = optimize(model, {"x": example}, measure_for=1e-9)
    torch.testing.assert_close(fast(x=example), model(example).detach())


def test_training_mode_is_refused() -> None:
    model, example = separator()
    fast = optimize(model, example, measure_for=1e-9)
    assert fast.eval() is fast
    with pytest.raises(InputError, match="train the network that it was made from"):
        fast.train()
    model.act.train()
    with pytest.raises(InputError, match=r"call model\.eval\(\) first"):
        optimize(model, example)


def test_the_state_is_that_of_the_network() -> None:
    model, example = separator()
    names = optimize(model, example, measure_for=1e-9).state_dict().keys()
    assert set(names) == {f"network.{name}" for name in model.state_dict()}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", [separator, attending])
def test_one_cuda_graph_computes_the_same_and_other_shapes_run_eagerly(make) -> None:
    model, example = make()
    model, example = model.cuda(), example.cuda()
    fast = deployment.cuda_graph(model, example)
    with torch.inference_mode():
        for inputs in (example, 2 * example, example.repeat(2, 1, 1)):
            torch.testing.assert_close(fast(inputs), model(inputs), rtol=1e-3, atol=1e-4)
        first = fast(example)
        kept = first.clone()
        fast(2 * example)
    assert torch.equal(first, kept)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_that_reads_values_on_the_cpu_stays_eager() -> None:
    class Reading(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float(x.sum())

    fast = optimize(Reading().eval().cuda(), torch.ones(1, 1, 4, device="cuda"), measure_for=1e-9)
    assert fast.form == "eager"
