import pytest
import torch
from torchmetrics.functional import (
    permutation_invariant_training,
    scale_invariant_signal_distortion_ratio,
)

from prunegraph.errors import InputError
from prunegraph.recovery.losses import best_permutation, pairwise_si_sdr, pit_si_sdr_loss, si_sdr, si_sdr_improvement


def _signals(speakers: int = 2, noise: float = 0.5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randn(5, speakers, 400, generator=generator, dtype=torch.float64) + 0.3
    estimates = sources.flip(1) + noise * torch.randn(sources.shape, generator=generator, dtype=torch.float64)
    return estimates, sources


@pytest.mark.filterwarnings("ignore:Creating a tensor from a list:UserWarning")  # torchmetrics' own
@pytest.mark.parametrize("speakers", [1, 2, 3])
@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
def test_agrees_with_torchmetrics(speakers: int, noise: float) -> None:
    estimates, sources = _signals(speakers, noise)
    expected, _ = permutation_invariant_training(
        estimates, sources, lambda e, s: scale_invariant_signal_distortion_ratio(e, s, zero_mean=True), eval_func="max"
    )
    torch.testing.assert_close(si_sdr(estimates, sources), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pit_si_sdr_loss(estimates, sources), -expected.mean(), rtol=1e-5, atol=1e-5)


def test_a_known_ratio() -> None:
    time = torch.arange(1000, dtype=torch.float64) * 2 * torch.pi / 100
    source, orthogonal = time.sin(), time.cos()
    estimate = source + 0.1 * orthogonal
    assert pairwise_si_sdr(estimate[None, None], source[None, None]).item() == pytest.approx(20.0, abs=1e-4)


@pytest.mark.parametrize("change", [lambda x: 7 * x, lambda x: -0.01 * x, lambda x: x + 3, lambda x: x.flip(1)])
def test_scale_offset_and_order_of_the_estimates_do_not_matter(change) -> None:  # type: ignore[no-untyped-def]
    estimates, sources = _signals()
    torch.testing.assert_close(si_sdr(change(estimates), sources), si_sdr(estimates, sources), rtol=1e-4, atol=1e-4)


def test_the_best_permutation_puts_estimates_in_the_order_of_the_sources() -> None:
    estimates, sources = _signals(3, noise=0.1)
    score, order = best_permutation(pairwise_si_sdr(estimates, sources))
    ordered = estimates[torch.arange(5)[:, None], order]
    direct = pairwise_si_sdr(ordered, sources).diagonal(dim1=1, dim2=2).mean(-1)
    torch.testing.assert_close(direct, score)
    assert order.tolist() == [[2, 1, 0]] * 5


@pytest.mark.parametrize("estimate", [torch.zeros(1, 2, 100), torch.ones(1, 2, 100)])
def test_silence_has_a_finite_loss_and_gradient(estimate: torch.Tensor) -> None:
    estimate = estimate.clone().requires_grad_()
    sources = torch.randn(1, 2, 100, generator=torch.Generator().manual_seed(0))
    loss = pit_si_sdr_loss(estimate, sources)
    loss.backward()
    assert loss.isfinite()
    assert estimate.grad is not None
    assert estimate.grad.isfinite().all()


def test_a_perfect_estimate_has_a_finite_gradient() -> None:
    _, sources = _signals()
    estimate = sources.clone().requires_grad_()
    pit_si_sdr_loss(estimate, sources).backward()
    assert estimate.grad is not None
    assert estimate.grad.isfinite().all()


def test_the_mixture_itself_improves_nothing() -> None:
    _, sources = _signals()
    mixture = sources.sum(1, keepdim=True)
    improvement = si_sdr_improvement(mixture.expand(-1, 2, -1), sources, mixture)
    torch.testing.assert_close(improvement, torch.zeros_like(improvement), atol=1e-6, rtol=0)


def test_improvement_is_the_difference_of_two_ratios() -> None:
    estimates, sources = _signals()
    mixture = sources.sum(1, keepdim=True)
    before = scale_invariant_signal_distortion_ratio(mixture.expand(-1, 2, -1), sources, zero_mean=True).mean(-1)
    after = scale_invariant_signal_distortion_ratio(estimates.flip(1), sources, zero_mean=True).mean(-1)
    torch.testing.assert_close(si_sdr_improvement(estimates, sources, mixture), after - before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("estimates", "sources", "message"),
    [
        (torch.zeros(2, 2, 64), torch.zeros(2, 3, 64), "2 estimates for 3 sources"),
        (torch.zeros(2, 2, 64), torch.zeros(2, 2, 60), r"\(2, 2, 64\) and sources \(2, 2, 60\) must both"),
        (torch.zeros(2, 64), torch.zeros(2, 2, 64), r"must both have the shape \(batch, signals, time\)"),
        (torch.zeros(2, 2, 64), torch.zeros(2, 2, 64, dtype=torch.int16), "floating-point numbers, got torch.int16"),
    ],
    ids=["number", "length", "dimensions", "integers"],
)
def test_signals_that_cannot_be_compared(estimates: torch.Tensor, sources: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pit_si_sdr_loss(estimates, sources)
