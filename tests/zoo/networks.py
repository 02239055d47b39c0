"""The zoo: separation and enhancement networks of four libraries and our own, unedited, with random weights.

Libraries are imported when a network is built, so that listing the zoo needs none of them.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn

from prunegraph.models import AFRCNN, SuDoRMRF, TDANet
from prunegraph.optional_packages import import_torchaudio
from tests.zoo.speechbrain_glue import MaskingSeparator

LONG = 8000
"""Examples of at least this many samples can be cut short."""

AUDIO = 256
"""An example of at least this many numbers in its last dimension is audio."""

STEMS = ("drums", "bass", "other", "vocals")


@dataclass(frozen=True, slots=True)
class ZooNetwork:
    """A network that must be pruned as it stands.

    Attributes:
        name: Identifier, ``library-Network``.
        factory: Builds the module, as its documentation tells users to.
        inputs: Shape of each input, such as ``(batch, channels, time)``; a tensor is passed on as it is.
    """

    name: str
    factory: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...] | Tensor, ...]

    def shorter(self) -> "ZooNetwork":
        """The same network with an example of 0.3 of the length, for tests that need no more."""
        inputs = [
            (*spec[:-1], spec[-1] * 3 // 10) if isinstance(spec, tuple) and spec[-1] >= LONG else spec
            for spec in self.inputs
        ]
        return replace(self, inputs=tuple(inputs))

    def longer(self) -> "ZooNetwork":
        """The same network with audio half as long again."""
        inputs = [
            (*spec[:-1], spec[-1] * 3 // 2) if isinstance(spec, tuple) and spec[-1] >= AUDIO else spec
            for spec in self.inputs
        ]
        return replace(self, inputs=tuple(inputs))

    def build(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Returns the module in evaluation mode and its example inputs, both drawn from ``seed``.

        The weights are the same numbers for every ``dtype``.
        """
        with torch.random.fork_rng(devices=[]), quiet():
            import_torchaudio()  # every one of these libraries imports it
            torch.manual_seed(seed)
            module = self.factory().eval()
            make_channels_differ(module)
            inputs = tuple(spec if isinstance(spec, Tensor) else torch.randn(spec).to(dtype) for spec in self.inputs)
        cast(module, dtype)
        return module, inputs


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the deprecation warnings of the libraries, which are theirs to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Makes ``dtype`` the type of new tensors: networks that call ``torch.zeros(...)`` run in no other."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Gives all weights the precision ``dtype``; unlike ``module.to(dtype)`` it keeps complex ones complex."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_complex() or tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype.to_complex() if tensor.is_complex() else dtype)


def make_channels_differ(module: nn.Module) -> None:
    """Adds noise to weights whose entries are all equal: a mistake in them must not go unseen.

    Fresh norms hold ones and zeros, under which a wrongly sliced scale or running mean changes nothing; a gain that
    starts at zero hides all that it multiplies.
    """
    statistics = (value for name, value in module.named_buffers() if name.endswith(("running_mean", "running_var")))
    for tensor in (*module.parameters(), *statistics):
        if tensor.is_floating_point() and _is_constant(tensor):
            with torch.no_grad():
                tensor.add_(torch.rand_like(tensor), alpha=0.1)


def _is_constant(tensor: Tensor) -> bool:
    return bool((tensor == tensor.flatten()[0]).all()) if tensor.numel() > 1 else not tensor.any()


def _torchaudio_conv_tasnet() -> nn.Module:
    from torchaudio.models import conv_tasnet_base

    return conv_tasnet_base(num_sources=2)


def _torchaudio_hdemucs() -> nn.Module:
    from torchaudio.models import hdemucs_low

    return hdemucs_low(sources=list(STEMS))


def _asteroid(name: str) -> nn.Module:
    """Builds a two-speaker time-domain network of asteroid with the library's default sizes."""
    from asteroid import models

    network: nn.Module = getattr(models, name)(n_src=2)
    return network


def _asteroid_dccrnet() -> nn.Module:
    from asteroid.masknn.recurrent import DCCRMaskNetRNN
    from asteroid.models import DCCRNet

    construct = DCCRMaskNetRNN.__init__

    def construct_with_int(self: nn.Module, in_size: int) -> None:
        construct(self, int(in_size))  # the library passes an np.int64, which torch's LSTM refuses under numpy 2

    with mock.patch.object(DCCRMaskNetRNN, "__init__", construct_with_int):
        return DCCRNet("DCCRN-CL", sample_rate=16000)


def _asteroid_dcunet() -> nn.Module:
    from asteroid.models import DCUNet

    return DCUNet("DCUNet-20", fix_length_mode="pad")


def _asteroid_demask() -> nn.Module:
    from asteroid.models import DeMask

    return DeMask()


def _asteroid_xumx() -> nn.Module:
    from asteroid.models.x_umx import BrokenXUMX

    return BrokenXUMX(sources=list(STEMS))


def _asteroid_fasnet() -> nn.Module:
    from asteroid.models import FasNetTAC

    return FasNetTAC(n_src=2)


def _speechbrain_sepformer() -> nn.Module:
    from speechbrain.lobes.models.dual_path import SepformerWrapper

    # The constructor draws the weights of each layer once per ancestor, 25,000 times in all, which takes 40 s.
    with mock.patch.object(SepformerWrapper, "reset_layer_recursively"):
        network = SepformerWrapper()
    for layer in network.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return network


def _speechbrain(channels: int, masker: nn.Module) -> nn.Module:
    """Puts a mask network of speechbrain between its encoder and its decoder, as its recipes do."""
    from speechbrain.lobes.models.dual_path import Decoder, Encoder

    encoder = Encoder(kernel_size=16, out_channels=channels)
    decoder = Decoder(in_channels=channels, out_channels=1, kernel_size=16, stride=8, bias=False)
    return MaskingSeparator(encoder, masker, decoder)


def _speechbrain_conv_tasnet() -> nn.Module:
    from speechbrain.lobes.models.conv_tasnet import MaskNet

    return _speechbrain(256, MaskNet(N=256, B=256, H=512, P=3, X=6, R=4, C=2, norm_type="gLN", causal=True))


def _speechbrain_dprnn() -> nn.Module:
    from speechbrain.lobes.models.dual_path import Dual_Path_Model, SBRNNBlock

    intra, inter = (SBRNNBlock(256, 256, 1, rnn_type="LSTM", bidirectional=True) for _ in range(2))
    return _speechbrain(256, Dual_Path_Model(256, 256, intra, inter, num_layers=6, norm="ln", K=250, num_spks=2))


def _resource_efficient(memory_type: str, segment: nn.Module, memory: nn.Module) -> nn.Module:
    from speechbrain.lobes.models.resepformer import ResourceEfficientSeparator

    masker = ResourceEfficientSeparator(
        128,
        num_spk=2,
        layer=4,
        unit=256,
        segment_size=150,
        mem_type=memory_type,
        seg_model=segment,
        mem_model=memory,
    )
    return _speechbrain(128, masker)


def _speechbrain_skim() -> nn.Module:
    from speechbrain.lobes.models.resepformer import MemLSTM, SegLSTM

    segment = SegLSTM(128, 256, bidirectional=True, norm_type="gln")
    return _resource_efficient("hc", segment, MemLSTM(256, bidirectional=True, mem_type="hc", norm_type="gln"))


def _speechbrain_resepformer() -> nn.Module:
    from speechbrain.lobes.models.resepformer import SBTransformerBlock_wnormandskip

    segment, memory = (SBTransformerBlock_wnormandskip(8, 128, 8, d_ffn=1024) for _ in range(2))
    return _resource_efficient("av", segment, memory)


def _demucs() -> nn.Module:
    from demucs.demucs import Demucs

    return Demucs(sources=list(STEMS))


def _hdemucs() -> nn.Module:
    from demucs.hdemucs import HDemucs

    return HDemucs(sources=list(STEMS))


def _htdemucs() -> nn.Module:
    from demucs.htdemucs import HTDemucs

    return HTDemucs(sources=list(STEMS), segment=1, bottom_channels=512)


def _asteroid_two_speakers(name: str) -> ZooNetwork:
    return ZooNetwork(f"asteroid-{name}", lambda: _asteroid(name), ((1, 1, 8000),))


ZOO: tuple[ZooNetwork, ...] = (
    ZooNetwork("torchaudio-ConvTasNet", _torchaudio_conv_tasnet, ((1, 1, 8000),)),
    ZooNetwork("torchaudio-HDemucs", _torchaudio_hdemucs, ((1, 2, 16000),)),
    *map(
        _asteroid_two_speakers,
        ("ConvTasNet", "DPRNNTasNet", "DPTNet", "SuDORMRFNet", "SuDORMRFImprovedNet", "LSTMTasNet"),
    ),
    ZooNetwork("asteroid-DCCRNet", _asteroid_dccrnet, ((1, 1, 16000),)),
    ZooNetwork("asteroid-DCUNet", _asteroid_dcunet, ((1, 1, 16000),)),
    ZooNetwork("asteroid-DeMask", _asteroid_demask, ((1, 1, 16000),)),
    ZooNetwork("asteroid-XUMX", _asteroid_xumx, ((1, 2, 44100),)),
    ZooNetwork("asteroid-FasNetTAC", _asteroid_fasnet, ((1, 2, 16000), torch.tensor([2]))),
    ZooNetwork("speechbrain-SepFormer", _speechbrain_sepformer, ((1, 8000),)),
    ZooNetwork("speechbrain-ConvTasNet", _speechbrain_conv_tasnet, ((1, 8000),)),
    ZooNetwork("speechbrain-DPRNN", _speechbrain_dprnn, ((1, 8000),)),
    ZooNetwork("speechbrain-SkiM", _speechbrain_skim, ((1, 8000),)),
    ZooNetwork("speechbrain-RE-SepFormer", _speechbrain_resepformer, ((1, 8000),)),
    ZooNetwork("demucs-Demucs", _demucs, ((1, 2, 44100),)),
    ZooNetwork("demucs-HDemucs", _hdemucs, ((1, 2, 44100),)),
    ZooNetwork("demucs-HTDemucs", _htdemucs, ((1, 2, 44100),)),
)


def reference_separators(**sizes: int) -> tuple[ZooNetwork, ...]:
    """Our own implementations of published separators, at their published sizes but for those given."""
    networks = (TDANet, AFRCNN, SuDoRMRF)
    return tuple(
        ZooNetwork(f"prunegraph-{network.__name__}", partial(network, **sizes), ((1, 16000),)) for network in networks
    )
