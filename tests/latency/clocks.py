"""Times that are computed, not measured: what a table must find out again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import fx

from prunegraph.ir.trace import Trace, ValueSpec
from prunegraph.profiling.rehearsals import Rehearsal
from prunegraph.timing import Target

TARGET = Target(device="a clockwork", threads=3, torch="2.0")


@dataclass
class Clockwork:
    """Takes ``fixed + per_mac * MACs + per_byte * bytes`` for each call, and for the whole a half more and 1 ms.

    Attributes:
        block: convolutions do channels in blocks of this size.
        slowness: of each round in turn; the last one stays.
    """

    block: int = 1
    slowness: list[float] = field(default_factory=lambda: [1.0])
    target: Target = TARGET
    calls: int = 0

    def nodes(self, rehearsal: Rehearsal) -> Mapping[str, float]:
        return {name: self._slow(rehearsal) * taken for name, taken in self.exact(rehearsal.trace).items()}

    def forward(self, rehearsal: Rehearsal) -> float:
        self.calls += rehearsal.share == 1
        return self._slow(rehearsal) * self.whole(rehearsal.trace)

    def whole(self, trace: Trace) -> float:
        return 1e-3 + 1.5 * sum(self.exact(trace).values())

    def exact(self, trace: Trace) -> dict[str, float]:
        return {node.name: self._seconds(trace, node) for node in trace.graph.nodes if node.op == "call_function"}

    def _slow(self, rehearsal: Rehearsal) -> float:
        return self.slowness[min(max(self.calls - 1, 0), len(self.slowness) - 1)]

    def _seconds(self, trace: Trace, node: fx.Node) -> float:
        if node.target.__name__.startswith("conv1d"):
            return 2e-6 + 3e-9 * self._conv_macs(trace, node)
        return 1e-6 + 1e-9 * sum(self._bytes(trace, value) for value in (node, *node.all_input_nodes))

    def _conv_macs(self, trace: Trace, node: fx.Node) -> int:
        weight, output = trace.shape(node.args[1]), trace.shape(node)
        channels = [math.ceil(n / self.block) * self.block if n > 1 else n for n in weight[:2]]
        return channels[0] * channels[1] * weight[2] * output[0] * output[2]

    def _bytes(self, trace: Trace, node: fx.Node) -> int:
        value = trace.values[node.name]
        return 4 * math.prod(value.shape) if isinstance(value, ValueSpec) else 0
