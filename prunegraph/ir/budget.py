"""`Budget`: how much of a network may stay, and under which conditions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import isfinite
from numbers import Integral, Real

from prunegraph.errors import BudgetError

_COSTS = {
    "macs": "the share that may stay, such as 0.5",
    "params": "the share that may stay, such as 0.5",
    "latency_ms": "milliseconds, such as 20",
    "rtf": "seconds per second of audio, such as 0.1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much of a network may stay.

    Costs are met from below. A cost of at most 1 is a share of the dense network's, a greater one is absolute.

    Attributes:
        macs: multiply-accumulate operations that may stay: 0.5 is half of the dense network's.
        params: parameter elements that may stay; may be combined with ``macs``.
        latency_ms: milliseconds that a forward pass of the example may take, by a `LatencyProfile` of the device;
            always absolute; may be combined with the other costs.
        rtf: real-time factor, seconds per second of audio, that may stay, by a profile that knows the sample rate.
        ratio: share of the channels to remove from every group alike, instead of a cost: 0.3 removes 30 %.
        threshold: every channel with at least this score stays, instead of a cost; the scores decide how much that is.
        round_to: widths become multiples of this where they shrink; 8 or 16 suit tensor cores.
        min_width: no group becomes narrower than this (or than it is).
        include: only groups with a name, module or tensor that matches one of these patterns are pruned; empty for all.
        exclude: groups that match one of these patterns stay whole, unless they are pinned.
        pin: pattern -> width that the matching groups get, whatever their scores; of several the last one holds.

    Raises:
        BudgetError: no cost is given, or a number is out of range.

    >>> Budget(macs=0.5, round_to=8).macs
    0.5
    """

    macs: float | None = None
    params: float | None = None
    latency_ms: float | None = None
    rtf: float | None = None
    ratio: float | None = None
    threshold: float | None = None
    round_to: int = 1
    min_width: int = 1
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    pin: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("include", "exclude"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))
            given = getattr(self, name)
            if not isinstance(given, Collection) or not all(isinstance(pattern, str) for pattern in given):
                raise BudgetError(f"{name}={given!r} must be patterns, such as {name}=('encoder.*',)")
        if self.has_costs + (self.ratio is not None) + (self.threshold is not None) != 1:
            raise BudgetError(
                "give a budget as macs=..., params=..., latency_ms=... and/or rtf=..., or as ratio=..., or as "
                "threshold=..."
            )
        for name, mend in _COSTS.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and 0 < float(value) < float("inf")):
                raise BudgetError(f"{name}={value!r} is out of range: give {mend}")
        if self.ratio is not None and not (isinstance(self.ratio, Real) and 0 <= self.ratio < 1):
            raise BudgetError(
                f"ratio={self.ratio!r} is out of range: give the share of channels to remove, 0 to below 1"
            )
        if self.threshold is not None and not (isinstance(self.threshold, Real) and isfinite(self.threshold)):
            raise BudgetError(f"threshold={self.threshold!r} must be a finite number")
        for name in ("round_to", "min_width"):
            if not _is_count(getattr(self, name)):
                raise BudgetError(f"{name}={getattr(self, name)!r} must be a whole number of at least 1")
        if not isinstance(self.pin, Mapping) or not all(map(_is_count, self.pin.values())):
            raise BudgetError(f"pin={self.pin!r} must be a dict of patterns and widths of at least 1")

    @property
    def has_costs(self) -> bool:
        """Whether the budget limits costs, which are met from below."""
        return any(getattr(self, name) is not None for name in _COSTS)

    @property
    def needs_profile(self) -> bool:
        """Whether only a latency profile can tell what the budget allows."""
        return self.latency_ms is not None or self.rtf is not None

    @property
    def allows_everything(self) -> bool:
        """Whether all may stay, by shares of 1, a ratio of 0, or a threshold."""
        if self.ratio is not None:
            return self.ratio == 0
        return self.threshold is not None or (not self.needs_profile and {self.macs, self.params} <= {None, 1})


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and int(value) >= 1
