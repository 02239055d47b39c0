"""The separators that are trained and pruned in the benchmarks: two speakers at 8 kHz, sizes that a CPU can train."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.compiled_tasnet import compiled_for_training
from prunegraph.models import AFRCNN, SuDoRMRF, TDANet
from prunegraph.models.torchaudio_models import conv_tasnet

SAMPLE_RATE = 8000


@dataclass(frozen=True, slots=True)
class SeparatorKind:
    """How a separator is built.

    Attributes:
        build: makes the network.
        sizes: arguments of ``build`` for a new training.
        for_training: a form of the network that shares its parameters and may train faster.
    """

    build: Callable[..., nn.Module]
    sizes: Mapping[str, int]
    for_training: Callable[[nn.Module], nn.Module] = lambda network: network


SEPARATORS: Mapping[str, SeparatorKind] = {
    "conv-tasnet": SeparatorKind(
        conv_tasnet,
        {"kernel": 64, "hidden": 160, "bottleneck": 96, "layers": 6, "stacks": 2},
        compiled_for_training,
    ),
    "sudormrf": SeparatorKind(
        SuDoRMRF,
        {
            "out_channels": 64,
            "in_channels": 128,
            "num_blocks": 6,
            "upsampling_depth": 4,
            "enc_num_basis": 128,
            "enc_kernel_size": 41,
        },
    ),
    "afrcnn": SeparatorKind(
        AFRCNN,
        {
            "out_channels": 64,
            "in_channels": 96,
            "num_blocks": 4,
            "upsampling_depth": 4,
            "enc_num_basis": 128,
            "enc_kernel_size": 41,
        },
    ),
    "tdanet": SeparatorKind(
        TDANet,
        {
            "out_channels": 64,
            "in_channels": 128,
            "num_blocks": 3,
            "upsampling_depth": 4,
            "enc_kernel_size": 8,
            "sample_rate": SAMPLE_RATE,
        },
    ),
}


def load_separator(weights: Path) -> nn.Module:
    """A trained separator in evaluation mode, from its weights and the settings beside them."""
    settings = json.loads(weights.with_suffix(".json").read_text())
    network = SEPARATORS[settings["separator"]].build(**settings["network"])
    network.load_state_dict(load_file(weights))
    return network.eval()


def demo_separator() -> tuple[nn.Module, Tensor]:
    """The committed Conv-TasNet and an example of its input, for the commands of prunegraph."""
    return load_separator(Path(__file__).parent / "demo" / "conv_tasnet_8k.safetensors"), torch.zeros(1, 1, SAMPLE_RATE)
