from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

from tests.rules.oracle import Study, randoms

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
RUN: dict[str, Callable[..., Any]] = {name: getattr(torch._VF, name) for name in GATES}  # type: ignore[attr-defined]
CELL: dict[str, Callable[..., Any]] = {name: getattr(torch, f"{name}_cell") for name in GATES}


def weights(
    kind: str, *, inputs: int, units: int, layers: int, directions: int, biased: bool, projected: int
) -> dict[str, Any]:
    """Random weights by name, in torch's order."""
    out, gates = projected or units, GATES[kind]
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        for side in range(directions):
            suffix = f"{layer}{'r' if side else ''}"
            shapes[f"ih{suffix}"] = (gates * units, inputs if layer == 0 else directions * out)
            shapes[f"hh{suffix}"] = (gates * units, out)
            if biased:
                shapes[f"bi{suffix}"] = shapes[f"bh{suffix}"] = (gates * units,)
            if projected:
                shapes[f"hr{suffix}"] = (projected, units)
    return dict(zip(shapes, randoms(*shapes.values(), seed=1), strict=True))


def recurrent(
    kind: str,
    *,
    layers: int = 1,
    directions: int = 1,
    biased: bool = True,
    projected: int = 0,
    batch_first: bool = False,
    units: int = 5,
    time: int = 3,
) -> Study:
    """A recurrence over ``x`` from the states ``h`` and, for an LSTM, ``c``."""
    named = weights(
        kind, inputs=4, units=units, layers=layers, directions=directions, biased=biased, projected=projected
    )
    lead = (2, time) if batch_first else (time, 2)
    x, h, c = randoms((*lead, 4), (layers * directions, 2, projected or units), (layers * directions, 2, units))
    states = {"h": h, "c": c} if kind == "lstm" else {"h": h}

    def run(x: torch.Tensor, **rest: torch.Tensor) -> Any:
        given = [rest.pop(name) for name in states]
        hx = given if kind == "lstm" else given[0]
        params = list(rest.values())
        return RUN[kind](x, hx, params, biased, layers, 0.0, False, directions == 2, batch_first)

    return Study(run, x=x, **states, **named)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("biased", [True, False])
def test_a_unit_owns_a_row_of_every_gate(kind: str, biased: bool) -> None:
    study = recurrent(kind, biased=biased)
    state, outs = ("h.2 c.2", "out0.2 out1.2 out2.2") if kind == "lstm" else ("h.2", "out0.2 out1.2")
    biases = "bi0.0 bh0.0 " if biased else ""
    batch = "x.1 h.1 c.1 out0.1 out1.1 out2.1" if kind == "lstm" else "x.1 h.1 out0.1 out1.1"
    assert study.free == {batch: 2, "x.2 ih0.1": 4, f"{state} ih0.0 hh0.0 hh0.1 {biases}{outs}": 5}
    assert set(study.locked) == {"x.0"}
    study.check()


def test_rows_of_one_unit_are_a_block_apart() -> None:
    study = recurrent("gru")
    rows = study.labels["ih0"][0]
    assert rows is not None
    assert study.sink.roots(rows).reshape(3, 5).tolist() == [study.sink.roots(rows)[:5].tolist()] * 3


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("layers", "directions"), [(1, 2), (2, 1), (2, 2), (3, 2)])
def test_layers_and_directions_share_their_units(kind: str, batch_first: bool, layers: int, directions: int) -> None:
    study = recurrent(kind, layers=layers, directions=directions, batch_first=batch_first)
    assert sorted(study.free.values()) == [2, 4, 5]
    assert set(study.locked) == {f"x.{1 if batch_first else 0}", *(["h.0"] if layers * directions > 1 else [])} | (
        {"c.0"} if kind == "lstm" and layers * directions > 1 else set()
    )
    study.check()


@pytest.mark.parametrize(("layers", "directions", "biased"), [(1, 1, True), (1, 1, False), (2, 2, True)])
def test_a_projection_has_a_width_of_its_own(layers: int, directions: int, biased: bool) -> None:
    study = recurrent("lstm", layers=layers, directions=directions, biased=biased, projected=3)
    widths = {frozenset(key.split()): count for key, count in study.free.items()}
    cell, output = {"c.2", "hh0.0", "hr0.1", "out2.2"}, {"h.2", "hh0.1", "hr0.0", "out0.2", "out1.2"}
    assert [count for key, count in widths.items() if key >= cell | output] == [3]
    assert [count for key, count in widths.items() if key >= cell and not key & output] == [1]
    assert study.locked["hr0.1"] == "a projection must be narrower than the cell"
    study.check()


def test_a_single_unit_stays() -> None:
    study = recurrent("gru", units=1, directions=2)
    assert study.free == {"x.1 h.1 out0.1 out1.1": 2, "x.2 ih0.1 ih0r.1": 4}
    assert "ih0.0" in study.locked
    study.check()


def test_initial_states_of_fixed_width_lock_the_units() -> None:
    named = weights("gru", inputs=4, units=5, layers=1, directions=1, biased=True, projected=0)
    (x,) = randoms((3, 1, 4))

    def run(x: torch.Tensor, **params: torch.Tensor) -> Any:
        start = torch.arange(5, dtype=torch.float64).reshape(1, 1, 5)
        return RUN["gru"](x, start, list(params.values()), True, 1, 0.0, False, False, False)[0]

    study = Study(run, x=x, **named)
    assert study.free == {"x.2 ih0.1": 4}
    assert study.locked["hh0.1"] == "meets a value of fixed size"


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("biased", [True, False])
def test_a_cell_is_one_step(kind: str, biased: bool) -> None:
    rows = 5 * GATES[kind]
    named = dict(zip(["x", "h", "ih", "hh"], randoms((2, 4), (2, 5), (rows, 4), (rows, 5)), strict=True))
    if kind == "lstm":
        named |= {"c": randoms((2, 5), seed=2)[0]}
    if biased:
        named |= dict(zip(["bi", "bh"], randoms((rows,), (rows,), seed=3), strict=True))

    def step(x: Any, h: Any, ih: Any, hh: Any, c: Any = None, bi: Any = None, bh: Any = None) -> Any:
        return CELL[kind](x, h if c is None else [h, c], ih, hh, bi, bh)

    study = Study(step, **named)
    assert sorted(study.free.values()) == [2, 4, 5]
    assert study.locked == {}
    assert study.macs() == 2 * rows * (4 + 5)
    study.check()


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_packed_sequences_keep_their_features(kind: str) -> None:
    named = weights(kind, inputs=4, units=5, layers=1, directions=2, biased=True, projected=0)
    x, h, c = randoms((3, 2, 4), (2, 2, 5), (2, 2, 5))
    states = {"h": h, "c": c} if kind == "lstm" else {"h": h}

    def run(x: torch.Tensor, **rest: torch.Tensor) -> Any:
        packed = pack_padded_sequence(x, torch.tensor([3, 2]))
        given = [rest.pop(name) for name in states]
        hx = given if kind == "lstm" else given[0]
        data = RUN[kind](packed.data, packed.batch_sizes, hx, list(rest.values()), True, 1, 0.0, False, True)[0]
        return pad_packed_sequence(packed._replace(data=data))[0]

    study = Study(run, x=x, **states, **named)
    assert study.free["x.2 ih0.1 ih0r.1"] == 4
    assert sorted(study.free.values()) == [4, 5]
    assert {"x.0", "x.1", "h.1"} <= set(study.locked)
    assert study.macs() == 5 * 2 * (GATES[kind] * 5) * (4 + 5)
    study.check()


@pytest.mark.parametrize("kind", GATES)
def test_cost_counts_every_weight_at_every_step(kind: str) -> None:
    study = recurrent(kind, layers=2, directions=2, time=7)
    module = nn.LSTM(4, 5, 2, bidirectional=True) if kind == "lstm" else None
    matrices = 2 * GATES[kind] * 5 * ((4 + 5) + (10 + 5))
    assert module is None or matrices == sum(p.numel() for p in module.parameters() if p.dim() == 2)
    assert study.macs() == 7 * 2 * matrices


def test_cost_of_what_is_kept() -> None:
    study = recurrent("lstm", directions=2, projected=3)
    keep = study.draw(1)
    units, out, inputs = (
        int(keep[atoms].sum()) for atoms in (study.labels["hr0"][1], study.labels["hr0"][0], study.labels["ih0"][1])
    )  # type: ignore[index]
    sequences = int(keep[study.labels["x"][1]].sum())
    assert study.macs(keep) == 3 * sequences * 2 * (4 * units * (inputs + out) + out * units)


@pytest.mark.parametrize("kind", GATES)
def test_gradients_reach_the_keep_values(kind: str) -> None:
    study = recurrent(kind, layers=2)
    program = study.masked(study.draw(0))
    keep = torch.linspace(0.3, 1.0, len(study.sink.parent), dtype=torch.float64, requires_grad=True)
    outputs = pytree.tree_leaves(program(keep, *study.operands.values()))
    (gradient,) = torch.autograd.grad(sum(output.sum() for output in outputs), keep)
    units = study.labels["hh0"][1]
    assert units is not None
    assert gradient[study.sink.roots(units)].abs().min() > 0
