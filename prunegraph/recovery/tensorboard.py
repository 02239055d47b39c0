"""A TensorBoard log of a recovery; needs the extra ``tensorboard``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prunegraph.errors import InputError
from prunegraph.recovery.settings import Check


@contextmanager
def tensorboard_log(folder: Path) -> Iterator[Callable[[Check], None]]:
    """A ``progress`` for `prunegraph.recover` that writes loss, validation loss and learning rate.

    Example::

        with tensorboard_log(run / "log") as log:
            recover(network, data, run=run, progress=log)

    Args:
        folder: where the log goes; a resumed run adds to it.

    Raises:
        InputError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("a TensorBoard log needs TensorBoard: pip install 'prunegraph[tensorboard]'") from error
    writer = SummaryWriter(str(folder))

    def log(check: Check) -> None:
        values = {"loss": check.loss, "validation": check.validation, "learning_rate": check.learning_rate}
        for name, value in values.items():
            if value is not None:
                writer.add_scalar(name, value, check.step)
        writer.flush()

    try:
        yield log
    finally:
        writer.close()
