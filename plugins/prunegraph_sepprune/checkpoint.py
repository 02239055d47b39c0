"""An interrupted mask learning goes on to the bit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from prunegraph.errors import CriterionError

if TYPE_CHECKING:
    from prunegraph_sepprune.learning import MaskLearner


class Checkpoint:
    """The state of a learning in a file.

    Args:
        path: the file; None keeps nothing.
        run: what the state belongs to: settings, seed, budget and weights. Data are not compared, they may be shuffled.
    """

    def __init__(self, path: Path | None, run: Mapping[str, Any]) -> None:
        self._path = path
        self._run = json.dumps(run, sort_keys=True)

    def restore(self, learner: "MaskLearner") -> int:
        """Brings the learner to the stored state; returns the number of steps made, 0 without a file.

        Raises:
            CriterionError: the file belongs to another run.
        """
        if self._path is None or not self._path.exists():
            return 0
        try:
            with safe_open(self._path, "pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise CriterionError(f"{self._path} is no checkpoint of mask learning: {error}; remove it") from error
        shapes = {name: tensor.shape for name, tensor in learner.state().items()}
        if metadata.get("run") != self._run or {name: tensor.shape for name, tensor in state.items()} != shapes:
            raise CriterionError(f"{self._path} belongs to another run (settings, seed, budget or network); remove it")
        learner.load_state(state)
        return int(metadata["step"])

    def write(self, step: int, learner: "MaskLearner") -> None:
        """Stores the state; an interruption leaves the previous one whole."""
        if self._path is None:
            return
        unfinished = self._path.with_name(self._path.name + ".partial")
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in learner.state().items()}
        save_file(tensors, unfinished, {"run": self._run, "step": str(step)})
        unfinished.replace(self._path)
