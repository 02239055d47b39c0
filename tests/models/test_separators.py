"""What the reference separators promise at any size: lengths, shapes, initial weights, and that they can be pruned."""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunegraph import Budget, DependencyGraph, PruningResult, build_graph, prune, score, select
from prunegraph.errors import InputError
from prunegraph.models import AFRCNN, SuDoRMRF, TDANet
from prunegraph.models.layers import GlobalLayerNorm
from prunegraph.models.tdanet import BatchAttention, PositionalEncoding, StochasticDepth


def tdanet() -> TDANet:
    return TDANet(out_channels=12, in_channels=32, num_blocks=2, upsampling_depth=4, sample_rate=4000)


def afrcnn() -> AFRCNN:
    return AFRCNN(12, 20, num_blocks=2, upsampling_depth=3, enc_kernel_size=21, enc_num_basis=24)


def sudormrf() -> SuDoRMRF:
    return SuDoRMRF(12, 20, num_blocks=2, upsampling_depth=3, enc_kernel_size=21, enc_num_basis=24, num_sources=3)


Factory = Callable[[], nn.Module]
every_network = pytest.mark.parametrize("factory", [tdanet, afrcnn, sudormrf])


def seeded(factory: Factory) -> nn.Module:
    torch.manual_seed(0)
    return factory().eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@every_network
@pytest.mark.parametrize("samples", [1, 63, 640, 803])
def test_outputs_are_as_long_as_the_input(factory: Factory, samples: int) -> None:
    model = seeded(factory)
    with torch.no_grad():
        assert model(noise(2, 1, samples)).shape == (2, model.num_sources, samples)


@every_network
def test_axes_of_size_one_may_be_left_out(factory: Factory) -> None:
    model, wave = seeded(factory), noise(1, 1, 400)
    with torch.no_grad():
        separated = model(wave)
        assert torch.equal(model(wave[0]), separated)
        assert torch.equal(model(wave[0, 0]), separated[0])


@every_network
@pytest.mark.parametrize("shape", [(), (1, 2, 400), (1, 1, 1, 400)])
def test_other_shapes_are_refused(factory: Factory, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"one channel of audio"):
        seeded(factory)(noise(*shape))


@every_network
def test_a_seed_gives_the_same_network(factory: Factory) -> None:
    first, second = seeded(factory).state_dict(), seeded(factory).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_network
def test_filters_are_drawn_first_by_xavier(factory: Factory) -> None:
    model = seeded(factory)
    torch.manual_seed(0)
    encoder = nn.Conv1d(1, model.encoder.out_channels, model.encoder.kernel_size[0], bias=False)
    torch.nn.init.xavier_uniform_(encoder.weight)
    assert torch.equal(model.encoder.weight, encoder.weight)
    inputs, outputs, kernel = model.decoder.weight.shape
    bound = math.sqrt(6 / ((inputs + outputs) * kernel))
    assert 0.95 * bound < float(model.decoder.weight.detach().abs().max()) <= bound


@every_network
def test_norms_start_as_identity_and_slopes_at_a_quarter(factory: Factory) -> None:
    starts = {"gamma": 1.0, "beta": 0.0}
    for key, parameter in seeded(factory).named_parameters():
        start = 0.25 if tuple(parameter.shape) == (1,) else starts.get(key.rpartition(".")[2])
        assert start is None or bool((parameter == start).all()), key


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_the_norm_follows_its_formula(scale: float) -> None:
    """In quiet signals the 1e-8 under the root matters."""
    norm = GlobalLayerNorm(5).double()
    with torch.no_grad():
        norm.gamma.copy_(torch.arange(1.0, 6.0))
        norm.beta.copy_(torch.arange(5.0))
        x = scale * (noise(2, 5, 30).double() + 0.5)
        y = norm(x)
    for item, actual in zip(x.numpy(), y.numpy(), strict=True):
        expected = (item - item.mean()) / math.sqrt(item.var() + 1e-8)
        assert abs(expected * [[1], [2], [3], [4], [5]] + [[0], [1], [2], [3], [4]] - actual).max() < 1e-12


@pytest.mark.parametrize("factory", [afrcnn, sudormrf])
def test_items_of_a_batch_do_not_see_each_other(factory: Factory) -> None:
    model, wave = seeded(factory), noise(2, 1, 400)
    with torch.no_grad():
        torch.testing.assert_close(model(wave)[:1], model(wave[:1]))


def test_items_of_a_batch_see_each_other_through_the_attention_of_tdanet() -> None:
    model, wave = seeded(tdanet), noise(2, 1, 400)
    with torch.no_grad():
        assert not torch.allclose(model(wave)[:1], model(wave[:1]), rtol=1e-3)


def test_frames_do_not_see_each_other_in_the_attention_of_tdanet() -> None:
    attention = seeded(lambda: BatchAttention(16))
    x = noise(2, 16, 7)
    with torch.no_grad():
        torch.testing.assert_close(attention(x)[..., :3], attention(x[..., :3]))


def test_what_tdanet_never_uses_gets_no_gradient() -> None:
    """The fusion at the coarsest level and, for a batch of one, queries and keys; everything else is used."""
    model = seeded(tdanet)
    model(noise(1, 1, 400)).square().sum().backward()
    unused = {key for key, parameter in model.named_parameters() if parameter.grad is None}
    assert unused == {key for key, _ in model.named_parameters() if key.startswith("sm.unet.loc_glo_fus.3.")}
    gradient = model.sm.unet.globalatt.attn.attn.in_proj_weight.grad.abs()
    assert float(gradient[:64].max()) < 1e-5 * float(gradient[64:].max())


def test_the_positional_table_holds_sines_of_the_frame() -> None:
    table = PositionalEncoding(512).pe
    assert table.shape == (1, 10000, 512)
    assert table.dtype == torch.float32
    frame, pair = torch.arange(64).double()[:, None], torch.arange(256).double()
    angle = frame / 10000 ** (pair / 256)
    torch.testing.assert_close(table[0, :64, 0::2].double(), angle.sin(), atol=5e-6, rtol=0)
    torch.testing.assert_close(table[0, :64, 1::2].double(), angle.cos(), atol=5e-6, rtol=0)


def test_stochastic_depth_drops_whole_items_and_keeps_the_mean() -> None:
    depth, x = StochasticDepth(0.1), torch.ones(4000, 2, 3)
    torch.manual_seed(0)
    items = depth(x)[:, 0, 0]
    assert torch.equal(depth.eval()(x), x)
    assert set(items.tolist()) == {0.0, float(torch.tensor(1 / 0.9))}
    assert abs(float(items.mean()) - 1) < 0.03  # six standard deviations of the mean


@functools.cache
def graph_of(factory: Factory, training: bool = False) -> DependencyGraph:
    return build_graph(seeded(factory).train(training), noise(1, 1, 400))


@every_network
def test_everything_but_outputs_and_slopes_can_be_pruned(factory: Factory) -> None:
    graph, sizes = graph_of(factory), [parameter.numel() for parameter in factory().parameters()]
    assert graph.coverage == pytest.approx(1 - sizes.count(1) / sum(sizes), abs=1e-12)
    assert not graph.without_rule
    assert {group.name for group in graph.locked} - {"sm.unet.globalatt.attn.pos_enc.pe[1]"} == {"decoder.weight[1]"}


@every_network
def test_sites_are_lines_of_the_network(factory: Factory) -> None:
    trace = build_graph(seeded(factory), noise(1, 1, 400)).trace
    files = {Path(trace.site(node).file) for node in trace.graph.nodes if node.op == "call_function"}
    assert {file.parent.name for file in files} == {"models"}


def test_dropout_does_not_hinder_pruning() -> None:
    training, evaluating = graph_of(tdanet, training=True), graph_of(tdanet)
    assert training.coverage == evaluating.coverage
    assert [group.name for group in training.groups] == [group.name for group in evaluating.groups]


@pytest.mark.parametrize(
    ("factory", "pattern", "groups"),
    [
        (tdanet, "sm.unet.globalatt.mlp.dwconv.bias", ["sm.unet.globalatt.mlp.fc1"]),
        (afrcnn, "sm.blocks.concat_layer.*.conv.bias", [f"sm.blocks.concat_layer.{level}" for level in range(3)]),
        (sudormrf, "sm.*.proj_1x1.conv.bias", [f"sm.{block}.proj_1x1" for block in range(2)]),
    ],
)
def test_sepprunes_groups_can_be_chosen_by_one_pattern(factory: Factory, pattern: str, groups: list[str]) -> None:
    graph = graph_of(factory)
    plan = select(graph, score(graph), Budget(ratio=0.5, include=pattern))
    shrunk = [name for name, kept in plan.kept.items() if len(kept) < plan.widths[name]]
    assert shrunk == [f"{group}.conv.weight[0]" for group in groups]


@functools.cache
def pruned_by_three_tenths(factory: Factory, device: str = "cpu") -> PruningResult:
    return prune(seeded(factory).to(device), noise(1, 1, 400).to(device), budget=Budget(macs=0.7), criterion="l1")


@every_network
def test_pruning_meets_the_budget_and_is_verified(factory: Factory) -> None:
    report = pruned_by_three_tenths(factory).report
    assert 0.6 < report.pruned.macs / report.dense.macs <= 0.7
    assert {check.name for check in report.verification.checks} >= {"weights", "cost", "output"}
    assert report.verification.difference < 1e-5


@every_network
@pytest.mark.parametrize("shape", [(1, 1, 400), (3, 1, 250), (300,)])
def test_a_pruned_network_takes_what_the_dense_one_takes(factory: Factory, shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        assert pruned_by_three_tenths(factory).model(noise(*shape)).shape == factory()(noise(*shape)).shape


@every_network
def test_a_pruned_network_takes_longer_audio_than_the_example(factory: Factory) -> None:
    with torch.no_grad():
        assert pruned_by_three_tenths(factory).model(noise(1, 1, 4000)).shape[-1] == 4000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_network
def test_pruning_on_a_gpu_stays_there(factory: Factory) -> None:
    result = pruned_by_three_tenths(factory, "cuda")
    assert result.report.verification.difference < 1e-5
    assert {parameter.device.type for parameter in result.model.parameters()} == {"cuda"}
