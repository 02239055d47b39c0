"""The networks of the zoo, and what a careful user tells a pruning library about them."""

from collections.abc import Mapping, Sequence

from tests.zoo.networks import STEMS, ZOO, ZooNetwork, reference_separators

NETWORKS = (*ZOO, *reference_separators())

OUTPUT_LAYERS: Mapping[str, Sequence[str]] = {
    "torchaudio-ConvTasNet": ["decoder"],
    "torchaudio-HDemucs": ["freq_decoder.4.conv_tr", "time_decoder.3.conv_tr"],
    "asteroid-DCCRNet": ["masker.output_layer", "decoder"],
    "asteroid-DCUNet": ["masker.output_layer", "decoder"],
    "asteroid-DeMask": ["masker.5", "decoder"],
    "asteroid-XUMX": [f"layer_dec.{stem}.dec.{i}" for stem in STEMS for i in (3, 4)],
    "asteroid-FasNetTAC": ["tanh.0", "gate.0"],
    "demucs-Demucs": ["decoder.5.3"],
    "demucs-HDemucs": ["decoder.5.conv_tr", "tdecoder.4.conv_tr"],
    "demucs-HTDemucs": ["decoder.3.conv_tr", "tdecoder.3.conv_tr"],
}
"""The layers whose output channels are the network's own; for all other networks it is the decoder."""


def network_named(name: str) -> ZooNetwork:
    """The network of this name."""
    return next(network for network in NETWORKS if network.name == name)


def output_layers(name: str) -> Sequence[str]:
    """Paths of the layers whose output channels must stay."""
    return OUTPUT_LAYERS.get(name, ["decoder"])
