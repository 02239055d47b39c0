"""torchaudio's Conv-TasNet, also beside a CPU-only torch."""

import importlib
import sys
from types import ModuleType

from torch import nn


def conv_tasnet(
    *,
    speakers: int = 2,
    kernel: int = 32,
    filters: int = 256,
    bottleneck: int = 128,
    hidden: int = 256,
    layers: int = 7,
    stacks: int = 2,
) -> nn.Module:
    """Makes a Conv-TasNet with ReLU masks.

    Args:
        speakers: number of outputs.
        kernel: length of the encoder's filters in samples; the stride is half of it.
        filters: number of the encoder's filters.
        bottleneck: channels between the blocks.
        hidden: channels within a block.
        layers: blocks in a stack; block i has dilation 2^i.
        stacks: number of stacks.

    Returns:
        A network that takes ``(batch, 1, time)`` to ``(batch, speakers, time)``.

    Reference:
        Luo and Mesgarani, "Conv-TasNet", IEEE/ACM TASLP 2019.
    """
    network: nn.Module = _torchaudio_models().ConvTasNet(
        num_sources=speakers,
        enc_kernel_size=kernel,
        enc_num_feats=filters,
        msk_num_feats=bottleneck,
        msk_num_hidden_feats=hidden,
        msk_num_layers=layers,
        msk_num_stacks=stacks,
        msk_activate="relu",
    )
    return network


def _torchaudio_models() -> ModuleType:
    """Imports ``torchaudio.models``.

    torchaudio's wheel is linked against CUDA and cannot load its extension beside a CPU-only torch. The networks do not
    need the extension, so an empty one stands in for it.
    """
    try:
        return importlib.import_module("torchaudio.models")
    except OSError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        stand_in = ModuleType("torchaudio._extension")
        stand_in.__dict__.update(_IS_TORCHAUDIO_EXT_AVAILABLE=False, fail_if_no_align=lambda function: function)
        sys.modules["torchaudio._extension"] = stand_in
        return importlib.import_module("torchaudio.models")
