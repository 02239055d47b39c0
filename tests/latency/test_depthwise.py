"""Depthwise convolutions as multiplications compute what the convolutions do."""

import pytest
import torch
from torch import Tensor, nn

from prunegraph import optimize
from prunegraph.modules.depthwise import DepthwiseConv1d

SETTINGS = [
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2, "padding": 1},
    {"kernel_size": 1, "bias": False},
    {"kernel_size": 3, "padding": 4, "dilation": 4},
    {"kernel_size": 5, "padding": 1, "bias": False},
    {"kernel_size": 5, "stride": 2, "padding": 2},
]


@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("shape", [(2, 6, 21), (6, 20)])
def test_the_values_are_those_of_the_convolution(settings, shape, compiling, monkeypatch: pytest.MonkeyPatch) -> None:
    convolution = nn.Conv1d(6, 6, groups=6, dtype=torch.float64, **settings)
    x = torch.randn(shape, dtype=torch.float64)
    expected = convolution(x)
    assert DepthwiseConv1d.fits(convolution)
    convolution.__class__ = DepthwiseConv1d
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    torch.testing.assert_close(convolution(x), expected)


@pytest.mark.parametrize(("compiling", "settings", "library"), [(False, 3, True), (True, 3, False), (True, 5, True)])
def test_the_library_is_left_to_do_what_it_does_faster(
    compiling: bool, settings: int, library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    convolve = nn.Conv1d._conv_forward
    monkeypatch.setattr(nn.Conv1d, "_conv_forward", lambda *args: called.append(1) or convolve(*args))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    DepthwiseConv1d(6, 6, groups=6, **SETTINGS[settings])(torch.randn(1, 6, 30))
    assert bool(called) == library


class OfOnes(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv1d(6, 6, 1),
        nn.Conv1d(6, 12, 1, groups=6),
        nn.Conv1d(1, 1, 1),
        nn.Conv1d(6, 6, 3, padding="same", groups=6),
        nn.Conv1d(6, 6, 3, padding=1, padding_mode="reflect", groups=6),
        OfOnes(6, 6, 1, groups=6),
        nn.Conv2d(6, 6, 1, groups=6),
    ],
)
def test_other_modules_stay_what_they_are(other: nn.Module) -> None:
    assert not DepthwiseConv1d.fits(other)


def test_optimize_changes_its_own_network_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    model, x = nn.Sequential(nn.Conv1d(1, 6, 4), nn.Conv1d(6, 6, 1, groups=6)).eval(), torch.randn(1, 1, 30)
    fast = optimize(model, x, measure_for=1e-9)
    assert [type(module) for module in fast.network] == [nn.Conv1d, DepthwiseConv1d]
    assert [type(module) for module in model] == [nn.Conv1d, nn.Conv1d]
    torch.testing.assert_close(fast(x), model(x).detach())
