"""Random networks that once failed, as hypothesis printed them, by what was wrong."""

from types import MappingProxyType

from tests.properties.networks import Block, Join, NetworkSpec

REGRESSIONS: MappingProxyType[str, NetworkSpec] = MappingProxyType(
    {
        "cost of an einsum that sums over one kept index": NetworkSpec(
            Block("StateSpace", 4, (("run", "convolution"), ("gated", False))), seed=7
        ),
        "cost of a product of two vectors of one kept element": NetworkSpec(
            Block("NormedWeight", 4, (("norm", "spectral"), ("manner", "parametrized"), ("layer", "conv"))), seed=0
        ),
        "a branch on two shapes that become equal": NetworkSpec(
            Block("CheckedSizes", 6, (("check", "shape branch"),)), seed=3
        ),
        "a slice up to a multiple of a size that becomes less than all": NetworkSpec(
            Block("Hierarchical", 4, (("slices", "index"),)), seed=0
        ),
        "a contradiction of sizes that few random choices show": NetworkSpec(
            Join(
                "Chain",
                (
                    Block("Assign", 6, (("make", "new_zeros by shape"), ("write", "halves of channels"))),
                    Block("Conv", 4, (("kernel", 3), ("dilation", 1), ("padding", "number"), ("bias", True))),
                ),
            ),
            width=4,
            time=8,
            seed=0,
        ),
    }
)
