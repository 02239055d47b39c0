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
        without_rule: ops that prunegraph has no rule for -> number of calls.
        unused: parameters and buffers that the forward pass never reads.
        verification: the checks made on the result.
    """

    criterion: str
    dense: Cost
    pruned: Cost
    widths: dict[str, tuple[int, int]]
    coverage: float
    locked: tuple[LockedGroup, ...]
    without_rule: dict[str, int]
    unused: frozenset[str]
    verification: VerificationReport
