"""Where in the user's code a recorded network is: the module that runs, and the line."""

import linecache
import os
import sys
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from prunegraph.capture import conversions, numbers_in_arrays, tracked, transparency
from prunegraph.ir.trace import Site

_LIBRARY_FOLDERS = tuple(f"{Path(file).resolve().parents[1]}{os.sep}" for file in (torch.nn.__file__, __file__))
_OUR_NETWORKS = f"{Path(__file__).resolve().parents[1] / 'models'}{os.sep}"

_ASKED_FOR_USER = (conversions.__file__, numbers_in_arrays.__file__, tracked.__file__, transparency.__file__)
"""Files of ours that compute with sizes on behalf of the code that called them."""


class Whereabouts:
    """Follows a run of a network.

    Args:
        kinds: the class of every module by its path.
    """

    def __init__(self, kinds: Mapping[str, type]) -> None:
        self._packages = {path: frozenset(_packages(kind)) for path, kind in kinds.items()}
        self._running: list[str] = []
        self._failure: tuple[BaseException, str] | None = None

    def enter(self, path: str) -> None:
        """A module begins."""
        self._running.append(path)

    def leave(self) -> None:
        """The module that began last ends, be it by an error, of which the first module that it leaves is kept."""
        error = sys.exc_info()[1]
        if error is not None and (self._failure is None or self._failure[0] is not error):
            self._failure = error, self._module()
        if len(self._running) > 1:
            self._running.pop()

    def site(self) -> Site:
        """The line that runs."""
        return self._site(_outwards(sys._getframe(1)), self._module())

    def failure_site(self, error: BaseException) -> Site:
        """The line in which the error was raised."""
        known = self._failure is not None and self._failure[0] is error
        frames = reversed([*traceback.walk_tb(error.__traceback__)])
        return self._site(frames, self._failure[1] if self._failure and known else self._module())

    def _module(self) -> str:
        return self._running[-1] if self._running else ""

    def _site(self, frames: Iterable[tuple[types.FrameType, int]], module: str) -> Site:
        """The innermost frame of the package of the module's class, or of any that is neither ours nor torch's.

        What the package calls, such as einops, says less of the network than the line that calls it.
        """
        own, first = self._packages.get(module), None
        users = ((frame, line) for frame, line in frames if not is_library(frame.f_code.co_filename))
        for frame, line in users:
            place = frame.f_code.co_filename, line
            first = first or place
            if not own or _package(frame.f_globals.get("__name__", "")) in own:
                break
        else:
            place = first or ("", 0)
        file, line = place
        return Site(module=module, file=file, line=line, code=linecache.getline(file, line).strip() if file else "")


def is_asked_by_user() -> bool:
    """Whether the comparison under way was written in the user's code, not in a library that it calls."""
    frames = (frame.f_code.co_filename for frame, _ in _outwards(sys._getframe(2)))
    file = next((file for file in frames if file not in _ASKED_FOR_USER), None)
    return file is not None and not is_library(file)


def is_library(file: str) -> bool:
    """Whether a source file belongs to torch, to prunegraph but for its networks, or to no file at all."""
    return file.startswith((*_LIBRARY_FOLDERS, "<")) and not file.startswith(_OUR_NETWORKS)


def _outwards(frame: types.FrameType | None) -> Iterator[tuple[types.FrameType, int]]:
    """A running frame, then the one that called it, and so on, with their lines."""
    while frame is not None:
        yield frame, frame.f_lineno
        frame = frame.f_back


def _packages(kind: type) -> set[str]:
    """Of the class and those that it is made of, but for torch's own."""
    return {_package(base.__module__) for base in kind.__mro__} - {"torch", "builtins"}


def _package(module: str) -> str:
    return module.partition(".")[0]
