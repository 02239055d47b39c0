"""Random networks, pruned by random plans: surgery, exact masked program and cost agree to rounding."""

import pytest
from hypothesis import event, given

import prunegraph
from tests.properties.networks import BLOCKS, JOINS, NetworkSpec, build, leaves, network_specs
from tests.properties.pruning import check_pruning
from tests.properties.regressions import REGRESSIONS
from tests.properties.single_blocks import specs_of

WITH_LOCKS = {
    "ChannelsAsSpace": "a kernel slides over the channels",
    "NormedWeight": "spectral norm flattens the kernel's taps",
    "TiedWeights": "one tap of a kernel is used by itself",
    "ImageNorm": "a layer norm over bands, whose number is fixed",
    "Gate": "every second channel, counted from the second",
    "ChannelPool": "a gate made of two fixed features",
    "Shuffle": "sizes written in the code",
    "CatSplit": "chunks of unequal size, and a cut counted from the end",
    "StackUnbind": "one weight per branch",
    "Reorder": "channels rolled and addressed by number",
    "DynamicFilters": "filters of groups of channels, whose number stays",
    "MergeIntoBatch": "features of each channel flattened with the channels",
    "Neighbours": "a window slides over the channels",
    "WrittenAttention": "sizes written in the code, masks as long as the longest input",
    "OtherAttention": "attention runs along learnt queries",
    "Positions": "encodings of fixed length, or computed from the number of the channel",
    "SpectralFilter": "a window of fixed length",
    "SpectralMask": "as many features as the transform has bins",
    "Cache": "a past of fixed length",
    "Creation": "values computed from the number of the channel",
    "SizedView": "a size that numpy computed",
    "ChannelLoop": "channels taken by number",
    "AlongChannels": "the order or the number of the channels matters",
    "DerivedLayer": "a grouped convolution with one output per group; attention that code of its own goes around",
    "Parametrized": "a norm flattens the kernel's taps",
    "Frames": "strides of the memory",
    "Recurrent": "an LSTM stays wider than its projection",
    "Repeat": "a grouped convolution sees the first half of one feature beside the other's",
}
"""Blocks in which something must stay, and why; in all others every channel can be pruned."""


WITHOUT_RULE = {"aten.diff", "aten.quantile.scalar"}
"""Ops that serve to see that what has no rule is locked."""


@given(network_specs())
def test_random_networks_are_pruned_exactly(spec: NetworkSpec) -> None:
    graph = check_pruning(spec)
    event(f"{len(list(leaves(spec.body)))} blocks")
    event("something to prune" if graph.groups else "nothing to prune")


@pytest.mark.parametrize("kind", [*BLOCKS, *JOINS])
def test_every_option_is_pruned_exactly(kind: str) -> None:
    for spec in specs_of(kind):
        graph = check_pruning(spec)
        assert set(graph.without_rule) <= WITHOUT_RULE, spec
        assert kind in WITH_LOCKS or not graph.locked, (spec, graph.locked)


@pytest.mark.parametrize("kind", [*BLOCKS, *JOINS])
def test_moments_of_what_is_read_order_the_channels(kind: str) -> None:
    model, inputs = build(next(iter(specs_of(kind))))
    graph = prunegraph.build_graph(model, inputs)
    scores = prunegraph.score(graph, "reconstruction", data=[(inputs, None)])
    assert {name: found.shape for name, found in scores.items()} == {g.name: (g.width,) for g in graph.groups}
    assert all(len(found.unique()) == len(found) and 0 <= found.min() <= found.max() <= 1 for found in scores.values())


@pytest.mark.parametrize("name", REGRESSIONS)
def test_networks_that_once_failed(name: str) -> None:
    check_pruning(REGRESSIONS[name])
