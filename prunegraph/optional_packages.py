"""Packages that only some users need, imported when they are, with one clear line where they are missing."""

import importlib
import sys
from types import ModuleType

from prunegraph.errors import MissingPackageError


def import_optional(name: str, extra: str) -> ModuleType:
    """Imports a module of an optional package.

    Args:
        name: full name of the module.
        extra: the extra of prunegraph that brings the package.

    Raises:
        MissingPackageError: the package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingPackageError(
            f"The package {package} is needed for this and is not installed: pip install {package}, "
            f"or everything of this kind with pip install 'prunegraph[{extra}]'."
        ) from error


def import_torchaudio(name: str = "torchaudio") -> ModuleType:
    """Imports torchaudio, or a module of it, also beside a CPU-only torch.

    torchaudio's wheel is linked against CUDA and cannot load its compiled extension beside a CPU-only torch. Neither
    its networks nor its data sets need the extension, so an empty one stands in for it.

    Args:
        name: full name of the module, such as ``torchaudio.models``.

    Raises:
        MissingPackageError: torchaudio is not installed.
    """
    try:
        return import_optional(name, extra="demo")
    except OSError:
        for loaded in [module for module in sys.modules if module.partition(".")[0] == "torchaudio"]:
            del sys.modules[loaded]
        sys.modules["torchaudio._extension"] = _stand_in()
        return importlib.import_module(name)


def _stand_in() -> ModuleType:
    """Says that there is no extension, under every name that torchaudio asks for."""
    stand_in = ModuleType("torchaudio._extension")
    vars(stand_in).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _load_lib=lambda _name: False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=lambda function: function,
    )
    return stand_in
