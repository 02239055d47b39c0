"""Refuses, before any work, networks that cannot be recorded as they are."""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from prunegraph.capture.clone import registered_tensors
from prunegraph.capture.torch_internals import is_compiled
from prunegraph.errors import UnsupportedModelError


def check_model(model: nn.Module) -> None:
    """Raises `UnsupportedModelError`, with the mend, for a network that cannot be pruned as it is."""
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(f"expected a torch.nn.Module, got {type(model).__name__}")
    _refuse(_compiled_modules(model), "is compiled", "give the module it was made from and compile the result")
    scripted = [path for path, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    _refuse(scripted, "is scripted", "have PYTORCH_JIT=0 in the environment when the network is made")
    tensors = registered_tensors(model)
    _refuse([n for n, t in tensors.items() if is_lazy(t)], "is not initialised yet", "run the network once")
    _refuse([n for n, t in tensors.items() if t.is_meta], "is on the meta device", "load the weights first")
    _refuse([n for n, t in tensors.items() if t.is_quantized], "is quantised", "prune first and quantise the result")
    _refuse(_quantised_modules(model), "is a quantised module", "prune first and quantise the result")
    devices = sorted({str(t.device) for t in tensors.values()})
    if len(devices) > 1:
        raise UnsupportedModelError(f"the network lies on several devices ({', '.join(devices)}); move it to one")
    if not any(p.numel() for p in model.parameters()):
        raise UnsupportedModelError(f"{type(model).__name__} has no parameters: there is nothing to prune")


def _refuse(names: list[str], fault: str, mend: str) -> None:
    if names:
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise UnsupportedModelError(f"{names[0]}{more} {fault}; {mend}")


def _compiled_modules(model: nn.Module) -> list[str]:
    """Modules in the hands of torch.compile, and networks in those of TorchScript: their code is out of reach."""
    inside = [(path, m) for path, m in model.named_modules() if not (path and isinstance(m, torch.jit.ScriptModule))]
    return [path or "the network" for path, module in inside if is_compiled(module)]


def _quantised_modules(model: nn.Module) -> list[str]:
    return [path for path, m in model.named_modules() if ".quantized" in type(m).__module__ and _of_torch(m)]


def _of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")
