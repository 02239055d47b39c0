"""What went wrong and where, in words."""

import traceback

from torch import fx, nn

from prunegraph.graph import DependencyGraph


def describe(graph: DependencyGraph, node: fx.Node) -> str:
    """The call and the line of code that made it."""
    site = graph.trace.site(node)
    if node.op == "get_attr":
        return (
            f"{node.name}, a value that was not computed by torch calls that can be followed, such as one that went "
            f"through numpy, read by {describe(graph, _reader_in_code(graph, node))}"
        )
    return f"{node.name} ({node.target}) in {site}\n    {site.code}"


def advice(groups: tuple[str, ...]) -> str:
    """What to do about a size that could not be followed."""
    which = str(groups) if groups else "(...)"
    return (
        "The original runs: this line needs a size whose origin could not be followed. Read it from an attribute of "
        f"the module or from a shape, or keep the channels with Budget(exclude={which})"
    )


def innermost_module(network: nn.Module, error: BaseException) -> str:
    """Path of the last module whose code was running when the error was raised; empty for the network itself."""
    paths, found = {module: path for path, module in network.named_modules()}, ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        found = paths.get(owner, found) if isinstance(owner, nn.Module) else found
    return found


def _reader_in_code(graph: DependencyGraph, node: fx.Node) -> fx.Node:
    """The first node that reads the value, if need be through others, in a known line of code."""
    while (reader := next(iter(node.users), None)) is not None:
        node = reader
        if graph.trace.site(node).file:
            break
    return node
