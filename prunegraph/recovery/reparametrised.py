"""Weights that are computed from parameters, such as those under weight norm, as plain ones for the time of a fit."""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_weight_norm
from torch.nn.utils.weight_norm import WeightNorm


def make_plain(network: nn.Module) -> Mapping[str, str]:
    """Turns, in place, each computed weight that can be set to any values into a parameter.

    Returns:
        Name of the weight -> name of the parameter of its shape from which it was computed.
    """
    found = dict(_settable(network))
    for weight in found:
        module, name = _place(network, weight)
        if any(isinstance(hook, WeightNorm) and hook.name == name for hook in module._forward_pre_hooks.values()):
            remove_weight_norm(module, name)
        elif parametrize.is_parametrized(module):
            _remove_parametrizations(module)
    return found


@torch.no_grad()
def set_weights(network: nn.Module, plain: nn.Module, computed: Mapping[str, str]) -> None:
    """Gives a network the weights that its plain form has.

    Args:
        network: changed in place.
        plain: a copy of it, made plain, whose parameters have other values now.
        computed: what `make_plain` returned for it.
    """
    parameters = dict(network.named_parameters())
    for name, value in plain.named_parameters():
        if name in computed:
            _set(*_place(network, name), value.detach())
        else:
            parameters[name].copy_(value)


def _settable(network: nn.Module) -> Iterator[tuple[str, str]]:
    for path, module in network.named_modules():
        prefix = f"{path}." if path else ""
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                yield f"{prefix}{hook.name}", f"{prefix}{hook.name}_v"
        names = tuple(getattr(module, "parametrizations", ()))
        sources = {name: _source(module, name) for name in names}
        if all(sources[name] is not None and _keeps_what_is_set(module, name) for name in names):
            yield from ((f"{prefix}{name}", f"{prefix}parametrizations.{name}.{sources[name]}") for name in names)


def _remove_parametrizations(module: nn.Module) -> None:
    """Unlike torch's own function it leaves the class alone, which copies of the module share."""
    values = {
        name: getattr(module, name).detach().clone() for name in module.get_submodule("parametrizations")._modules
    }
    plain_class = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    module.__class__ = plain_class
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def _source(module: nn.Module, name: str) -> str | None:
    """The parameter of the weight's own shape."""
    shape = getattr(module, name).shape
    originals = module.get_submodule(f"parametrizations.{name}").named_parameters(recurse=False)
    return next((source for source, tensor in originals if tensor.shape == shape), None)


@torch.no_grad()
def _keeps_what_is_set(module: nn.Module, name: str) -> bool:
    """Whether any values can be set: under weight norm they can, a spectral norm is always 1."""
    tried = copy.deepcopy(module).eval()
    before: Tensor = getattr(tried, name)
    other = before * torch.linspace(1, 2, before.numel()).reshape(before.shape).to(before)
    try:
        setattr(tried, name, other)
    except Exception:  # whatever a parametrization without an inverse raises
        return False
    return torch.allclose(getattr(tried, name), other, rtol=1e-4)


def _set(module: nn.Module, name: str, value: Tensor) -> None:
    if parametrize.is_parametrized(module, name):
        setattr(module, name, value)
        return
    hook = next(h for h in module._forward_pre_hooks.values() if isinstance(h, WeightNorm) and h.name == name)
    getattr(module, f"{name}_v").copy_(value)
    getattr(module, f"{name}_g").copy_(torch.norm_except_dim(value, 2, hook.dim))


def _place(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, last = name.rpartition(".")
    return network.get_submodule(path), last
