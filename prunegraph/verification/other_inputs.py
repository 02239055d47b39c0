"""Inputs of other shapes than the example's: what is right for one shape may be wrong for another."""

from collections.abc import Iterator, Sequence

import torch


def other_inputs(example: Sequence[torch.Tensor]) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """What differs, and the example's tensors so: a batch of two, less, and more along each dimension but the first.

    Tensors of one dimension are lengths, rates and the like, and stay as they are.
    """
    yield "batch of 2", [torch.cat([tensor, tensor]) if tensor.dim() > 1 else tensor for tensor in example]
    yield "shorter input", [_shortened(tensor) if tensor.dim() > 1 else tensor for tensor in example]
    for place in range(1, max((tensor.dim() for tensor in example), default=0)):
        name = "longer input" if place == 1 else f"input that is longer along dimension -{place}"
        yield name, [_lengthened(tensor, -place) if tensor.dim() > place else tensor for tensor in example]


def _shortened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[..., : max(1, tensor.shape[-1] * 3 // 4)]


def _lengthened(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.cat([tensor, tensor.narrow(dim, 0, -(-tensor.shape[dim] // 4))], dim)
