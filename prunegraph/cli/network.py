"""Networks as users name them in a shell: ``package.module:factory``, a checkpoint, shapes of example inputs."""

import difflib
import importlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import safetensors.torch
import torch
import typer
from torch import nn

from prunegraph.errors import InputError

_PICKLED_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """What the user typed.

    Attributes:
        target: ``package.module:factory`` or ``path/to/file.py:factory``.
        kwargs: keyword arguments of the factory.
        checkpoint: a file with its weights.
        shapes: shapes of the example inputs; empty when the factory returns them.
        seed: of the factory's weights and of the example inputs.
    """

    target: str
    kwargs: Mapping[str, Any]
    checkpoint: Path | None
    shapes: tuple[tuple[int, ...], ...]
    seed: int = 0


def parse_shapes(texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Reads ``1,1,8000``.

    Raises:
        BadParameter: it is something else.
    """
    return tuple(_shape(text) for text in texts)


def parse_kwargs(text: str | None) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        BadParameter: it is something else.
    """
    try:
        value = {} if text is None else json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no JSON: {error}", param_hint="--kwargs") from error
    if not isinstance(value, dict):
        raise typer.BadParameter("""expected a JSON object such as '{"n_src": 2}'""", param_hint="--kwargs")
    return value


def open_network(request: NetworkRequest, dtype: torch.dtype | None = None) -> tuple[nn.Module, Any]:
    """The network with its weights, and example inputs: floats of ``dtype``, by default the network's own.

    Raises:
        InputError: module, factory or checkpoint are missing or fail, or there are no example inputs.
    """
    torch.manual_seed(request.seed)
    made = _called(request.target, _find(request.target), request.kwargs)
    model, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{request.target} returned {type(model).__name__}; expected a torch.nn.Module or (module, example inputs)"
        )
    if request.checkpoint is not None:
        _load_checkpoint(model, request.checkpoint)
    if request.shapes:
        return model, _random_inputs(request, dtype or _dtype(model.parameters()))
    if example is None:
        raise InputError(
            f"give --input-shape (as in 1,1,8000), or let {request.target} return (module, example inputs)"
        )
    return model, example


def floating_dtype(tensors: Mapping[str, torch.Tensor]) -> torch.dtype:
    """Element type of the first tensor of floats."""
    return _dtype(tensors.values())


def find_device(name: str | None) -> torch.device:
    """The device of that name; by default CUDA where there is one.

    Raises:
        InputError: there is none of that name.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise InputError(f"--device {name} cannot be had: {str(error).partition(chr(10))[0]}") from error
    return device


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(size) for size in text.strip("()[] ").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise typer.BadParameter(f"{text!r} is no shape; expected sizes such as 1,1,8000", param_hint="--input-shape")
    return shape


def _find(target: str) -> Any:
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise InputError(f"{target!r} names no network; expected package.module:factory or path/to/file.py:factory")
    found: Any = _module(place)
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, [known for known in vars(found) if not known.startswith("_")])
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise InputError(f"{place} has no {part!r}{hint}")
        found = getattr(found, part)
    return found


def _module(place: str) -> ModuleType:
    """Imported as Python itself would: relative to the working directory, or beside the given file."""
    file = Path(place)
    is_file = file.suffix == ".py"
    if is_file and not file.is_file():
        raise InputError(f"there is no file {place}")
    folder = str(file.resolve().parent) if is_file else str(Path.cwd())
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    try:
        return _from_file(file) if is_file else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        _refuse(f"{place} cannot be imported", error)


def _from_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _called(target: str, factory: Any, kwargs: Mapping[str, Any]) -> Any:
    if isinstance(factory, nn.Module):
        if kwargs:
            raise InputError(f"{target} is a network, not a factory, and takes no --kwargs")
        return factory
    if not callable(factory):
        raise InputError(f"{target} is of type {type(factory).__name__}; expected a function that makes a network")
    try:
        return factory(**kwargs)
    except (Exception, SystemExit) as error:
        _refuse(f"{target} failed", error)


def _refuse(what: str, error: BaseException) -> NoReturn:
    raise InputError(f"{what}: {type(error).__name__}: {error}{_where(error)}") from error


def _where(error: BaseException) -> str:
    """The innermost line of the user's own code."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and "site-packages" not in frame.filename
        and not frame.filename.startswith((str(Path(__file__).parent), str(Path(importlib.__file__ or "").parent)))
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def _load_checkpoint(model: nn.Module, file: Path) -> None:
    state = _without_prefix(_state_dict(file), model)
    try:
        keys = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise InputError(f"{file} does not fit {type(model).__name__}: {_listed(lines)}") from error
    faults = [
        f"{len(names)} {fault}: {_listed(names)}"
        for fault, names in (("missing keys", keys.missing_keys), ("unexpected keys", keys.unexpected_keys))
        if names
    ]
    if faults:
        raise InputError(f"{file} does not fit {type(model).__name__}: {'; '.join(faults)}")


def _without_prefix(state: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """As the network names its tensors, where a wrapper wrote ``module.`` or ``model.`` before every name."""
    names, first = model.state_dict().keys(), next(iter(state), "")
    for end in (i for i, letter in enumerate(first, 1) if letter == "."):
        shortened = {name.removeprefix(first[:end]): tensor for name, tensor in state.items()}
        if shortened.keys() == names:
            return shortened
    return state


def _state_dict(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise InputError(f"there is no checkpoint {file}")
    loaded = _read(file)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise InputError(f"{file} holds {type(loaded).__name__}; expected a state dict, or a dict with a 'state_dict'")
    return loaded


def _read(file: Path) -> Any:
    if file.suffix != ".safetensors" and file.suffix not in _PICKLED_SUFFIXES:
        raise InputError(f"{file} is of no known kind; expected .safetensors or {', '.join(_PICKLED_SUFFIXES)}")
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # errors of pickle, zip and safetensors alike, worded at length
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"the checkpoint {file} cannot be read ({reason}); it is damaged, or holds more than tensors: "
            "save model.state_dict() alone"
        ) from error


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _random_inputs(request: NetworkRequest, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(request.seed)
    try:
        return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in request.shapes)
    except (RuntimeError, TypeError) as error:  # more than there is memory for, or than torch can count
        shapes = " and ".join(",".join(map(str, shape)) for shape in request.shapes)
        raise InputError(f"no example input of shape {shapes} can be made; give a shorter one") from error


def _dtype(tensors: Any) -> torch.dtype:
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)
