"""Networks of one block, such that every value of every option occurs."""

from collections.abc import Iterator

from tests.properties.networks import BLOCKS, JOINS, Block, Join, NetworkSpec, choices

PART = Block("DepthwiseSeparableConv", 6, (("multiplier", 1), ("dilation", 1)))
OTHER_PART = Block("Norm", 4, (("kind", "batch"),))


def specs_of(kind: str, width: int = 6) -> Iterator[NetworkSpec]:
    """As many networks of the block or topology ``kind`` as its longest option has values; shorter ones start over."""
    options = choices(BLOCKS[kind] if kind in BLOCKS else JOINS[kind])
    for turn in range(max(map(len, options.values()), default=1)):
        chosen = tuple((name, values[turn % len(values)]) for name, values in options.items())
        body = Block(kind, width, chosen) if kind in BLOCKS else Join(kind, (PART, OTHER_PART), chosen)
        yield NetworkSpec(body, width=8, batch=2, time=11)
