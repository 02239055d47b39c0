"""The metrics against other packages and against values known beforehand."""

import math
import sys

import mir_eval
import numpy as np
import pytest
import torch

from prunegraph.errors import InputError, MissingPackageError
from prunegraph.evaluation.metrics import LIMIT_DB, METRICS
from prunegraph.recovery.losses import pairwise_si_sdr
from tests.evaluation.separators import RATE, mixtures


def _pair(noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    sources = mixtures(1)[0].sources.double()
    generator = torch.Generator().manual_seed(1)
    return sources + noise * torch.randn(sources.shape, generator=generator, dtype=torch.float64), sources


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("noise", [0.01, 0.1, 1.0])
def test_sdr_is_that_of_bss_eval(noise: float) -> None:
    estimates, sources = _pair(noise)
    estimates = estimates + 0.3 * sources.roll(3, -1)  # a filter that SDR forgives and SI-SDR does not
    expected = mir_eval.separation.bss_eval_sources(sources.numpy(), estimates.numpy(), compute_permutation=False)[0]
    np.testing.assert_allclose(METRICS["sdr"].make(RATE)(estimates, sources), expected, atol=1e-3)


@pytest.mark.parametrize("noise", [0.01, 0.1, 1.0])
def test_si_sdr_is_that_of_the_losses_and_of_its_definition(noise: float) -> None:
    estimates, sources = _pair(noise)
    found = METRICS["si_sdr"].make(RATE)(estimates * 3 + 0.1, sources)
    np.testing.assert_allclose(found, pairwise_si_sdr(estimates[None], sources[None])[0].diagonal(), atol=1e-4)
    e, s = (signal.numpy() - signal.numpy().mean(-1, keepdims=True) for signal in (estimates, sources))
    target = (e * s).sum(-1, keepdims=True) / (s * s).sum(-1, keepdims=True) * s
    expected = 10 * np.log10((target**2).sum(-1) / ((target - e) ** 2).sum(-1))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["si_sdr", "sdr"])
def test_perfect_and_silent_estimates_have_finite_scores(name: str) -> None:
    _, sources = _pair(0)
    measure = METRICS[name].make(RATE)
    assert (measure(sources, sources) > 80).all()
    assert measure(sources, sources).max() <= LIMIT_DB
    assert (measure(torch.zeros_like(sources), sources) == -LIMIT_DB).all()


def test_sdr_of_a_pure_tone_is_defined() -> None:
    tone = torch.sin(torch.arange(8000, dtype=torch.float64) * 0.1).expand(2, -1)
    noisy = tone + 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (METRICS["sdr"].make(RATE)(noisy, tone) > 10).all()


@pytest.mark.parametrize(("name", "best"), [("pesq", 4.55), ("stoi", 1.0)])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_perceptual_scores_fall_from_the_best_value_with_the_noise(name: str, best: float, rate: int) -> None:
    measure = METRICS[name].make(rate)
    perfect, good, bad = (measure(*_pair(noise)).mean().item() for noise in (0.0, 0.03, 0.3))
    assert perfect == pytest.approx(best, abs=0.1)
    assert perfect > good > bad


@pytest.mark.parametrize(("name", "seconds"), [("pesq", 0.05), ("stoi", 0.05)])
def test_too_little_speech_has_no_perceptual_score(name: str, seconds: float) -> None:
    sources = mixtures(1, seconds=seconds)[0].sources
    assert METRICS[name].make(RATE)(sources, sources).isnan().all()


def test_pesq_is_refused_at_other_rates() -> None:
    with pytest.raises(InputError, match="8000 and 16000 Hz, not at 44100"):
        METRICS["pesq"].make(44100)


@pytest.mark.parametrize(
    ("metric", "package"),
    [("pesq", "pesq"), ("stoi", "pystoi"), ("sdr", "torchmetrics"), ("si_sdr", "torchmetrics")],
)
def test_a_missing_package_is_one_clear_line(metric: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    with pytest.raises(MissingPackageError, match=rf"package {package} is needed.*prunegraph\[evaluation\]"):
        METRICS[metric].make(RATE)


def test_names_and_units() -> None:
    assert {name: (metric.name, metric.unit, metric.is_ratio) for name, metric in METRICS.items()} == {
        "si_sdr": ("si_sdr", "dB", True),
        "sdr": ("sdr", "dB", True),
        "pesq": ("pesq", "", False),
        "stoi": ("stoi", "", False),
    }
    assert math.isfinite(LIMIT_DB)
