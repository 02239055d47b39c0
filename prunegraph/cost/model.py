"""What any choice of channels costs: MACs, parameters and activation memory in closed form.

Every cost is a sum of products of sizes, and every size is a constant plus a number of kept channels. The sizes are
evaluated by one sparse product, the costs by one vectorised product over all terms: no re-tracing, no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from prunegraph.ir.cost import Cost, ModuleCost
from prunegraph.rules.base import Atoms, Product


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One product of sizes and the module that pays for it."""

    factors: Product
    module: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A value that takes memory from the step that makes it to the last step that reads it."""

    factors: Product
    bytes_per_element: int
    first: int
    last: int


class CostModel:
    """Costs of one network as functions of the kept channels."""

    def __init__(
        self,
        *,
        macs: Sequence[Term],
        parameters: Sequence[Term],
        memory: Sequence[Allocation],
        channel_of: NDArray[np.int64],
    ) -> None:
        sizes = SizeTable(channel_of)
        self._macs = Products([term.factors for term in macs], sizes)
        self._parameters = Products([term.factors for term in parameters], sizes)
        self._memory = Products([(item.bytes_per_element, *item.factors) for item in memory], sizes)
        self._first = np.array([item.first for item in memory], np.int64)
        self._last = np.array([item.last for item in memory], np.int64)
        self._modules = list(dict.fromkeys(term.module for term in (*macs, *parameters)))
        number = {module: i for i, module in enumerate(self._modules)}
        self._payer_of_macs = np.array([number[term.module] for term in macs], np.int64)
        self._payer_of_parameters = np.array([number[term.module] for term in parameters], np.int64)
        self._sizes = sizes.compiled()

    def evaluate(self, kept: NDArray[np.bool_]) -> Cost:
        """Cost when channel i of the network stays where ``kept[i]``, shape ``(channels,)``."""
        sizes = self._sizes(kept)
        macs, parameters = self._macs(sizes), self._parameters(sizes)
        count = len(self._modules)
        macs_by_module = np.bincount(self._payer_of_macs, macs, count)
        parameters_by_module = np.bincount(self._payer_of_parameters, parameters, count)
        return Cost(
            macs=round(macs.sum()),
            parameters=round(parameters.sum()),
            activation_bytes=self._peak(self._memory(sizes)),
            modules=tuple(
                ModuleCost(module=name, macs=round(m), parameters=round(p))
                for name, m, p in zip(self._modules, macs_by_module, parameters_by_module, strict=True)
            ),
        )

    def macs_and_parameters(self, kept: NDArray[np.bool_]) -> tuple[float, float]:
        """Only the two totals that a search for a budget needs."""
        sizes = self._sizes(kept)
        return float(self._macs(sizes).sum()), float(self._parameters(sizes).sum())

    def _peak(self, sizes: NDArray[np.float64]) -> int:
        if not len(sizes):
            return 0
        change = np.zeros(self._last.max() + 2)
        np.add.at(change, self._first, sizes)
        np.add.at(change, self._last + 1, -sizes)
        return int(change.cumsum().max())


class SizeTable:
    """Numbers the distinct sizes; size 0 is the constant 1, used as padding."""

    def __init__(self, channel_of: NDArray[np.int64]) -> None:
        self._channel_of = channel_of
        self._numbers: dict[bytes | int, int] = {1: 0}
        self._by_identity: dict[int, tuple[Atoms, int]] = {}
        self._constants: list[int] = [1]
        self._channels: list[NDArray[np.int64]] = [np.empty(0, np.int64)]

    def number(self, factor: int | Atoms) -> int:
        """Number of the size in what `compiled` evaluates."""
        if not isinstance(factor, np.ndarray):
            return self._add(int(factor), int(factor), np.empty(0, np.int64))
        known = self._by_identity.get(id(factor))
        if known is None:
            channels = np.sort(self._channel_of[factor])
            free = channels[channels >= 0]
            known = factor, self._add(channels.tobytes(), len(channels) - len(free), free)
            self._by_identity[id(factor)] = known
        return known[1]

    def _add(self, key: bytes | int, constant: int, channels: NDArray[np.int64]) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self._constants)
            self._constants.append(constant)
            self._channels.append(channels)
        return self._numbers[key]

    def compiled(self) -> "_Sizes":
        """All sizes as one function of the kept channels."""
        width = int(self._channel_of.max(initial=-1)) + 1
        rows = np.repeat(np.arange(len(self._channels)), [len(channels) for channels in self._channels])
        columns = np.concatenate(self._channels)
        matrix = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(self._channels), max(width, 1)))
        return _Sizes(np.array(self._constants, np.float64), matrix)


class _Sizes:
    def __init__(self, constants: NDArray[np.float64], matrix: csr_matrix) -> None:
        self._constants, self._matrix = constants, matrix
        self._varies = np.diff(matrix.indptr) > 0

    def __call__(self, kept: NDArray[np.bool_], *, block: int = 1) -> NDArray[np.float64]:
        """Every size; those that channels make up are rounded up to multiples of ``block``."""
        values = np.zeros(self._matrix.shape[1])
        values[: len(kept)] = kept
        sizes = np.asarray(self._constants + self._matrix @ values)
        return sizes if block == 1 else np.where(self._varies, np.ceil(sizes / block) * block, sizes)


class Products:
    """Many products of sizes, padded to one rectangular table of size numbers."""

    def __init__(self, products: Sequence[Product], sizes: SizeTable) -> None:
        numbers = [[sizes.number(factor) for factor in product] for product in products]
        longest = max(map(len, numbers), default=1)
        self._table = np.zeros((len(products), longest), np.int64)
        for row, listed in zip(self._table, numbers, strict=True):
            row[: len(listed)] = listed

    def __call__(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """The products, shape ``(products,)``."""
        return np.asarray(sizes[self._table].prod(axis=1))
