"""Recurrent networks: LSTM, GRU and plain RNN, over whole sequences and step by step; packed sequences.

Hidden unit j owns row j of every gate block of ``weight_ih``, ``weight_hh`` and the biases, and column j of what reads
it: ``weight_hh``, and ``weight_ih`` of the next layer. torch gives all layers and both directions of one module the
same width, so they share one set of units. With a projection the *cell width* (gates, cell state, columns of
``weight_hr``) and the *output width* (rows of ``weight_hr``, columns of ``weight_hh``, outputs) are two sets of units,
each unit of the output going with one of the cell, since the output must stay the narrower one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from prunegraph.rules.base import Atoms, Call, Labels, Masker, Product, Rule
from prunegraph.rules.locking import fixed_numbers
from prunegraph.rules.pointwise import FIXED_SIZE

aten = torch.ops.aten

_TIME = "a recurrence runs along this dimension"
_INPUT = "takes a fixed number of input features"
_NARROWER = "a projection must be narrower than the cell"
_PACKED = "packing a sequence sorts places in time and batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """The weights of one layer in one direction."""

    weight_ih: fx.Node
    weight_hh: fx.Node
    biases: tuple[fx.Node, ...]
    weight_hr: fx.Node | None

    @property
    def matrices(self) -> tuple[fx.Node, ...]:
        projection = () if self.weight_hr is None else (self.weight_hr,)
        return (self.weight_ih, self.weight_hh, *projection)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Widths:
    """Atoms of the hidden units: of the cell state and of what is given out (the same without a projection)."""

    cell: Atoms | None
    output: Atoms | None


class Recurrent(Rule):
    """``aten.lstm``, ``gru``, ``rnn_tanh``, ``rnn_relu`` on padded sequences or, as ``.data``, on packed ones.

    input ``(time, batch, features)``, or batch first, or packed ``(steps, features)``; hx and the final states
    ``(layers * directions, batch, width)``. In the masked form the columns of every weight matrix are multiplied by
    the keep values of the units they read, so that an absent unit reaches no present one.

    Args:
        gates: gate blocks in the rows of the weights.
    """

    def __init__(self, gates: int) -> None:
        self.gates = gates

    def labels(self, call: Call) -> tuple[Labels, ...]:
        layers, directions = _layers(call), 2 if call["bidirectional"] else 1
        widths = _couple_units(call, self.gates, [cell for layer in layers for cell in layer])
        into = call.labels(_sequence(call))[-1]
        both = _tiled(widths.output, directions)
        for layer in layers:
            for cell in layer:
                call.match(into, call.labels(cell.weight_ih)[1], _INPUT)
            into = both
        lead, batch = _lead(call)
        return ((*lead, both), *_states(call, widths, batch))

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        # cuDNN differentiates recurrent layers in training mode only; without dropout the two modes are equal.
        mode = {} if call["train"] else {"train": True, "dropout": 0.0}
        return mask.rerun(params=[_columns_kept(call, mask, node) for node in call["params"]], **mode)

    def macs(self, call: Call) -> Sequence[Product]:
        steps = call.sizes(_sequence(call))[:-1]
        return [(*steps, *call.sizes(node)) for node in call["params"] if len(call.shape(node)) == 2]


def _sequence(call: Call) -> str:
    """Name of the argument that holds the sequences: they are packed where it is ``data``."""
    return "data" if "data" in call.arguments else "input"


def _layers(call: Call) -> list[list[_Cell]]:
    """The flat list of weights as cells by layer and direction."""
    count = call["num_layers"] * (2 if call["bidirectional"] else 1)
    each = len(call["params"]) // count
    flat = [call["params"][start : start + each] for start in range(0, len(call["params"]), each)]
    cells = [_cell(part, bool(call["has_biases"])) for part in flat]
    directions = count // call["num_layers"]
    return [cells[start : start + directions] for start in range(0, count, directions)]


def _cell(weights: Sequence[fx.Node], has_biases: bool) -> _Cell:
    biases, rest = (weights[2:4], weights[4:]) if has_biases else ((), weights[2:])
    return _Cell(weight_ih=weights[0], weight_hh=weights[1], biases=tuple(biases), weight_hr=rest[0] if rest else None)


def _couple_units(call: Call, gates: int, cells: Sequence[_Cell]) -> _Widths:
    rows = [node for cell in cells for node in (cell.weight_ih, cell.weight_hh, *cell.biases)]
    recurrent = [call.labels(cell.weight_hh)[1] for cell in cells]
    units = [_units(call, call.labels(node)[0], gates) for node in rows]
    projections = [call.labels(cell.weight_hr) for cell in cells if cell.weight_hr is not None]
    if not projections:
        width = _all_matched(call, [*units, *recurrent])
        return _Widths(cell=width, output=width)
    cell = _all_matched(call, [*units, *(columns for _, columns in projections)])
    output = _all_matched(call, [*recurrent, *(rows for rows, _ in projections)])
    _keep_wider(call, cell, output)
    return _Widths(cell=cell, output=output)


def _keep_wider(call: Call, cell: Atoms | None, output: Atoms | None) -> None:
    """Torch takes a projection for none where it does not narrow, so one unit of the cell must be without partner."""
    if cell is None:
        return
    partners, rest = np.split(cell, [1 if output is None else len(output)])
    call.match(partners, output, _NARROWER)
    call.lock(rest[:1], _NARROWER)


def _units(call: Call, rows: Atoms | None, gates: int) -> Atoms | None:
    """Couples row j of every gate block; the rows of the first block stand for all."""
    if rows is None or len(rows) == gates:
        call.lock(rows, "the only unit of a recurrent layer")
        return None
    first, *others = np.split(rows, gates)
    for block in others:
        call.sink.unite(first, block)
    return first


def _all_matched(call: Call, all_atoms: Iterable[Atoms | None]) -> Atoms | None:
    first, *rest = all_atoms
    for atoms in rest:
        first = call.match(first, atoms, FIXED_SIZE)
    return first


def _tiled(atoms: Atoms | None, times: int) -> Atoms | None:
    return None if atoms is None else np.tile(atoms, times)


def _lead(call: Call) -> tuple[Labels, Atoms | None]:
    """Labels of time and batch as the output has them, and those of the batch."""
    *lead, _ = call.labels(_sequence(call))
    if _sequence(call) == "data":
        call.lock_all([*lead, *call.labels("batch_sizes")], _PACKED)
        return (None,), None
    batch = 0 if call["batch_first"] else 1
    call.lock(lead[1 - batch], _TIME)
    lead[1 - batch] = None
    return tuple(lead), lead[batch]


def _states(call: Call, widths: _Widths, batch: Atoms | None) -> tuple[Labels, ...]:
    """Labels of the final states, which the initial ones must fit."""
    initial = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    states: list[Labels] = []
    for node, width in zip(initial, (widths.output, widths.cell), strict=False):
        layers, sequences, units = call.labels(node)
        call.lock(layers, "one state per layer and direction", is_channel=False)
        states.append((None, call.match(batch, sequences, FIXED_SIZE), call.match(width, units, FIXED_SIZE)))
    return tuple(states)


def _columns_kept(call: Call, mask: Masker, node: fx.Node) -> fx.Node:
    """A weight matrix with its columns multiplied by keep; a bias as it is."""
    labels = call.labels(node)
    value = mask.value(node)
    return mask.times_keep(value, 1, labels[1]) if len(labels) == 2 else value


class RecurrentCell(Rule):
    """``aten.lstm_cell``, ``gru_cell``, ``rnn_tanh_cell``, ``rnn_relu_cell``: one step.

    input ``(batch, features)``, hx and outputs ``(batch, width)``; units and masks as in `Recurrent`.
    """

    def __init__(self, gates: int) -> None:
        self.gates = gates

    def labels(self, call: Call) -> Any:
        biases = tuple(call[name] for name in ("b_ih", "b_hh") if call.get(name) is not None)
        cell = _Cell(weight_ih=call["w_ih"], weight_hh=call["w_hh"], biases=biases, weight_hr=None)
        width = _couple_units(call, self.gates, [cell]).output
        *lead, features = call.labels("input")
        call.match(features, call.labels("w_ih")[1], _INPUT)
        several = isinstance(call["hx"], list | tuple)
        states = [self._state(call, node, lead, width) for node in (call["hx"] if several else [call["hx"]])]
        return tuple(states) if several else states[0]

    def _state(self, call: Call, node: fx.Node, lead: Sequence[Atoms | None], width: Atoms | None) -> Labels:
        *rows, units = call.labels(node)
        matched = [call.match(a, b, FIXED_SIZE) for a, b in zip(lead, rows, strict=True)]
        return (*matched, call.match(width, units, FIXED_SIZE))

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        return mask.rerun(**{name: _columns_kept(call, mask, call[name]) for name in ("w_ih", "w_hh")})

    def macs(self, call: Call) -> Sequence[Product]:
        return [(*call.sizes("input")[:-1], *call.sizes(name)) for name in ("w_ih", "w_hh")]


class PackPadded(Rule):
    """``(time, batch, ...)`` -> packed ``(steps, ...)`` and the batch size of each step."""

    def labels(self, call: Call) -> tuple[Labels, Labels]:
        time, batch, *features = call.labels("input")
        call.lock_all([time, batch, *call.labels("lengths")], _PACKED)
        return (None, *features), (None,)


class PadPacked(Rule):
    """Packed ``(steps, ...)`` -> ``(time, batch, ...)`` and the length of each sequence."""

    def labels(self, call: Call) -> tuple[Labels, Labels]:
        steps, *features = call.labels("data")
        call.lock_all([steps, *call.labels("batch_sizes")], _PACKED)
        fixed_numbers(call, "total_length")
        return (None, None, *features), (None,)


_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}

RULES: dict[Any, Rule] = {
    **{getattr(aten, name).input: Recurrent(gates) for name, gates in _GATES.items()},
    **{getattr(aten, name).data: Recurrent(gates) for name, gates in _GATES.items()},
    **{getattr(aten, f"{name}_cell"): RecurrentCell(gates) for name, gates in _GATES.items()},
    aten._pack_padded_sequence: PackPadded(),
    aten._pad_packed_sequence: PadPacked(),
}
