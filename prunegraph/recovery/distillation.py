"""Learning from the dense network: its output and its features."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunegraph.errors import InputError
from prunegraph.recovery.settings import RecoverySettings

Loss = Callable[[Any, Any], Tensor]


def feature_difference(ours: Tensor, theirs: Tensor) -> Tensor:
    r"""How differently two networks see the same audio at one place.

    Features of equal shape are compared as they are, ``|a - b|^2 / |b|^2``. Along dimensions that shrank their energy
    is averaged, and what remains, a map over time and batch, is compared: ``|A / |A| - B / |B||^2``.

    Args:
        ours: features of the smaller network.
        theirs: features of the teacher, of the same number of dimensions.

    Reference:
        Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, activation-based transfer.
    """
    shrunk = [dim for dim, (n, m) in enumerate(zip(ours.shape, theirs.shape, strict=True)) if n != m]
    if not shrunk:
        return torch.sum((ours - theirs).square()) / torch.sum(theirs.square()).clamp_min(1e-12)
    maps = [features.square().mean(shrunk) for features in (ours, theirs)]
    first, second = (found / found.square().sum().sqrt().clamp_min(1e-12) for found in maps)
    return torch.sum((first - second).square())


@contextmanager
def features_of(network: nn.Module, paths: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Collects the outputs of some modules while the network runs; of a tuple, the first tensor.

    Raises:
        InputError: the network has no such module.
    """
    modules = dict(network.named_modules())
    found: dict[str, Tensor] = {}
    missing = [path for path in paths if path not in modules]
    if missing:
        raise InputError(f"there is no module {missing[0]!r} whose features could be compared")
    hooks = [modules[path].register_forward_hook(_keeper(path, found)) for path in paths]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _keeper(path: str, found: dict[str, Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        found[path] = output[0] if isinstance(output, tuple) else output

    return keep


def distillation_loss(
    output: Any,
    features: Mapping[str, Tensor],
    teacher: Callable[[], Any],
    teacher_network: nn.Module,
    settings: RecoverySettings,
    loss: Loss,
) -> Tensor:
    """Weighted loss against the teacher's output, and differences to its features.

    Args:
        output: of the smaller network.
        features: of the smaller network, by module.
        teacher: runs the teacher on the same inputs.
        teacher_network: what ``teacher`` runs.
        settings: the weights.
        loss: takes outputs and targets to a scalar.
    """
    with torch.no_grad(), features_of(teacher_network, settings.features) as theirs:
        target = teacher()
    parts = [settings.feature_weight * feature_difference(features[path], theirs[path]) for path in settings.features]
    if settings.waveform_weight > 0:
        parts.append(settings.waveform_weight * loss(output, target))
    return torch.stack(parts).sum()
