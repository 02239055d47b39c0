"""What a network costs to run and to keep."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCost:
    """One module's own share, without its children's.

    Attributes:
        module: dotted path.
        macs: multiply-accumulate operations of one forward pass of the example.
        parameters: number of parameter elements.
    """

    module: str
    macs: int
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of one forward pass of the example.

    Attributes:
        macs: multiply-accumulate operations (one multiplication and one addition count as one).
        parameters: number of parameter elements.
        activation_bytes: peak of the memory held by intermediate values in inference, each freed after its last use.
        modules: the shares of the modules that own parameters or compute.
    """

    macs: int
    parameters: int
    activation_bytes: int
    modules: tuple[ModuleCost, ...]

    def __str__(self) -> str:
        return f"{self.macs:,} MACs, {self.parameters:,} parameters, {self.activation_bytes:,} bytes of activations"

    def by_stage(self) -> Mapping[str, ModuleCost]:
        """Sums over the network's direct children: encoder, separator, decoder and the like."""
        totals: dict[str, ModuleCost] = {}
        for item in self.modules:
            stage = item.module.partition(".")[0] or "(network)"
            old = totals.get(stage, ModuleCost(module=stage, macs=0, parameters=0))
            totals[stage] = ModuleCost(
                module=stage, macs=old.macs + item.macs, parameters=old.parameters + item.parameters
            )
        return totals
