"""Small networks around each building block that users have, written as they write them."""

from collections.abc import Callable

from torch import nn

from tests.zoo.blocks import attention, convolution, recurrent, spectral, speech
from tests.zoo.networks import ZooNetwork

FRAMES = (2, 20, 33)
"""Shape ``(batch, frames, bins)``."""


def _frames(name: str, factory: Callable[[], nn.Module]) -> ZooNetwork:
    return ZooNetwork(name, factory, (FRAMES,))


def _wave(name: str, factory: Callable[[], nn.Module], samples: int = 400) -> ZooNetwork:
    return ZooNetwork(name, factory, ((2, 1, samples),))


def _codec(name: str, middle: Callable[[], nn.Module]) -> ZooNetwork:
    return _wave(name, lambda: convolution.ConvCodec(middle()))


def _rnn(name: str, rnn: Callable[[], nn.RNNBase], width: int) -> ZooNetwork:
    return _frames(name, lambda: recurrent.RNNMasker(rnn(), width))


def _mha(name: str, factory: Callable[[], nn.Module]) -> ZooNetwork:
    return _frames(f"mha-{name}", factory)


def _layer(**options: object) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(24, 4, dim_feedforward=40, **options)  # type: ignore[arg-type]


RECURRENT = (
    _rnn("lstm", lambda: nn.LSTM(24, 20), 20),
    _rnn("lstm-batch-first", lambda: nn.LSTM(24, 20, batch_first=True), 20),
    _rnn("lstm-bidirectional", lambda: nn.LSTM(24, 20, bidirectional=True, batch_first=True), 40),
    _rnn("lstm-3-layers-bidirectional", lambda: nn.LSTM(24, 20, 3, bidirectional=True, dropout=0.2), 40),
    _rnn("lstm-projected", lambda: nn.LSTM(24, 28, proj_size=12, batch_first=True), 12),
    _rnn("lstm-projected-2-bi", lambda: nn.LSTM(24, 28, 2, proj_size=12, bidirectional=True, batch_first=True), 24),
    _rnn("lstm-no-bias", lambda: nn.LSTM(24, 20, 2, bias=False, batch_first=True), 20),
    _rnn("gru", lambda: nn.GRU(24, 20, batch_first=True), 20),
    _rnn("gru-2-layers-bidirectional", lambda: nn.GRU(24, 20, 2, bidirectional=True), 40),
    _rnn("rnn-tanh", lambda: nn.RNN(24, 20, batch_first=True), 20),
    _rnn("rnn-relu-2-layers-bidirectional", lambda: nn.RNN(24, 20, 2, nonlinearity="relu", bidirectional=True), 40),
    _frames("rnn-final-state", recurrent.FinalStateGate),
    _frames("rnn-explicit-state", recurrent.ExplicitStateLSTM),
    ZooNetwork("rnn-streaming", recurrent.StreamingLSTM, (FRAMES, (1, 2, 24), (1, 2, 24))),
    _frames("rnn-cells", recurrent.CellLoop),
    _frames("rnn-stacked-with-norm", recurrent.StackedWithNorm),
    ZooNetwork("rnn-grouped-gru", recurrent.GroupedGRU, ((2, 20, 32),)),
    _frames("fsmn", recurrent.FSMN),
    _frames("state-space", recurrent.SelectiveStateSpace),
)

ATTENTION = (
    _mha("plain", lambda: attention.MHAMasker(nn.MultiheadAttention(24, 4))),
    _mha("batch-first", lambda: attention.MHAMasker(nn.MultiheadAttention(24, 4, batch_first=True))),
    _mha("no-bias", lambda: attention.MHAMasker(nn.MultiheadAttention(24, 3, bias=False, batch_first=True))),
    _mha("kdim-vdim", lambda: attention.MHAMasker(nn.MultiheadAttention(24, 4, kdim=16, vdim=20), 16, 20)),
    _mha("bias-kv", lambda: attention.MHAMasker(nn.MultiheadAttention(24, 4, add_bias_kv=True, batch_first=True))),
    _mha("zero-attn", lambda: attention.MHAMasker(nn.MultiheadAttention(24, 4, add_zero_attn=True))),
    _mha("causal", lambda: attention.MHAMasker(nn.MultiheadAttention(24, 4, batch_first=True), causal=True)),
    _mha("padding", lambda: attention.MHAMasker(nn.MultiheadAttention(24, 4, batch_first=True), padding=True)),
    _frames("transformer-layer", lambda: attention.TransformerMasker(_layer(batch_first=True), 24)),
    _frames(
        "transformer-layer-norm-first-gelu",
        lambda: attention.TransformerMasker(_layer(batch_first=True, norm_first=True, activation="gelu"), 24),
    ),
    _frames(
        "transformer-encoder",
        lambda: attention.TransformerMasker(nn.TransformerEncoder(_layer(batch_first=True), 2), 24),
    ),
    _frames(
        "transformer-encoder-time-first",
        lambda: attention.TransformerMasker(nn.TransformerEncoder(_layer(), 2, norm=nn.LayerNorm(24)), 24),
    ),
    _frames("transformer-decoder", attention.EncoderDecoder),
    _frames("attention-written-out", attention.WrittenOutAttention),
    _frames("attention-einsum", attention.EinsumAttention),
    _frames("attention-rotary", attention.RotaryAttention),
    _frames("einops-layers", attention.EinopsMixer),
    _frames("gated-feed-forward", attention.GatedFeedForward),
)

CONVOLUTION = (
    _codec("conv-grouped", convolution.grouped_convs),
    _codec("conv-norms", convolution.normed_convs),
    _codec("conv-weight-norm", convolution.weight_normed_convs),
    _wave("conv-unet", convolution.UNet1d),
    ZooNetwork("conv-2d-sub-pixel", convolution.SubPixel2d, ((2, 1, 32, 12),)),
    ZooNetwork("conv-3d", convolution.Volume3d, ((2, 1, 2, 12, 10),)),
    _wave("norms-written-out", convolution.HandWrittenNorms),
    _wave("maxout-shuffle", convolution.Maxout),
    _wave("shared-unrolled", convolution.SharedUnrolled),
    _wave("tied-filters", convolution.TiedAutoencoder),
    ZooNetwork("tcn-streaming", convolution.StreamingTCN, ((2, 16, 10), (2, 20, 14))),
)

SPECTRAL = (
    ZooNetwork("complex-conv", spectral.ComplexEncoderDecoder, ((2, 400),)),
    ZooNetwork("complex-parameters", spectral.NativeComplexLinear, ((2, 10, 64),)),
    ZooNetwork("band-split", spectral.BandSplit, ((2, 2, 33, 10),)),
    ZooNetwork("sub-band", spectral.SubBand, ((2, 1, 33, 10),)),
    ZooNetwork("erb", spectral.ERB, ((2, 1, 10, 33),)),
    ZooNetwork("deep-filtering", spectral.DeepFiltering, ((2, 10, 33, 2),)),
    ZooNetwork("grid-unfold", spectral.GridBlock, ((2, 2, 8, 17),)),
    ZooNetwork("overlap-add", spectral.LearnedOverlapAdd, ((2, 400),)),
)

SPEECH = (
    ZooNetwork("conformer", speech.conformer, ((2, 20, 32),)),
    ZooNetwork("conformer-group-norm", speech.conformer_group_norm, ((2, 20, 32),)),
    _frames("conformer-block", speech.ConformerBlock),
    ZooNetwork("wav2vec2-base", speech.wav2vec2_base, ((2, 800),)),
    ZooNetwork("wav2vec2-large", speech.wav2vec2_large, ((2, 800),)),
    ZooNetwork("wavlm", speech.wavlm, ((2, 800),)),
    ZooNetwork("emformer", speech.emformer, ((2, 20, 32),)),
)

BUILDING_BLOCKS: tuple[ZooNetwork, ...] = (*RECURRENT, *ATTENTION, *CONVOLUTION, *SPECTRAL, *SPEECH)
