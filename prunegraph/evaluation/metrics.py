"""The metrics of separated speech, each by a well-kept package."""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from prunegraph.errors import InputError
from prunegraph.optional_packages import import_optional

LIMIT_DB = 100.0
"""Ratios are kept within plus/minus this: perfect estimates have the upper score, silent ones the lower."""

Measure: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Takes estimates and sources ``(speakers, time)``, in the same order, to one score for each speaker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric.

    Attributes:
        name: as in tables of results, in lower case: ``si_sdr``.
        unit: of its values, empty for pure numbers.
        is_ratio: whether its improvement over the mixture is reported, too.
        make: gives the measure for a sample rate in Hz; refuses rates for which there is none, and says which package
            is missing.
    """

    name: str
    unit: str
    is_ratio: bool
    make: Callable[[int], Measure]


def si_sdr_measure(sample_rate: int) -> Measure:
    """Scale-invariant SDR of centred signals in dB, by torchmetrics.

    Reference:
        Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019.
    """
    score = _torchmetrics().scale_invariant_signal_distortion_ratio
    return lambda estimates, sources: _limited(score(estimates, sources, zero_mean=True), estimates)


def sdr_measure(sample_rate: int) -> Measure:
    """SDR of BSS Eval version 3 in dB, a distortion filter of 512 taps allowed, by torchmetrics.

    Reference:
        Vincent et al., "Performance measurement in blind audio source separation", IEEE TASLP 2006; Scheibler,
        "SDR - medium rare with fast computations", ICASSP 2022.
    """
    score = _torchmetrics().signal_distortion_ratio
    # So little on the diagonal changes no score, but keeps the equations of a pure tone solvable.
    return lambda estimates, sources: _limited(score(estimates, sources, load_diag=1e-12), estimates)


def pesq_measure(sample_rate: int) -> Measure:
    """PESQ (MOS-LQO): wide-band at 16 kHz (ITU-T P.862.2), narrow-band at 8 kHz (P.862.1), by the package pesq.

    A speaker of whom PESQ finds no utterance, or too short a signal, has no score (NaN).
    """
    pesq = import_optional("pesq", extra="evaluation")
    if sample_rate not in (8000, 16000):
        raise InputError(f"PESQ is defined at 8000 and 16000 Hz, not at {sample_rate} Hz; leave it out or resample.")
    band = "wb" if sample_rate == 16000 else "nb"

    def score(estimate: Any, source: Any) -> float:
        try:
            return float(pesq.pesq(sample_rate, source, estimate, band))
        except pesq.PesqError:
            return math.nan

    return _each_speaker(score)


def stoi_measure(sample_rate: int) -> Measure:
    """STOI, from 0 to 1, by the package pystoi.

    A speaker with less than 0.4 s of speech has no score (NaN).

    Reference:
        Taal et al., "An algorithm for intelligibility prediction of time-frequency weighted noisy speech", IEEE TASLP
        2011.
    """
    pystoi = import_optional("pystoi", extra="evaluation")

    def score(estimate: Any, source: Any) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # how pystoi says that there is too little speech
            try:
                return float(pystoi.stoi(source, estimate, sample_rate))
            except RuntimeWarning:
                return math.nan

    return _each_speaker(score)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric(name="si_sdr", unit="dB", is_ratio=True, make=si_sdr_measure),
            Metric(name="sdr", unit="dB", is_ratio=True, make=sdr_measure),
            Metric(name="pesq", unit="", is_ratio=False, make=pesq_measure),
            Metric(name="stoi", unit="", is_ratio=False, make=stoi_measure),
        )
    }
)
"""Name -> metric."""


def _torchmetrics() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics 0.11 reads versions the old way
        return import_optional("torchmetrics.functional.audio", extra="evaluation")


def _limited(decibels: Tensor, estimates: Tensor) -> Tensor:
    """Rounding may explain more than the whole of a perfect estimate, and silence counts as 0 dB for torchmetrics."""
    silent = estimates.amax(dim=-1) == estimates.amin(dim=-1)
    return decibels.nan_to_num(nan=LIMIT_DB).clamp(-LIMIT_DB, LIMIT_DB).masked_fill(silent, -LIMIT_DB)


def _each_speaker(score: Callable[[Any, Any], float]) -> Measure:
    def measure(estimates: Tensor, sources: Tensor) -> Tensor:
        pairs = zip(estimates.cpu().numpy(), sources.cpu().numpy(), strict=True)
        return torch.tensor([score(estimate, source) for estimate, source in pairs], dtype=torch.float64)

    return measure
