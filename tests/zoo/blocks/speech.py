"""Speech encoders in front of a mask estimator."""

import torch
from torch import nn

from prunegraph.optional_packages import import_torchaudio


class EncoderMasker(nn.Module):
    """Features of a speech encoder gate an embedding of the same frames."""

    def __init__(self, encoder, width, n_out):
        super().__init__()
        self.encoder = encoder
        self.mask = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, n_out))

    def forward(self, x):
        features, _ = self.encoder(x)
        return torch.sigmoid(self.mask(features))


class WithLengths(nn.Module):
    """Gives an encoder the lengths of a batch without padding."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        lengths = torch.full((x.shape[0],), x.shape[1], device=x.device)
        return self.encoder(x, lengths)


def conformer(n_freq=32):
    """torchaudio's Conformer."""
    import_torchaudio()
    from torchaudio.models import Conformer

    encoder = Conformer(n_freq, num_heads=4, ffn_dim=48, num_layers=2, depthwise_conv_kernel_size=7, dropout=0.1)
    return EncoderMasker(WithLengths(encoder), n_freq, n_freq)


def conformer_group_norm(n_freq=32):
    """torchaudio's Conformer with its other options."""
    import_torchaudio()
    from torchaudio.models import Conformer

    encoder = Conformer(n_freq, 2, 40, 1, 5, use_group_norm=True, convolution_first=True)
    return EncoderMasker(WithLengths(encoder), n_freq, n_freq)


def _wav2vec2(mode, layers, norm_first):
    import_torchaudio()
    from torchaudio.models import wav2vec2_model

    encoder = wav2vec2_model(
        extractor_mode=mode,
        extractor_conv_layer_config=[(24, 10, 5), (24, 3, 2), (24, 2, 2)],
        extractor_conv_bias=norm_first,
        encoder_embed_dim=32,
        encoder_projection_dropout=0.1,
        encoder_pos_conv_kernel=8,
        encoder_pos_conv_groups=4,
        encoder_num_layers=layers,
        encoder_num_heads=4,
        encoder_attention_dropout=0.1,
        encoder_ff_interm_features=48,
        encoder_ff_interm_dropout=0.1,
        encoder_dropout=0.1,
        encoder_layer_norm_first=norm_first,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    )
    return EncoderMasker(encoder, 32, 20)


def wav2vec2_base():
    """A small wav2vec 2.0 of the base kind: group norm in the first layer, norm after attention."""
    return _wav2vec2("group_norm", 2, False)


def wav2vec2_large():
    """A small wav2vec 2.0 of the large kind: layer norms, norm before attention."""
    return _wav2vec2("layer_norm", 2, True)


def wavlm():
    """A small WavLM: gated relative position bias."""
    import_torchaudio()
    from torchaudio.models import wavlm_model

    encoder = wavlm_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[(24, 10, 5), (24, 3, 2), (24, 2, 2)],
        extractor_conv_bias=False,
        encoder_embed_dim=32,
        encoder_projection_dropout=0.1,
        encoder_pos_conv_kernel=8,
        encoder_pos_conv_groups=4,
        encoder_num_layers=2,
        encoder_num_heads=4,
        encoder_num_buckets=16,
        encoder_max_distance=32,
        encoder_attention_dropout=0.1,
        encoder_ff_interm_features=48,
        encoder_ff_interm_dropout=0.1,
        encoder_dropout=0.1,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    )
    return EncoderMasker(encoder, 32, 20)


def emformer(n_freq=32):
    """torchaudio's Emformer, which keeps memory and left context."""
    import_torchaudio()
    from torchaudio.models import Emformer

    encoder = Emformer(n_freq, 4, 48, 2, segment_length=4, right_context_length=0, left_context_length=4)
    return EncoderMasker(WithLengths(encoder), n_freq, n_freq)


class ConformerBlock(nn.Module):
    """Half-step feed-forward, attention, convolution module with GLU, half-step feed-forward, as in papers."""

    def __init__(self, n_freq=33, d_model=24, heads=4, kernel_size=7, expansion=2):
        super().__init__()
        self.inp = nn.Linear(n_freq, d_model)
        self.ff1 = self.feed_forward(d_model, expansion)
        self.attn_norm = nn.LayerNorm(d_model)
        self.attn = nn.MultiheadAttention(d_model, heads, batch_first=True)
        self.conv_norm = nn.LayerNorm(d_model)
        self.conv = nn.Sequential(
            nn.Conv1d(d_model, 2 * d_model, 1),
            nn.GLU(dim=1),
            nn.Conv1d(d_model, d_model, kernel_size, padding=kernel_size // 2, groups=d_model),
            nn.BatchNorm1d(d_model),
            nn.SiLU(),
            nn.Conv1d(d_model, d_model, 1),
        )
        self.ff2 = self.feed_forward(d_model, expansion)
        self.norm = nn.LayerNorm(d_model)
        self.out = nn.Linear(d_model, n_freq)

    @staticmethod
    def feed_forward(d_model, expansion):
        return nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Linear(d_model, d_model * expansion),
            nn.SiLU(),
            nn.Linear(d_model * expansion, d_model),
        )

    def forward(self, spec):
        x = self.inp(spec)
        x = x + 0.5 * self.ff1(x)
        y = self.attn_norm(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        x = x + self.conv(self.conv_norm(x).transpose(1, 2)).transpose(1, 2)
        x = x + 0.5 * self.ff2(x)
        return self.out(self.norm(x))
