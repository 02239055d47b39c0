"""What the paper pruned, and what it reports; the one place where its figures stand.

Source: "SepPrune: Structured Pruning for Efficient Deep Speech Separation", arXiv 2505.12079 (AAAI 2026), Table 2 and
the comparison of one epoch of fine-tuning with training from scratch (LRS2-2Mix). MACs are per second of 16 kHz audio
as the paper counts them: an older ptflops charges the transposed convolution of the decoder at its output rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

SeparatorName: TypeAlias = Literal["afrcnn", "tdanet", "sudormrf"]
DataName: TypeAlias = Literal["lrs2", "libri2mix", "echoset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Separator:
    """A network of the paper.

    Attributes:
        title: its name there.
        factory: what makes it, as ``package.module:name``.
        groups: patterns of tensors that lie in the pruned channel groups only.
    """

    title: str
    factory: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A network as the paper reports it.

    Attributes:
        parameters: number of parameters.
        macs: MACs per second of audio, the paper's count.
        sdri: SDR improvement on the test set in dB.
        si_sdri: SI-SDR improvement on the test set in dB.
    """

    parameters: float
    macs: float
    sdri: float
    si_sdri: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OneEpoch:
    """What one epoch of fine-tuning gave.

    Attributes:
        sdri: SDR improvement on the test set in dB.
        si_sdri: SI-SDR improvement on the test set in dB.
        from_scratch: epochs that the same small network needs from random weights to the same level.
    """

    sdri: float
    si_sdri: float
    from_scratch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of Table 2.

    Attributes:
        dense: before.
        pruned: after pruning and fine-tuning to the end.
        one_epoch: after one epoch of fine-tuning, where the paper reports it.
    """

    dense: Figures
    pruned: Figures
    one_epoch: OneEpoch | None = None


SEPARATORS: Mapping[str, Separator] = MappingProxyType(
    {
        "afrcnn": Separator(
            title="A-FRCNN-12", factory="prunegraph.models:AFRCNN", groups=("sm.blocks.concat_layer.*.conv.bias",)
        ),
        "tdanet": Separator(
            title="TDANet", factory="prunegraph.models:TDANet", groups=("sm.unet.globalatt.mlp.dwconv.bias",)
        ),
        "sudormrf": Separator(
            title="SuDoRM-RF 1.0x", factory="prunegraph.models:SuDoRMRF", groups=("sm.*.proj_1x1.conv.bias",)
        ),
    }
)
DATA: Mapping[str, str] = MappingProxyType({"lrs2": "LRS2-2Mix", "libri2mix": "Libri2Mix", "echoset": "EchoSet"})


def _figures(millions: float, giga: float, sdri: float, si_sdri: float) -> Figures:
    return Figures(parameters=round(millions * 1e6), macs=giga * 1e9, sdri=sdri, si_sdri=si_sdri)


TABLE_2: Mapping[tuple[str, str], Row] = MappingProxyType(
    {
        ("afrcnn", "lrs2"): Row(
            dense=_figures(5.13, 28.58, 10.90, 10.50),
            pruned=_figures(3.06, 16.52, 12.59, 12.25),
            one_epoch=OneEpoch(sdri=9.43, si_sdri=8.94, from_scratch=31),
        ),
        ("tdanet", "lrs2"): Row(
            dense=_figures(2.35, 4.77, 12.74, 12.45),
            pruned=_figures(1.92, 4.33, 12.72, 12.41),
            one_epoch=OneEpoch(sdri=11.17, si_sdri=10.81, from_scratch=36),
        ),
        ("sudormrf", "lrs2"): Row(
            dense=_figures(2.72, 4.65, 11.43, 11.10),
            pruned=_figures(1.54, 2.91, 10.37, 9.98),
            one_epoch=OneEpoch(sdri=5.18, si_sdri=4.06, from_scratch=2),
        ),
        ("afrcnn", "libri2mix"): Row(
            dense=_figures(5.13, 28.58, 15.54, 15.03), pruned=_figures(3.09, 16.76, 15.60, 15.10)
        ),
        ("tdanet", "libri2mix"): Row(
            dense=_figures(2.35, 4.77, 13.42, 12.92), pruned=_figures(1.67, 4.07, 13.70, 13.21)
        ),
        ("sudormrf", "libri2mix"): Row(
            dense=_figures(2.72, 4.65, 13.52, 12.99), pruned=_figures(0.98, 2.09, 12.79, 12.24)
        ),
        ("afrcnn", "echoset"): Row(dense=_figures(5.13, 28.58, 8.56, 7.66), pruned=_figures(3.08, 16.57, 8.12, 7.13)),
        ("tdanet", "echoset"): Row(dense=_figures(2.35, 4.77, 8.78, 7.93), pruned=_figures(1.64, 4.04, 8.52, 7.62)),
        ("sudormrf", "echoset"): Row(dense=_figures(2.72, 4.65, 7.82, 6.77), pruned=_figures(1.11, 2.28, 7.29, 6.07)),
    }
)
"""(separator, data) -> row."""
