"""The replacement of nn.MultiheadAttention against torch's own module and against loops over heads."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunegraph.errors import InputError, SurgeryError
from prunegraph.modules.attention import WidthFreeAttention, attention_forward

BATCH, QUERIES, KEYS, WIDTH, HEADS = 3, 5, 7, 12, 4
LAYOUTS = ("batch_first", "time_first", "unbatched")
CONFIGURATIONS = {
    "plain": {},
    "one head": {"num_heads": 1},
    "no bias": {"bias": False},
    "other key width": {"kdim": 6},
    "other key and value widths": {"kdim": 6, "vdim": 9},
    "other widths, no bias": {"kdim": 6, "vdim": 9, "bias": False},
    "learnt key": {"add_bias_kv": True},
    "zero key": {"add_zero_attn": True},
    "learnt and zero key": {"add_bias_kv": True, "add_zero_attn": True},
    "everything": {"kdim": 6, "vdim": 9, "add_bias_kv": True, "add_zero_attn": True, "dropout": 0.3},
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make_attention(batch_first: bool = False, **options: object) -> nn.MultiheadAttention:
    """An nn.MultiheadAttention in float64 with no parameter left at zero."""
    arguments = {"embed_dim": WIDTH, "num_heads": HEADS, **options}
    module = nn.MultiheadAttention(batch_first=batch_first, dtype=torch.float64, **arguments).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module


def make_inputs(module: nn.MultiheadAttention, layout: str, self_attention: bool) -> tuple[Tensor, Tensor, Tensor]:
    def draw(time: int, width: int) -> Tensor:
        shape = {"batch_first": (BATCH, time, width), "time_first": (time, BATCH, width), "unbatched": (time, width)}
        return torch.randn(shape[layout], dtype=torch.float64)

    query = draw(KEYS if self_attention else QUERIES, module.embed_dim)
    return (query, query, query) if self_attention else (query, draw(KEYS, module.kdim), draw(KEYS, module.vdim))


def assert_same(ours: tuple[Tensor, Tensor | None], theirs: tuple[Tensor, Tensor | None], tolerance: float) -> None:
    for our, their in zip(ours, theirs, strict=True):
        if their is None:
            assert our is None
        else:
            torch.testing.assert_close(our, their, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("weights", [(False, True), (True, True), (True, False)], ids=["none", "average", "heads"])
@pytest.mark.parametrize("self_attention", [True, False], ids=["self", "cross"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_equal_to_torch(configuration: str, layout: str, self_attention: bool, weights: tuple[bool, bool]) -> None:
    options = CONFIGURATIONS[configuration]
    if self_attention and "kdim" in options:
        options = {**options, "kdim": WIDTH, "vdim": WIDTH}
    module = make_attention(layout == "batch_first", **options)
    inputs = make_inputs(module, layout, self_attention)
    need, average = weights
    theirs = module(*inputs, need_weights=need, average_attn_weights=average)
    replacement = WidthFreeAttention.from_module(module)
    assert_same(replacement(*inputs, need_weights=need, average_attn_weights=average), theirs, 1e-12)
    assert_same(attention_forward(module, *inputs, None, need, None, average), theirs, 1e-12)


def make_masks(layout: str, heads: int, padding: str | None, mask: str | None) -> dict[str, Tensor | None]:
    """Masks of the named kinds; the first key is hidden from no query, so that no row is all minus infinity."""
    batch = 1 if layout == "unbatched" else BATCH
    hidden = torch.rand(batch, KEYS) < 0.4
    hidden[:, 0] = False
    shape = (QUERIES, KEYS) if mask is not None and mask.startswith("2") else (batch * heads, QUERIES, KEYS)
    forbidden = torch.rand(shape) < 0.4
    forbidden[..., 0] = False
    found = {"key_padding_mask": None, "attn_mask": None}
    if padding is not None:
        found["key_padding_mask"] = hidden if padding == "bool" else torch.randn(batch, KEYS, dtype=torch.float64)
        if layout == "unbatched":
            found["key_padding_mask"] = found["key_padding_mask"].squeeze(0)
    if mask is not None:
        found["attn_mask"] = forbidden if mask.endswith("bool") else torch.randn(shape, dtype=torch.float64)
    return found


MASKS = [
    (padding, mask)
    for padding, mask in itertools.product(
        (None, "bool", "float"), (None, "2-d bool", "2-d float", "3-d bool", "3-d float")
    )
    if (padding or mask) and not (padding and mask and not mask.endswith(padding))
]


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("padding", "mask"), MASKS)
@pytest.mark.parametrize("configuration", ["plain", "learnt and zero key", "other key and value widths"])
def test_masks_equal_to_torch(
    configuration: str, padding: str | None, mask: str | None, layout: str, need_weights: bool
) -> None:
    module = make_attention(layout == "batch_first", **CONFIGURATIONS[configuration])
    inputs = make_inputs(module, layout, self_attention=False)
    masks = make_masks(layout, HEADS, padding, mask)
    theirs = module(*inputs, need_weights=need_weights, **masks)
    ours = WidthFreeAttention.from_module(module)(*inputs, need_weights=need_weights, **masks)
    assert not torch.allclose(theirs[0], module(*inputs)[0])
    assert_same(ours, theirs, 1e-12)


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("configuration", ["plain", "learnt key", "zero key"])
def test_causal_hint_equal_to_torch(configuration: str, need_weights: bool, padding: bool) -> None:
    module = make_attention(batch_first=True, **CONFIGURATIONS[configuration])
    x = torch.randn(BATCH, QUERIES, WIDTH, dtype=torch.float64)
    mask = torch.triu(torch.ones(QUERIES, QUERIES, dtype=torch.bool), diagonal=1)
    hidden = torch.zeros(BATCH, QUERIES, dtype=torch.bool)
    hidden[:, -1] = True
    options = {
        "need_weights": need_weights,
        "attn_mask": mask,
        "is_causal": True,
        "key_padding_mask": hidden if padding else None,
    }
    assert_same(WidthFreeAttention.from_module(module)(x, x, x, **options), module(x, x, x, **options), 1e-12)


def test_causal_hint_without_mask_is_refused() -> None:
    module = WidthFreeAttention.from_module(make_attention())
    x = torch.randn(QUERIES, BATCH, WIDTH, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="give attn_mask"):
        module(x, x, x, is_causal=True)


@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_in_training_equal_to_torch(need_weights: bool) -> None:
    module = make_attention(batch_first=True, dropout=0.5).train()
    x = torch.randn(BATCH, QUERIES, WIDTH, dtype=torch.float64)
    results = []
    for layer in (WidthFreeAttention.from_module(module), module):
        torch.manual_seed(7)
        results.append(layer(x, x, x, need_weights=need_weights))
    assert not torch.allclose(results[1][0], module.eval()(x, x, x)[0])
    assert_same(*results, 1e-12)


def test_gradients_equal_to_torch() -> None:
    module = make_attention(add_bias_kv=True, kdim=6, vdim=9)
    inputs = make_inputs(module, "time_first", self_attention=False)
    theirs = torch.autograd.grad(module(*inputs)[0].square().sum(), list(module.parameters()))
    ours = torch.autograd.grad(
        WidthFreeAttention.from_module(module)(*inputs)[0].square().sum(), list(module.parameters())
    )
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    module = make_attention(batch_first=True)
    x = torch.randn(BATCH, QUERIES, WIDTH, dtype=torch.float64)
    expected = module(x, x, x)[0]
    replacement = copy.deepcopy(WidthFreeAttention.from_module(module)).to(dtype)
    output, weights = replacement(x.to(dtype), x.to(dtype), x.to(dtype))
    assert output.dtype == weights.dtype == dtype
    torch.testing.assert_close(output.double(), expected, rtol=0.1, atol=0.1)


# --- widths of its own -------------------------------------------------------------------------------------------


def narrowed(module: nn.MultiheadAttention, query_width: int, value_width: int) -> WidthFreeAttention:
    """The module with the first rows of each head only; the parameters of ``module`` stay as they are."""
    heads = module.num_heads
    of_query = np.arange(WIDTH).reshape(heads, -1)[:, : query_width // heads].ravel()
    of_value = np.arange(WIDTH).reshape(heads, -1)[:, : value_width // heads].ravel()
    rows = {"q": of_query, "k": of_query, "v": of_value}
    packed = np.concatenate([of_query, WIDTH + of_query, 2 * WIDTH + of_value])
    replacement = copy.deepcopy(WidthFreeAttention.from_module(module))

    def cut(owner: nn.Module, name: str, *index: object) -> None:
        if getattr(owner, name) is not None:
            setattr(owner, name, nn.Parameter(getattr(owner, name).data[index]))

    cut(replacement, "in_proj_weight", packed)
    cut(replacement, "in_proj_bias", packed)
    for part, kept in rows.items():
        cut(replacement, f"{part}_proj_weight", kept)
    cut(replacement, "bias_k", slice(None), slice(None), of_query)
    cut(replacement, "bias_v", slice(None), slice(None), of_value)
    cut(replacement.out_proj, "weight", slice(None), of_value)
    return replacement


def reference(module: WidthFreeAttention, query: Tensor, key: Tensor, value: Tensor) -> NDArray[np.float64]:
    """Multi-head attention of one sequence, ``(time, channels)``, spelt out with loops over heads and queries."""
    state = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    value_width = state["out_proj.weight"].shape[1]
    if "in_proj_weight" in state:
        query_width = (len(state["in_proj_weight"]) - value_width) // 2
        matrices = np.split(state["in_proj_weight"], [query_width, 2 * query_width])
    else:
        query_width = len(state["q_proj_weight"])
        matrices = [state[f"{part}_proj_weight"] for part in "qkv"]
    biases = np.split(state["in_proj_bias"], [query_width, 2 * query_width])
    inputs = (query.numpy(), key.numpy(), value.numpy())
    q, k, v = (x @ matrix.T + bias for x, matrix, bias in zip(inputs, matrices, biases, strict=True))
    if "bias_k" in state:
        k, v = np.vstack([k, state["bias_k"][0]]), np.vstack([v, state["bias_v"][0]])
    columns = []
    for qh, kh, vh in zip(*(np.split(x, module.num_heads, axis=1) for x in (q, k, v)), strict=True):
        head = []
        for row in qh:
            scores = np.array([np.dot(row, other) / np.sqrt(len(row)) for other in kh])
            weights = np.exp(scores - scores.max())
            head.append(sum(w * x for w, x in zip(weights / weights.sum(), vh, strict=True)))
        columns.append(np.stack(head))
    return np.hstack(columns) @ state["out_proj.weight"].T + state["out_proj.bias"]


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(("query_width", "value_width"), [(4, 12), (8, 4), (12, 8), (4, 4)])
@pytest.mark.parametrize("configuration", ["plain", "learnt key", "other key and value widths"])
def test_narrow_heads_equal_to_loops(
    configuration: str, query_width: int, value_width: int, need_weights: bool
) -> None:
    module = narrowed(make_attention(**CONFIGURATIONS[configuration]), query_width, value_width)
    assert (module.query_width, module.value_width, module.head_dim) == (query_width, value_width, query_width // HEADS)
    inputs = make_inputs(module, "unbatched", self_attention=False)
    with torch.no_grad():
        output, _ = module(*inputs, need_weights=need_weights)
    np.testing.assert_allclose(output.numpy(), reference(module, *inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", ["batch_first", "time_first"])
def test_narrow_heads_of_a_batch(layout: str) -> None:
    module = narrowed(make_attention(layout == "batch_first"), 4, 8)
    inputs = make_inputs(module, layout, self_attention=True)
    with torch.no_grad():
        output, weights = module(*inputs)
    for index in range(BATCH):
        sequence = inputs[0].select(0 if layout == "batch_first" else 1, index)
        ours = output.select(0 if layout == "batch_first" else 1, index)
        np.testing.assert_allclose(ours.numpy(), reference(module, *[sequence] * 3), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(BATCH, KEYS, dtype=torch.float64))


def test_width_attributes_follow_the_parameters() -> None:
    module = WidthFreeAttention.from_module(make_attention(kdim=6, vdim=9))
    assert (module.embed_dim, module.kdim, module.vdim) == (WIDTH, 6, 9)
    module.q_proj_weight = nn.Parameter(torch.zeros(8, 10))
    assert (module.embed_dim, module.query_width, module.head_dim) == (10, 8, 2)
    assert "query_width=8, value_width=12" in repr(module)


# --- a good citizen of torch -------------------------------------------------------------------------------------


def test_from_module_shares_parameters_and_keeps_hooks() -> None:
    module = make_attention(dropout=0.1).train()
    calls: list[str] = []
    module.register_forward_hook(lambda *_: calls.append("forward"))
    replacement = WidthFreeAttention.from_module(module)
    assert dict(replacement.named_parameters()).keys() == dict(module.named_parameters()).keys()
    for name, parameter in module.named_parameters():
        assert replacement.get_parameter(name) is parameter
    assert replacement.training
    assert module._qkv_same_embed_dim
    x = torch.randn(QUERIES, BATCH, WIDTH, dtype=torch.float64)
    replacement(x, x, x)
    assert calls == ["forward"]
    replacement.in_proj_weight = nn.Parameter(torch.zeros(1, 1))
    assert module.in_proj_weight.shape == (3 * WIDTH, WIDTH)


def test_from_module_of_a_replacement_is_equal() -> None:
    module = narrowed(make_attention(), 4, 8)
    inputs = make_inputs(module, "time_first", self_attention=True)
    assert_same(WidthFreeAttention.from_module(module)(*inputs), module(*inputs), 0.0)


class _Derived(nn.MultiheadAttention):
    pass


def test_derived_classes_are_refused() -> None:
    with pytest.raises(SurgeryError, match="_Derived is derived from"):
        WidthFreeAttention.from_module(_Derived(8, 2))
    with pytest.raises(SurgeryError, match="from_module"):
        WidthFreeAttention(8, 2)


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_equal_and_apart(copy_of: object) -> None:
    module = narrowed(make_attention(), 4, 8)
    inputs = make_inputs(module, "time_first", self_attention=True)
    twin = copy_of(module)
    assert_same(twin(*inputs), module(*inputs), 0.0)
    nn.init.zeros_(twin.in_proj_weight)
    assert module.in_proj_weight.abs().sum() > 0


def test_state_dict_round_trip() -> None:
    source, target = narrowed(make_attention(), 4, 8), narrowed(make_attention(), 4, 8)
    assert source.state_dict().keys() == nn.MultiheadAttention(WIDTH, HEADS).state_dict().keys()
    inputs = make_inputs(source, "time_first", self_attention=True)
    target.load_state_dict(source.state_dict())
    assert_same(target(*inputs), source(*inputs), 0.0)


@pytest.mark.parametrize("need_weights", [False, True])
def test_compiles_without_graph_breaks(need_weights: bool) -> None:
    module = narrowed(make_attention(batch_first=True, add_zero_attn=True), 4, 8)
    inputs = make_inputs(module, "batch_first", self_attention=True)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    assert_same(compiled(*inputs, need_weights=need_weights), module(*inputs, need_weights=need_weights), 1e-12)


def replace_all(model: nn.Module) -> nn.Module:
    """A deep copy in which every nn.MultiheadAttention is replaced."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.MultiheadAttention:
                setattr(module, name, WidthFreeAttention.from_module(child))
    return model


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("fast_path", [False, True], ids=["slow path", "fast path"])
def test_transformer_encoder_layer(norm_first: bool, fast_path: bool) -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True, norm_first=norm_first, dtype=torch.float64)
    x = torch.randn(BATCH, QUERIES, WIDTH, dtype=torch.float64)
    hidden = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])
    with torch.set_grad_enabled(not fast_path):
        expected = layer.eval()(x, src_key_padding_mask=hidden)
        found = replace_all(layer)(x, src_key_padding_mask=hidden)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("fast_path", [False, True], ids=["slow path", "fast path"])
def test_transformer_encoder_with_padding(fast_path: bool) -> None:
    """In its fast path the encoder makes a nested tensor of a padded batch, and zeros of the padding."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True, dtype=torch.float64)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    replaced = replace_all(encoder)
    x = torch.randn(BATCH, QUERIES, WIDTH, dtype=torch.float64)
    hidden = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])
    with torch.set_grad_enabled(not fast_path):
        expected = encoder(x, src_key_padding_mask=hidden)
        found = replaced(x, src_key_padding_mask=hidden)
    assert bool((expected[hidden] == 0).all()) == fast_path
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_serve_self_attention_only() -> None:
    module = WidthFreeAttention.from_module(make_attention(batch_first=True))
    sequences = [torch.randn(length, WIDTH, dtype=torch.float64) for length in (3, 5)]
    nested = torch.nested.nested_tensor(sequences)
    with torch.no_grad():
        output, _ = module(nested, nested, nested, need_weights=False)
        for sequence, ours in zip(sequences, output.unbind(), strict=True):
            torch.testing.assert_close(ours, module(sequence, sequence, sequence)[0], rtol=1e-12, atol=1e-12)
    with pytest.raises(InputError, match="self-attention"):
        module(nested, torch.randn(2, 5, WIDTH, dtype=torch.float64), nested)


def test_transformer_encoder_built_around_a_replacement_declines_the_fast_path() -> None:
    layer = replace_all(nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True))
    with pytest.warns(UserWarning, match="_qkv_same_embed_dim was not True"):
        encoder = nn.TransformerEncoder(layer, 1)
    assert not encoder.use_nested_tensor


def test_transformer_with_decoder() -> None:
    model = nn.Transformer(WIDTH, HEADS, 2, 2, 16, dropout=0.0, batch_first=True, dtype=torch.float64).eval()
    source, target = (torch.randn(BATCH, time, WIDTH, dtype=torch.float64) for time in (KEYS, QUERIES))
    causal = model.generate_square_subsequent_mask(QUERIES, dtype=torch.float64)
    options = {"tgt_mask": causal, "tgt_is_causal": True}
    torch.testing.assert_close(
        replace_all(model)(source, target, **options), model(source, target, **options), rtol=1e-12, atol=1e-12
    )


def test_narrow_attention_in_an_encoder_layer_trains_and_infers_alike() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, dropout=0.0, batch_first=True, dtype=torch.float64)
    layer.self_attn = narrowed(make_attention(batch_first=True), 4, 8)
    x = torch.randn(BATCH, QUERIES, WIDTH, dtype=torch.float64)
    trained = layer.train()(x)
    trained.sum().backward()
    assert layer.self_attn.in_proj_weight.grad.shape == (16, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x), trained.detach(), rtol=1e-12, atol=1e-12)
