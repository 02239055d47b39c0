"""torchaudio's Conv-TasNet."""

from torch import nn

from prunegraph.optional_packages import import_torchaudio


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
    network: nn.Module = import_torchaudio("torchaudio.models").ConvTasNet(
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
