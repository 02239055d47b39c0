"""Inputs other than the example: silence tells nothing, and what is right for one shape may be wrong for another."""

from collections.abc import Iterator, Sequence

import torch

from prunegraph.capture.example import Nested


def heard(example: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
    """Noise in place of an example that is silent, or no numbers: whatever a network does, it may make nothing of them.

    Returns:
        The tensors with noise for such; None if there is something to hear among those of real or complex numbers.
        Tensors of one dimension are lengths, rates and the like, and stay as they are.
    """
    signals = [t for t in example if t.dim() > 1 and (t.is_floating_point() or t.is_complex())]
    if not signals or any(bool(signal[signal.isfinite()].any()) for signal in signals):
        return None
    noise = torch.Generator().manual_seed(0)
    silent = {id(signal) for signal in signals}
    return [torch.randn(t.shape, generator=noise).to(t) if id(t) in silent else t for t in example]


def other_inputs(example: Nested) -> Iterator[tuple[str, Sequence[torch.Tensor]]]:
    """What differs, and the example's tensors so: a batch of two, less, and more along each dimension but the first.

    Tensors of one dimension are lengths, rates and the like, which less and more of the others leave as they are.
    """
    yield "batch of 2", example.twice().tensors
    yield "shorter input", [_shortened(tensor) if tensor.dim() > 1 else tensor for tensor in example.tensors]
    for place in range(1, max((tensor.dim() for tensor in example.tensors), default=0)):
        name = "longer input" if place == 1 else f"input that is longer along dimension -{place}"
        yield name, [_lengthened(tensor, -place) if tensor.dim() > place else tensor for tensor in example.tensors]


def _shortened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[..., : max(1, tensor.shape[-1] * 3 // 4)]


def _lengthened(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.cat([tensor, tensor.narrow(dim, 0, -(-tensor.shape[dim] // 4))], dim)
