from collections.abc import Callable
from math import log2
from typing import Any

import pytest
import torch

from prunegraph.ir.sizes import Attribute
from prunegraph.rules.spectral import fft_macs
from tests.rules.oracle import Study, randoms

_HANN = torch.hann_window(8, dtype=torch.float64)


def stft(x: torch.Tensor, w: torch.Tensor, **options: Any) -> torch.Tensor:
    return torch.stft(x, 8, 4, window=w, **{"center": False, "return_complex": True, **options})


def complexes(*shape: int) -> torch.Tensor:
    real, imaginary = randoms(shape, shape)
    return torch.complex(real, imaginary)


@pytest.mark.parametrize("return_complex", [True, False])
@pytest.mark.filterwarnings("ignore:stft with return_complex=False")
def test_stft_passes_the_batch_and_locks_time(return_complex: bool) -> None:
    (x,) = randoms((3, 32))
    study = Study(lambda x, w: stft(x, w, return_complex=return_complex), x=x, w=_HANN)
    assert study.free == {"x.0 out.0": 3}
    assert set(study.locked) == {"x.1", "w.0"}
    assert "Fourier" in study.locked["x.1"]
    study.check()


def test_stft_of_one_signal() -> None:
    (x,) = randoms((32,))
    study = Study(stft, x=x, w=_HANN)
    assert study.free == {}
    assert set(study.locked) == {"x.0", "w.0"}


def test_istft_passes_the_batch_and_locks_frequencies_and_frames() -> None:
    study = Study(
        lambda x: torch.istft(x, 8, 4, window=torch.hann_window(8, dtype=torch.float64)), x=complexes(3, 5, 7)
    )
    assert study.free == {"x.0 out.0": 3}
    assert set(study.locked) == {"x.1", "x.2"}
    study.check()


FFT: list[tuple[Callable[..., torch.Tensor], tuple[int, ...], dict[str, int], set[str]]] = [
    (lambda x: torch.fft.fft(x), (3, 4, 8), {"x.0 out.0": 3, "x.1 out.1": 4}, {"x.2"}),
    (lambda x: torch.fft.rfft(x, dim=1), (3, 4, 8), {"x.0 out.0": 3, "x.2 out.2": 8}, {"x.1"}),
    (lambda x: torch.fft.ifft(x, n=6), (3, 4, 8), {"x.0 out.0": 3, "x.1 out.1": 4}, {"x.2"}),
    (lambda x: torch.fft.irfft(x, n=6, dim=-2), (3, 4, 8), {"x.0 out.0": 3, "x.2 out.2": 8}, {"x.1"}),
    (lambda x: torch.fft.rfft2(x), (3, 4, 8), {"x.0 out.0": 3}, {"x.1", "x.2"}),
    (lambda x: torch.fft.fftn(x, s=(4, 4)), (3, 4, 8), {"x.0 out.0": 3}, {"x.1", "x.2"}),
    (lambda x: torch.fft.fftn(x, dim=(0,)), (3, 4, 8), {"x.1 out.1": 4, "x.2 out.2": 8}, {"x.0"}),
    (lambda x: torch.fft.ifftn(x), (3, 4), {}, {"x.0", "x.1"}),
    (lambda x: torch.fft.hfft(x), (3, 4), {"x.0 out.0": 3}, {"x.1"}),
    (lambda x: torch.fft.fftshift(x, dim=1), (3, 4), {"x.0 out.0": 3}, {"x.1"}),
    (lambda x: torch.fft.ifftshift(x), (3, 4), {}, {"x.0", "x.1"}),
]


@pytest.mark.parametrize(("function", "shape", "free", "locked"), FFT, ids=range(len(FFT)))
def test_fft_locks_what_it_transforms(
    function: Callable[..., torch.Tensor], shape: tuple[int, ...], free: dict[str, int], locked: set[str]
) -> None:
    (x,) = randoms(shape)
    study = Study(function, x=x)
    assert study.free == free
    assert set(study.locked) == locked
    study.check()


def test_complex_views_move_the_pair() -> None:
    (x,) = randoms((3, 4, 2))
    study = Study(lambda x: torch.view_as_real(torch.view_as_complex(x) * 1j), x=x)
    assert study.free == {"x.0 out.0": 3, "x.1 out.1": 4}
    assert set(study.locked) == {"x.2"}
    study.check()


def test_complex_products_are_masked() -> None:
    study = Study(lambda a, b: torch.einsum("ij,jk->ik", a, b), a=complexes(3, 6), b=complexes(6, 4))
    assert study.free == {"a.0 out.0": 3, "a.1 b.0": 6, "b.1 out.1": 4}
    study.check()


def test_frequencies_are_fixed() -> None:
    (x,) = randoms((5,))
    study = Study(lambda x: x * torch.fft.rfftfreq(8), x=x)
    assert study.locked == {"x.0": "meets a value of fixed size"}


@pytest.mark.parametrize(("size", "real", "macs"), [(8, False, 48), (8, True, 24), (512, True, 4608), (1, True, 0)])
def test_macs_of_one_transform(size: int, real: bool, macs: int) -> None:
    """Half of ``n log2 n`` butterflies of four real products each."""
    assert fft_macs(size, real=real) == macs


def test_cost_of_stft_is_a_window_and_a_transform_per_frame() -> None:
    (x,) = randoms((3, 32))
    study = Study(stft, x=x, w=_HANN)
    frames = (32 - 8) // 4 + 1
    assert study.macs() == 3 * frames * (8 + 8 * 3)
    keep = study.draw(0)
    assert study.macs(keep) == int(keep[study.labels["x"][0]].sum()) * frames * (8 + 8 * 3)


def test_cost_of_istft_is_a_transform_and_a_window_per_frame() -> None:
    study = Study(
        lambda x: torch.istft(x, 8, 4, window=torch.hann_window(8, dtype=torch.float64)), x=complexes(3, 5, 7)
    )
    assert study.macs() == 3 * 7 * (8 + 8 * 3)


def test_cost_of_fft_counts_the_longer_side() -> None:
    (x,) = randoms((3, 4, 8))
    assert Study(lambda x: torch.fft.rfft(x), x=x).macs() == 3 * 4 * 8 * 3
    assert Study(lambda x: torch.fft.fft2(x), x=x).macs() == 3 * 2 * 32 * 5
    assert Study(lambda x: torch.fft.irfft(x), x=x).macs() == 3 * 4 * round(14 * log2(14))
    assert Study(lambda x: torch.fft.fftshift(x), x=x).macs() == 0


class _Spectrum(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.size = 8
        self.gain = torch.nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stft(x, self.size, 4, window=torch.hann_window(self.size), center=False, return_complex=True)


def test_a_length_read_from_an_attribute_stays() -> None:
    study = Study(_Spectrum(), x=torch.randn(2, 32))
    assert (Attribute("function", "size", 8), None, 8) in study.sink.required
