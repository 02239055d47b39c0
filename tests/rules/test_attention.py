from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from prunegraph.rules.attention import RULES
from tests.rules.oracle import Study, randoms

HEADS = {"q.0 k.0 v.0 out.0": 2, "q.1 k.1 v.1 out.1": 4}


def attention(*shapes: tuple[int, ...], **options: Any) -> Study:
    return Study(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options),
        **dict(zip("qkv", randoms(*shapes), strict=True)),
    )


SHAPES = ((2, 4, 3, 6), (2, 4, 5, 6), (2, 4, 5, 8))


def test_widths_are_contracted_and_sources_locked() -> None:
    study = attention(*SHAPES)
    assert study.free == {**HEADS, "q.2 out.2": 3, "q.3 k.3": 6, "v.3 out.3": 8}
    assert set(study.locked) == {"k.2", "v.2"}
    study.check()


@pytest.mark.parametrize("scale", [None, 0.3])
def test_the_default_scale_follows_the_kept_width(scale: float | None) -> None:
    """Sliced attention divides by the square root of its own width; a fixed scale stays."""
    attention(*SHAPES, scale=scale).check(seeds=10)
    study = attention((1, 1, 3, 6), (1, 1, 5, 6), (1, 1, 5, 2), scale=scale)
    assert study.free["q.3 k.3"] == 6
    study.check(seeds=10)


def test_a_scale_computed_from_the_width_follows_it() -> None:
    q, k, v = randoms(*SHAPES)
    study = Study(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5), q=q, k=k, v=v)
    assert study.free["q.3 k.3"] == 6
    study.check(seeds=10)


def test_a_causal_mask_locks_targets() -> None:
    study = attention((2, 4, 5, 6), *SHAPES[1:], is_causal=True)
    assert study.free == {**HEADS, "q.3 k.3": 6, "v.3 out.3": 8}
    assert set(study.locked) == {"q.2", "k.2", "v.2"}
    study.check()


@pytest.mark.parametrize(
    ("shape", "free", "locked"),
    [
        ((3, 5), {"q.2 mask.0 out.2": 3}, {"mask.1"}),
        ((4, 1, 5), {"q.1 k.1 v.1 mask.0 out.1": 4, "q.2 out.2": 3}, {"mask.2"}),
        ((2, 1, 3, 5), {"q.0 k.0 v.0 mask.0 out.0": 2, "q.2 mask.2 out.2": 3}, {"mask.3"}),
    ],
)
def test_masks_broadcast(shape: tuple[int, ...], free: dict[str, int], locked: set[str]) -> None:
    q, k, v, mask = randoms(*SHAPES, shape)
    study = Study(
        lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask), q=q, k=k, v=v, mask=mask
    )
    assert free.items() <= study.free.items()
    assert study.free["q.3 k.3"] == 6
    assert set(study.locked) == {"k.2", "v.2", *locked}
    study.check()


def test_a_single_head_of_keys_serves_all_queries() -> None:
    study = attention((2, 4, 3, 6), (2, 1, 5, 6), (2, 1, 5, 8))
    assert study.free["q.1 out.1"] == 4
    study.check()


def test_grouped_heads_go_with_the_head_that_serves_them() -> None:
    study = attention((2, 6, 3, 6), (2, 3, 5, 6), (2, 3, 5, 8), enable_gqa=True)
    assert study.free["q.1 k.1 v.1 out.1"] == 3
    study.check()
    assert attention((2, 6, 3, 6), (2, 1, 5, 6), (2, 1, 5, 8), enable_gqa=True).free["q.1 out.1"] == 6


def test_cost_is_that_of_both_products() -> None:
    study = attention(*SHAPES)
    with FlopCounterMode(display=False) as counter:
        study.function(**study.operands)
    assert study.macs() == 2 * 4 * 3 * 5 * (6 + 8) == counter.get_total_flops() // 2


def test_gradients_reach_the_keep_values() -> None:
    """One step of finite differences against autograd, at relaxed keep values."""
    study = attention((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4))
    program = study.masked(study.draw(0))
    keep = torch.linspace(0.3, 1.0, len(study.sink.parent), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: program(k, *study.operands.values()), keep)
    (gradient,) = torch.autograd.grad(program(keep, *study.operands.values())[0].sum(), keep)
    width = study.labels["q"][3]
    assert width is not None
    assert gradient[study.sink.roots(width)].abs().min() > 0


@pytest.mark.parametrize("name", ["_native_multi_head_attention", "_transformer_encoder_layer_fwd"])
def test_fused_layers_lock(name: str) -> None:
    assert "fused" in RULES[getattr(torch.ops.aten, name)].reason  # type: ignore[attr-defined]


def test_a_fused_layer_locks_every_weight() -> None:
    x, w, b, u, d = randoms((1, 3, 4), (12, 4), (12,), (4, 4), (4,))
    study = Study(
        lambda x, w, b, u, d: torch.ops.aten._native_multi_head_attention(x, x, x, 4, 2, w, b, u, d, None, False)[0],
        x=x,
        w=w,
        b=b,
        u=u,
        d=d,
    )
    assert study.free == {}
    assert set(study.locked) == {"x.1", "x.2", "w.0", "w.1", "b.0", "u.0", "u.1", "d.0"}
