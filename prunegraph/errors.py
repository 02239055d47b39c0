"""The exception tree: every error that prunegraph raises on purpose."""


class PrunegraphError(Exception):
    """Root of all errors of prunegraph; its message says what was wrong, where, and what to do."""


class InputError(PrunegraphError, ValueError):
    """An argument does not fit: wrong example inputs, names that match nothing, an option out of range."""


class CaptureError(PrunegraphError, RuntimeError):
    """The network could not be recorded; names the module path and the user's source line.

    Attributes:
        failure: what failed, and where, without the advice.
        line: file and line of the user's code, where they are known.
        module: path of the innermost running module.
    """

    def __init__(
        self, failure: str, advice: str = "", line: tuple[str, int] | None = None, module: str | None = None
    ) -> None:
        super().__init__(f"{failure}\n{advice}" if advice else failure)
        self.failure, self.line, self.module = failure, line, module


class UnsupportedModelError(PrunegraphError, TypeError):
    """The network is of a kind that cannot be pruned as it is: quantised, on meta device, lazily initialised."""


class BudgetError(PrunegraphError, ValueError):
    """The budget is malformed or cannot be met; gives the reachable range."""


class CriterionError(PrunegraphError, ValueError):
    """An importance criterion cannot serve the request or returned something else than scores."""


class PluginError(PrunegraphError, RuntimeError):
    """A plug-in is unknown, broken or clashes with another."""


class PlanError(PrunegraphError, ValueError):
    """A pruning plan does not belong to this network or contradicts itself."""


class SurgeryError(PrunegraphError, RuntimeError):
    """The smaller network could not be made from the plan."""


class VerificationError(PrunegraphError, AssertionError):
    """The pruned network is not the one that was chosen; names the first diverging node and its source line.

    Attributes:
        groups: names of the channel groups that were pruned and that the failing code has to do with.
    """

    def __init__(self, message: str, groups: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.groups = groups


class FileFormatError(PrunegraphError, ValueError):
    """A saved result is cut, changed, of another version or of another network; names what differs."""


class DataError(PrunegraphError, OSError):
    """Audio or a corpus is missing or cannot be read; names the file and the mend."""


class MissingPackageError(PrunegraphError, ImportError):
    """An optional package is not installed; names it and the extra that brings it."""
