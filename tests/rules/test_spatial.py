from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.rules.oracle import Study, randoms


def check(study: Study, free: dict[str, int], locked: set[str]) -> None:
    """The couplings, what is locked, and that slicing agrees with the masked form."""
    assert study.free == free
    assert set(study.locked) == locked
    study.check()


SPACE = {1: (8,), 2: (8, 6), 3: (8, 6, 4)}
ONE_OUTPUT: list[tuple[int, Callable[..., Any]]] = [
    (1, lambda x: F.max_pool1d(x, 2)),
    (2, lambda x: F.max_pool2d(x, 3, stride=1, padding=1)),
    (3, lambda x: F.max_pool3d(x, 2)),
    (1, lambda x: F.avg_pool1d(x, 2)),
    (2, lambda x: F.avg_pool2d(x, (2, 3))),
    (3, lambda x: F.avg_pool3d(x, 2)),
    (1, lambda x: F.adaptive_avg_pool1d(x, 3)),
    (2, lambda x: F.adaptive_avg_pool2d(x, (3, 2))),
    (3, lambda x: F.adaptive_avg_pool3d(x, 2)),
    (2, lambda x: F.lp_pool2d(x.abs(), 2, 2)),
    (1, lambda x: F.interpolate(x, scale_factor=2)),
    (2, lambda x: F.interpolate(x, scale_factor=2)),
    (3, lambda x: F.interpolate(x, scale_factor=2)),
    (1, lambda x: F.interpolate(x, size=5, mode="linear")),
    (1, lambda x: F.interpolate(x, size=5, mode="area")),
    (1, lambda x: F.interpolate(x, size=5, mode="nearest-exact")),
    (2, lambda x: F.interpolate(x, size=(5, 3), mode="bilinear", align_corners=True)),
    (2, lambda x: F.interpolate(x, size=5, mode="bicubic")),
    (2, lambda x: F.interpolate(x, size=5, mode="bilinear", antialias=True)),
    (3, lambda x: F.interpolate(x, size=3, mode="trilinear")),
    (1, lambda x: torch._C._nn.upsample_nearest1d(x, (16,), None)),  # type: ignore[attr-defined]
]


@pytest.mark.parametrize(("spatial", "function"), ONE_OUTPUT, ids=range(len(ONE_OUTPUT)))
def test_batch_and_channels_pass_and_space_locks(spatial: int, function: Callable[..., Any]) -> None:
    (x,) = randoms((2, 3, *SPACE[spatial]))
    check(Study(function, x=x), {"x.0 out.0": 2, "x.1 out.1": 3}, {f"x.{2 + dim}" for dim in range(spatial)})


def test_unbatched_pooling() -> None:
    (x,) = randoms((3, 8, 6))
    check(Study(lambda x: F.max_pool2d(x, 2), x=x), {"x.0 out.0": 3}, {"x.1", "x.2"})


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool2d(x, (1, 2)),
        lambda x: F.avg_pool2d(x, (1, 3), stride=(1, 1), padding=(0, 1)),
        lambda x: F.interpolate(x, scale_factor=(1, 2)),
        lambda x: F.interpolate(x, scale_factor=(1, 2), mode="bilinear"),
        lambda x: F.interpolate(x, size=(x.shape[2], 9)),
        lambda x: F.adaptive_avg_pool2d(x, (x.shape[2], 2)),
    ],
)
def test_a_window_of_one_place_passes(function: Callable[..., Any]) -> None:
    (x,) = randoms((2, 3, 5, 6))
    study = Study(function, x=x)
    assert study.free == {"x.0 out.0": 2, "x.1 out.1": 3, "x.2 out.2": 5}
    assert set(study.locked) == {"x.3"}
    if "shape" not in function.__code__.co_names:
        study.check()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool2d(x, (1, 2), stride=2),
        lambda x: F.avg_pool2d(x, 1, stride=2),
        lambda x: F.max_pool2d(x, (1, 2), return_indices=True)[0],
        lambda x: F.interpolate(x, size=(5, 9)),
        lambda x: F.adaptive_avg_pool2d(x, (5, 2)),
    ],
)
def test_a_stride_or_a_size_in_the_code_locks(function: Callable[..., Any]) -> None:
    (x,) = randoms((2, 3, 5, 6))
    check(Study(function, x=x), {"x.0 out.0": 2, "x.1 out.1": 3}, {"x.2", "x.3"})


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool2d(x, 2, return_indices=True),
        lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True),
    ],
)
def test_places_of_maxima_have_the_channels_of_the_maxima(function: Callable[..., Any]) -> None:
    (x,) = randoms((2, 3, 8, 6))
    free = {"x.0 out0.0 out1.0": 2, "x.1 out0.1 out1.1": 3}
    check(Study(function, x=x), free, {"x.2", "x.3"})


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_unpooling_matches_values_and_places(spatial: int) -> None:
    (x,) = randoms((2, 3, *SPACE[spatial]))
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[spatial]
    unpool = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}[spatial]
    values, places = pool(x, 2, return_indices=True)
    study = Study(lambda v, i: unpool(v, i, 2), v=values, i=places)
    assert study.free == {"v.0 i.0 out.0": 2, "v.1 i.1 out.1": 3}
    assert {"v.2", "i.2"} <= set(study.locked)
    study.check()


def test_random_windows_lock() -> None:
    (x,) = randoms((2, 3, 8, 8))
    study = Study(lambda x: F.fractional_max_pool2d(x, 2, output_size=3), x=x)
    assert study.free == {}
    assert set(study.locked) == {"x.0", "x.1", "x.2", "x.3"}


def test_unfolding_repeats_channels_per_tap() -> None:
    (x,) = randoms((2, 3, 5, 4))
    study = Study(lambda x: F.unfold(x, (2, 3)), x=x)
    check(study, {"x.0 out.0": 2, "x.1 out.1": 3}, {"x.2", "x.3"})
    channels, columns = study.labels["x"][1], study.outputs[0][1]
    assert channels is not None
    assert columns is not None
    assert columns.tolist() == [channel for channel in channels.tolist() for _ in range(6)]
    check(Study(lambda x: F.unfold(x[0], 2), x=x[:1]), {"x.1 out.0": 3}, {"x.2", "x.3"})


def test_folding_couples_the_taps_of_a_channel() -> None:
    (x,) = randoms((2, 3 * 6, 4 * 2))
    study = Study(lambda x: F.fold(x, (5, 4), (2, 3)), x=x)
    check(study, {"x.0 out.0": 2, "x.1 out.1": 3}, {"x.2"})
    (y,) = randoms((2, 6, 4 * 2))
    check(Study(lambda x: F.fold(x, (5, 4), (2, 3)), x=y), {"x.0 out.0": 2}, {"x.1", "x.2"})


@pytest.mark.parametrize(
    ("dim", "free"),
    [
        (-1, {"x.0 out.0": 2, "x.1 out.1": 3}),
        (1, {"x.0 out.0": 2, "x.2 out.2": 8}),
    ],
)
def test_windows_lock_their_dimension(dim: int, free: dict[str, int]) -> None:
    (x,) = randoms((2, 3, 8))
    check(Study(lambda x: x.unfold(dim, 2, 1), x=x), free, {f"x.{dim % 3}"})


def test_pixel_shuffle_couples_the_parts_of_a_channel() -> None:
    x, y = randoms((2, 12, 3, 5), (12, 3, 5))
    check(Study(lambda x: F.pixel_shuffle(x, 2), x=x), {"x.0 out.0": 2, "x.1 out.1": 3}, {"x.2", "x.3"})
    check(Study(lambda x: F.pixel_shuffle(x, 2), x=y), {"x.0 out.0": 3}, {"x.1", "x.2"})
    check(Study(lambda x: F.pixel_shuffle(x, 2), x=x[:, :4]), {"x.0 out.0": 2}, {"x.1", "x.2", "x.3"})


def test_pixel_unshuffle_spreads_a_channel() -> None:
    (x,) = randoms((2, 3, 4, 6))
    check(Study(lambda x: F.pixel_unshuffle(x, 2), x=x), {"x.0 out.0": 2, "x.1 out.1": 3}, {"x.2", "x.3"})


def test_channel_shuffle_keeps_as_many_of_each_group() -> None:
    (x,) = randoms((2, 12, 5))
    study = Study(lambda x: F.channel_shuffle(x, 3), x=x)
    check(study, {"x.0 out.0": 2, "x.1 out.1": 4, "x.2 out.2": 5}, set())
    check(Study(lambda x: F.channel_shuffle(x, 12), x=x), {"x.0 out.0": 2, "x.2 out.2": 5}, {"x.1"})


@pytest.mark.parametrize("spatial", [2, 3])
def test_sampling_at_a_grid(spatial: int) -> None:
    x, g = randoms((2, 3, *(5,) * spatial), (2, *(4,) * spatial, spatial))
    study = Study(lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False), x=x, g=g)
    places = {f"g.{1 + dim} out.{2 + dim}": 4 for dim in range(spatial)}
    locked = {*(f"x.{2 + dim}" for dim in range(spatial)), f"g.{spatial + 1}"}
    check(study, {"x.0 g.0 out.0": 2, "x.1 out.1": 3, **places}, locked)


def test_affine_grids_keep_their_batch() -> None:
    (t,) = randoms((2, 2, 3))
    study = Study(lambda t: F.affine_grid(t, [t.shape[0], 1, 4, 5], align_corners=False), t=t)
    assert study.free == {"t.0 out.0": 2}
    assert set(study.locked) == {"t.1", "t.2"}
    fixed = Study(lambda t: F.affine_grid(t, [2, 1, 4, 5], align_corners=False), t=t)
    assert set(fixed.locked) == {"t.0", "t.1", "t.2"}
