"""What the original implementations compute on weights and waveforms that formulas give.

Each JSON file under ``golden/`` holds a published configuration, the number of parameters, the names and shapes of the
checkpoint's tensors in their order, and samples of outputs in float64, with the standard deviation of each source.
Weights and inputs are exact: any implementation can make them.
"""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunegraph.models import AFRCNN, SuDoRMRF, TDANet

CLASSES: Mapping[str, type[nn.Module]] = {"tdanet": TDANet, "afrcnn12": AFRCNN, "sudormrf": SuDoRMRF}
CASES = ("A", "AB", "odd", "quiet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Samples of an output: ``indices`` along time; for each source of each item in turn ``std`` and ``values``."""

    indices: list[int]
    std: list[float]
    values: list[list[float]]

    def distance(self, actual: Tensor) -> float:
        """Largest difference, in standard deviations of the source. ``actual``: ``(batch, sources, time)``."""
        samples = actual.double().flatten(0, 1)[:, self.indices]
        expected = torch.tensor(self.values, dtype=torch.float64)
        return float(((samples - expected).abs().amax(dim=1) / torch.tensor(self.std, dtype=torch.float64)).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One file under ``golden/``, but for ``outputs`` all of case A.

    Attributes:
        config: arguments of the class.
        parameters: number of parameter elements.
        tensors: shapes by name.
        buffers: which of the tensors are no parameters.
        outputs: by case.
        first_block: what the first (or the recurrent) block gives when it is first called, samples of the flat tensor.
        pruned: the output without the channels 3, 7, 11, ... of SepPrune's groups.
        pruned_parameters: number of parameter elements then.
    """

    config: dict[str, int]
    parameters: int
    tensors: dict[str, list[int]]
    buffers: list[str]
    outputs: dict[str, Output]
    first_block: Output
    pruned: Output
    pruned_parameters: int


@functools.cache
def reference(name: str) -> Reference:
    """The file's content."""
    content: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text("utf-8"))
    pruned = content.pop("pruned")
    outputs = {case: Output(**output) for case, output in content.pop("outputs").items()}
    return Reference(
        outputs=outputs,
        first_block=Output(**content.pop("first_block")),
        pruned=Output(**pruned["output"]),
        pruned_parameters=pruned["parameters"],
        **content,
    )


@functools.cache
def published(name: str) -> nn.Module:
    """The network in its published configuration, with the formula's weights; shared, so never change it."""
    model = CLASSES[name](**reference(name).config).eval()
    with torch.no_grad():
        for position, (key, parameter) in enumerate(model.named_parameters()):
            parameter.copy_(weights(position, key, parameter.shape))
    return model


def weights(position: int, key: str, shape: torch.Size) -> Tensor:
    """The values of the parameter that stands at ``position`` among the parameters of the checkpoint."""
    n, k = np.arange(math.prod(shape), dtype=np.int64), position + 1
    noise = ((48271 * n * n + 69621 * k * n + 16807 * k) % 1000003) / 1000003 * 2 - 1
    fan_in = math.prod(shape[1:])
    if len(shape) > 1:
        values = noise * (math.sqrt(3 / fan_in) if fan_in > 1 else 0.6)
    elif tuple(shape) == (1,):
        values = 0.25 + 0.1 * noise
    else:
        values = 1 + 0.2 * noise if key.endswith((".gamma", ".weight")) else 0.1 * noise
    return torch.from_numpy(values).float().view(shape)


@functools.cache
def waveform(case: str) -> Tensor:
    """The float32 input of a case, ``(batch, 1, time)``."""
    t, turn = np.arange(16000) / 16000, 2 * np.pi
    a = 0.5 * np.sin(turn * (200 * t + 900 * t**2)) + 0.3 * np.sin(turn * (3000 * t - 1200 * t**2) + 0.7)
    b = 0.4 * np.sin(turn * (500 * t + 1500 * t**2) + 0.3) + 0.35 * np.sin(turn * (150 * t + 100 * t**2))
    b = b * (0.6 + 0.4 * np.sin(turn * 3 * t))
    first, second = (torch.from_numpy(x).float()[None, None] for x in (a, b))
    cases = {
        "A": first,
        "AB": torch.cat([first, second]),
        "odd": first[..., :15877],
        "quiet": (first.double() * 1e-4).float(),
    }
    return cases[case]
