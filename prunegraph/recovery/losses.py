"""Scale-invariant signal-to-distortion ratio (SI-SDR) and its permutation-invariant loss."""

from itertools import permutations

import torch
from torch import Tensor

from prunegraph.errors import InputError

_EPSILON = 1e-8


def pairwise_si_sdr(estimates: Tensor, sources: Tensor) -> Tensor:
    r"""SI-SDR in dB of every estimate against every source.

    With both signals centred, SI-SDR = 10 log10(|a s|^2 / |a s - e|^2), a = <e, s> / |s|^2. It is computed as
    r^2 / (1 - r^2) with the correlation coefficient r, so that all pairs cost one matrix product.

    Args:
        estimates: separated signals, shape ``(batch, estimates, time)``.
        sources: reference signals, shape ``(batch, sources, time)``.

    Returns:
        Shape ``(batch, estimates, sources)``.

    Raises:
        InputError: the signals differ in number or length, or are no floating-point numbers.

    Reference:
        Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019.
    """
    _check_signals(estimates, sources)
    estimates = estimates - estimates.mean(dim=-1, keepdim=True)
    sources = sources - sources.mean(dim=-1, keepdim=True)
    dot = torch.einsum("bet,bst->bes", estimates, sources)
    energy = estimates.square().sum(-1)[:, :, None] * sources.square().sum(-1)[:, None, :]
    explained = dot.square()
    # Rounding may leave a perfect estimate with a negative rest, and silence has no energy at all.
    rest = (energy - explained).clamp_min(0)
    floor = _EPSILON * energy + _EPSILON**2
    return 10 * (torch.log10(explained + floor) - torch.log10(rest + floor))


def _check_signals(estimates: Tensor, sources: Tensor) -> None:
    shapes = tuple(estimates.shape), tuple(sources.shape)
    if any(len(shape) != 3 for shape in shapes) or shapes[0][::2] != shapes[1][::2]:
        raise InputError(
            f"estimates {shapes[0]} and sources {shapes[1]} must both have the shape (batch, signals, time)"
        )
    for signals in (estimates, sources):
        if not signals.is_floating_point():
            raise InputError(f"signals must be floating-point numbers, got {signals.dtype}")


def best_permutation(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The assignment of estimates to sources with the highest mean score.

    Args:
        scores: shape ``(batch, speakers, speakers)``: estimate by source.

    Returns:
        The mean score ``(batch,)`` and, for each source, the index of its estimate ``(batch, speakers)``.

    Raises:
        InputError: there are more estimates than sources, or fewer.
    """
    speakers = scores.shape[-1]
    if scores.shape[-2] != speakers:
        raise InputError(f"there are {scores.shape[-2]} estimates for {speakers} sources; each source needs one")
    orders = torch.tensor(list(permutations(range(speakers))), device=scores.device)
    means = scores[:, orders, torch.arange(speakers, device=scores.device)].mean(dim=-1)
    best, index = means.max(dim=-1)
    return best, orders[index]


def si_sdr(estimates: Tensor, sources: Tensor) -> Tensor:
    """Permutation-invariant SI-SDR in dB, averaged over speakers.

    Args:
        estimates: shape ``(batch, speakers, time)``, in any order of speakers.
        sources: shape ``(batch, speakers, time)``.

    Returns:
        Shape ``(batch,)``.
    """
    return best_permutation(pairwise_si_sdr(estimates, sources))[0]


def pit_si_sdr_loss(estimates: Tensor, sources: Tensor) -> Tensor:
    """Negative permutation-invariant SI-SDR in dB, averaged over the batch; shapes as in ``si_sdr``."""
    return -si_sdr(estimates, sources).mean()


def si_sdr_improvement(estimates: Tensor, sources: Tensor, mixture: Tensor) -> Tensor:
    """SI-SDRi in dB: SI-SDR of the estimates less that of the mixture taken as every estimate.

    Args:
        estimates: shape ``(batch, speakers, time)``.
        sources: shape ``(batch, speakers, time)``.
        mixture: shape ``(batch, 1, time)``.

    Returns:
        Shape ``(batch,)``.
    """
    return si_sdr(estimates, sources) - pairwise_si_sdr(mixture, sources).mean(dim=(1, 2))


def pairwise_snr(estimates: Tensor, sources: Tensor) -> Tensor:
    r"""SNR in dB of every estimate against every source, 10 log10(|s|^2 / |s - e|^2); it sees the scale.

    Args:
        estimates: separated signals, shape ``(batch, estimates, time)``.
        sources: reference signals, shape ``(batch, sources, time)``.

    Returns:
        Shape ``(batch, estimates, sources)``.
    """
    signal = sources.square().sum(-1)[:, None, :]
    noise = (estimates[:, :, None, :] - sources[:, None, :, :]).square().sum(-1)
    floor = _EPSILON * signal + _EPSILON**2
    return 10 * (torch.log10(signal + floor) - torch.log10(noise + floor))


def pit_snr_loss(estimates: Tensor, sources: Tensor) -> Tensor:
    """Negative permutation-invariant SNR in dB, averaged over speakers and the batch; shapes as in ``si_sdr``."""
    return -best_permutation(pairwise_snr(estimates, sources))[0].mean()
