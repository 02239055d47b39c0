"""Imports torchaudio beside CPU-only torch.

The torchaudio wheel on the package index is linked to CUDA and does not load without it. Only its compiled
extension is missing then, which no model of it uses, so a stand-in for the loader of that extension is enough.
"""

import importlib
import sys
import types

import torch


def _no_extension(*_: object) -> None:
    """Stands for a function of torchaudio's compiled extension."""


def _stub() -> types.ModuleType:
    stub = types.ModuleType("torchaudio._extension")
    contents = {
        "_IS_TORCHAUDIO_EXT_AVAILABLE": False,
        "_IS_ALIGN_AVAILABLE": False,
        "_load_lib": lambda _name: False,
        "fail_if_no_align": lambda function: function,
        "_check_cuda_version": _no_extension,
    }
    vars(stub).update(contents)
    return stub


def import_torchaudio() -> types.ModuleType:
    """Returns torchaudio, without its compiled extension where torch has no CUDA."""
    if torch.version.cuda is None:
        sys.modules.setdefault("torchaudio._extension", _stub())
    return importlib.import_module("torchaudio")
