"""The modes of a network: putting it into one, and whether it does something else in training."""

from collections.abc import Iterator
from types import CodeType
from typing import Any, TypeVar

from torch import nn

_ASKED = frozenset({"training", "requires_grad", "is_grad_enabled"})


Network = TypeVar("Network", bound=nn.Module)


def in_mode(network: Network, *, training: bool) -> Network:
    """The network in training or eval mode; what is in it already is left alone.

    Networks of the user's own may do more in ``train``, as clear a cache, and may forget to return themselves.
    """
    if any(module.training != training for module in network.modules()):
        network.train(training)
    return network


def asks_for_its_mode(model: nn.Module) -> bool:
    """Whether the code of a class of the network's own asks for its mode, or for gradients."""
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    own = [kind for kind in kinds if not kind.__module__.startswith("torch.")]
    return any(
        not _ASKED.isdisjoint(code.co_names) for kind in own for value in vars(kind).values() for code in _codes(value)
    )


def _codes(value: Any) -> Iterator[CodeType]:
    """The code of a function, method or property, and of what is defined in it."""
    for part in ("fget", "__func__", "__wrapped__"):
        value = getattr(value, part, value)
    code = value if isinstance(value, CodeType) else getattr(value, "__code__", None)
    if isinstance(code, CodeType):
        yield code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from _codes(constant)
