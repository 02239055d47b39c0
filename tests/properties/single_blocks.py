"""Networks of one block: every value of every option, the other options at their first value."""

from collections.abc import Iterator

from tests.properties.networks import BLOCKS, JOINS, Block, Join, NetworkSpec, choices

PART = Block("DepthwiseSeparableConv", 6, (("multiplier", 1), ("dilation", 1)))
OTHER_PART = Block("Norm", 4, (("kind", "batch"),))


def specs_of(kind: str, width: int = 6) -> Iterator[NetworkSpec]:
    """A network per option value of the block or topology ``kind``."""
    options = choices(BLOCKS[kind] if kind in BLOCKS else JOINS[kind])
    first = {name: values[0] for name, values in options.items()}
    changed = [{**first, name: value} for name, values in options.items() for value in values[1:]]
    for chosen in [first, *changed]:
        items = tuple(chosen.items())
        body = Block(kind, width, items) if kind in BLOCKS else Join(kind, (PART, OTHER_PART), items)
        yield NetworkSpec(body, width=8, batch=2, time=11)
