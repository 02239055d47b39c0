"""What came of a pruning: the checks that were made, and the report."""

from dataclasses import dataclass

from prunegraph.ir.channels import LockedGroup
from prunegraph.ir.cost import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was verified.

    Attributes:
        name: what was checked.
        detail: what was found.
    """

    name: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationReport:
    """All checks passed; a failed one raises instead.

    Attributes:
        checks: what was checked and found.
        difference: relative difference ``|pruned - masked| / |masked|`` of the outputs (Euclidean norms).
        tolerance: the greatest difference allowed.
    """

    checks: tuple[Check, ...]
    difference: float
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a pruning changed.

    Attributes:
        criterion: name of the importance criterion.
        dense: cost of the network before.
        pruned: cost after.
        widths: group name -> (channels before, channels after).
        coverage: share of the parameters that lie in prunable groups.
        locked: what could not be pruned, and why.
        unproved: groups that stayed since their removal could not be proved -> the check that failed.
        without_rule: ops that prunegraph has no rule for -> number of calls.
        unused: parameters and buffers that the forward pass never reads.
        verification: the checks made on the result.
        latency: predicted seconds before and after; None where no latency profile was given.
    """

    criterion: str
    dense: Cost
    pruned: Cost
    widths: dict[str, tuple[int, int]]
    coverage: float
    locked: tuple[LockedGroup, ...]
    unproved: dict[str, str]
    without_rule: dict[str, int]
    unused: frozenset[str]
    verification: VerificationReport
    latency: tuple[float, float] | None = None

    def __str__(self) -> str:
        """What changed, what could not, and what was proved, in a few lines."""
        kept, before = (sum(counts) for counts in zip(*((n, m) for m, n in self.widths.values()), strict=True))
        lines = [
            f"{kept} of {before} channels in {len(self.widths)} groups stay, chosen by {self.criterion}",
            _change("MACs", self.dense.macs, self.pruned.macs),
            _change("parameters", self.dense.parameters, self.pruned.parameters),
            _change("activation bytes", self.dense.activation_bytes, self.pruned.activation_bytes),
            *(f"latency by the profile: {1000 * t:.3g} -> {1000 * u:.3g} ms ({u / t:.1%})" for t, u in self._latencies),
            f"{self.coverage:.1%} of the parameters lie in prunable groups",
            *(f"locked: {group.name}, {group.width} channels: {group.locks[0]}" for group in self.locked),
            *(f"stays: {name}; its removal could not be proved: {failure}" for name, failure in self.unproved.items()),
            *(f"no rule for {op}, called {calls} times" for op, calls in self.without_rule.items()),
            *(f"checked: {check.name}: {check.detail}" for check in self.verification.checks),
        ]
        return "\n".join(lines)

    @property
    def _latencies(self) -> tuple[tuple[float, float], ...]:
        return () if self.latency is None else (self.latency,)


def _change(name: str, before: int, after: int) -> str:
    return f"{name}: {before:,} -> {after:,} ({after / max(before, 1):.1%})"
