"""Pointwise convolutions as matrix products compute what the convolutions do."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from prunegraph import optimize
from prunegraph.modules.pointwise import PointwiseConv1d, PointwiseConv2d

KINDS = {1: (nn.Conv1d, PointwiseConv1d), 2: (nn.Conv2d, PointwiseConv2d)}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("padding", [0, "same"])
@pytest.mark.parametrize("shape", [(3, 4, 21), (4, 21), (2, 4, 5, 7), (4, 5, 7)])
def test_the_values_are_those_of_the_convolution(shape: tuple[int, ...], padding, bias: bool) -> None:
    plain, product = KINDS[1 if len(shape) < 4 and shape != (4, 5, 7) else 2]
    convolution = plain(4, 6, 1, padding=padding, bias=bias, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    expected = convolution(x)
    assert product.fits(convolution)
    convolution.__class__ = product
    torch.testing.assert_close(convolution(x), expected)


@pytest.mark.parametrize(
    "x",
    [torch.randn(2, 7, 4).transpose(1, 2), torch.randn(2, 4, 14)[..., ::2], torch.randn(1, 4, 7).expand(2, -1, -1)],
)
def test_inputs_may_lie_in_memory_as_they_like(x: torch.Tensor) -> None:
    convolution = nn.Conv1d(4, 6, 1)
    expected = convolution(x)
    convolution.__class__ = PointwiseConv1d
    torch.testing.assert_close(convolution(x), expected)


def test_channels_last_stays_with_the_library() -> None:
    convolution, x = nn.Conv2d(4, 6, 1), torch.randn(2, 4, 5, 7).to(memory_format=torch.channels_last)
    expected = convolution(x)
    convolution.__class__ = PointwiseConv2d
    found = convolution(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv1d(4, 6, 3),
        nn.Conv1d(4, 6, 1, stride=2),
        nn.Conv1d(4, 6, 1, padding=1),
        nn.Conv1d(4, 6, 1, groups=2),
        nn.Conv2d(4, 6, (1, 3)),
        weight_norm(nn.Conv1d(4, 6, 1)),
        nn.ConvTranspose1d(4, 6, 1),
        nn.Conv3d(4, 6, 1),
        nn.Linear(4, 6),
    ],
)
def test_other_modules_stay_what_they_are(other: nn.Module) -> None:
    assert not PointwiseConv1d.fits(other)
    assert not PointwiseConv2d.fits(other)


def test_optimize_multiplies_in_its_own_network_only() -> None:
    model, x = nn.Sequential(nn.Conv1d(1, 6, 4), nn.Conv1d(6, 2, 1)).eval(), torch.randn(1, 1, 30)
    fast = optimize(model, x, measure_for=1e-9, compiled=False)
    assert [type(module) for module in fast.network] == [nn.Conv1d, PointwiseConv1d]
    assert [type(module) for module in model] == [nn.Conv1d, nn.Conv1d]
    torch.testing.assert_close(fast(x), model(x).detach())
