"""The reference separators are the published ones: tensors, outputs, and outputs after surgery."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunegraph import apply, build_graph
from tests.models.reference import CASES, CLASSES, published, reference, waveform

NETWORKS = tuple(CLASSES)
SHORT = torch.linspace(-1, 1, 800)[None, None]
SEPPRUNE_GROUPS = {
    "tdanet": ["sm.unet.globalatt.mlp.fc1.conv.weight[0]"],
    "afrcnn12": [f"sm.blocks.concat_layer.{level}.conv.weight[0]" for level in range(4)],
    "sudormrf": [f"sm.{block}.proj_1x1.conv.weight[0]" for block in range(16)],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_published_checkpoint_fits(name: str) -> None:
    """Names, shapes and order of all tensors."""
    state = published(name).state_dict()
    assert [(key, list(tensor.shape)) for key, tensor in state.items()] == list(reference(name).tensors.items())
    assert [key for key, _ in published(name).named_buffers()] == reference(name).buffers


@pytest.mark.parametrize("name", NETWORKS)
def test_the_defaults_are_the_published_configuration(name: str) -> None:
    model = CLASSES[name]()
    shapes = {key: tensor.shape for key, tensor in published(name).state_dict().items()}
    assert {key: tensor.shape for key, tensor in model.state_dict().items()} == shapes
    assert sum(parameter.numel() for parameter in model.parameters()) == reference(name).parameters


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_original(name: str, case: str) -> None:
    with torch.no_grad():
        actual = published(name)(waveform(case))
    assert actual.shape == (len(waveform(case)), 2, waveform(case).shape[-1])
    assert reference(name).outputs[case].distance(actual) < 1e-5


@pytest.mark.parametrize(("name", "tolerance"), [("tdanet", 1e-7), ("afrcnn12", 1e-12), ("sudormrf", 1e-12)])
def test_in_float64_nothing_is_left_of_the_difference(name: str, tolerance: float) -> None:
    """Except that the positional table is a float32 one also then, and its last bit depends on the machine's exp."""
    model = CLASSES[name](**reference(name).config | {"num_blocks": 1}).eval()
    state, wave = published(name).state_dict(), waveform("A").double()
    model.load_state_dict({key: state[key] for key in model.state_dict()})
    with torch.no_grad():
        mixture = model.double().encoder(F.pad(wave, model.padding(wave.shape[-1])))
        actual = model.sm(model.bottleneck(model.ln(mixture)))
    assert reference(name).first_block.distance(actual.reshape(1, 1, -1)) < tolerance


def unrolled_twice(name: str) -> nn.Module:
    """The network, or one that applies the same recurrent block only twice: its channels are coupled alike."""
    recurrent = name != "sudormrf"
    return CLASSES[name](**reference(name).config | {"num_blocks": 2}) if recurrent else published(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_surgery_gives_the_network_that_was_cut_by_hand(name: str) -> None:
    graph = build_graph(unrolled_twice(name), SHORT)
    widths = {group.name: group.width for group in graph.groups}
    kept = {group: [c for c in range(widths[group]) if c % 4 != 3] for group in SEPPRUNE_GROUPS[name]}
    pruned = apply(published(name), graph.plan(kept))
    assert sum(parameter.numel() for parameter in pruned.parameters()) == reference(name).pruned_parameters
    with torch.no_grad():
        assert reference(name).pruned.distance(pruned(waveform("A"))) < 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_on_a_gpu_are_those_of_the_original(name: str) -> None:
    model: nn.Module = copy.deepcopy(published(name)).double().cuda()
    with torch.no_grad():
        actual = model(waveform("A").double().cuda())
    assert actual.is_cuda
    assert reference(name).outputs["A"].distance(actual.cpu()) < 1e-5
