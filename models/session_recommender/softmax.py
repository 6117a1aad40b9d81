"""The normaliser of a softmax over a whole catalogue, fast on a CPU: no logits are kept, and none needs a maximum."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

CHUNK = 8192
"""Articles at a time: what is in flight stays in the cache."""


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively, else float32."""
    native = torch.cpu._is_avx512_bf16_supported() if device.type == "cpu" else True
    return torch.bfloat16 if native else torch.float32


class _LogSumExp(torch.autograd.Function):
    """The gradient needs the exponentials once more: they are kept in the fast type, and nothing else is."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, vectors: Tensor) -> Tensor:
        dtype = fast_dtype(queries.device)
        fast, total, mean = queries.to(dtype), queries.new_zeros(len(queries)), torch.zeros_like(queries)
        kept = []
        for chunk in vectors.to(dtype).split(CHUNK):
            exponentials = (fast @ chunk.T).exp_()
            total += exponentials.sum(1, dtype=torch.float32)
            mean += (exponentials @ chunk).float()
            kept.append(exponentials)
        ctx.save_for_backward(queries, mean / total[:, None], total, *kept)
        return total.log()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        queries, mean, total, *kept = ctx.saved_tensors
        (gradient,) = gradients
        weighted = (queries * (gradient / total)[:, None]).to(fast_dtype(queries.device))
        return mean * gradient[:, None], torch.cat([e.T @ weighted for e in kept]).float()


def logsumexp(queries: Tensor, vectors: Tensor) -> Tensor:
    """log sum_j exp(queries @ vectors[j]), float32 (n,), of float32 (n, dim) and (articles, dim).

    The products must stay within +-80, as those of vectors of bounded length do: then no exponential overflows, and one
    pass over the articles is enough. The relative error of the gradient is about 4e-4 in bfloat16.
    """
    return _LogSumExp.apply(queries, vectors)  # type: ignore[no-untyped-call]


def catalogue_logsumexp(
    queries: Tensor, vectors: Callable[[Tensor], Tensor], articles: Tensor, labels: Tensor, most: int
) -> Tensor:
    """`logsumexp` over the vectors of all `articles`, or, where these are more than `most`, with an unbiased estimate
    of the sum: the batch's own labels exactly, and a uniform sample of the rest, weighted up.
    """
    if len(articles) <= most:
        return logsumexp(queries, vectors(articles))
    own = labels.unique()
    left = torch.ones(len(articles), dtype=torch.bool, device=articles.device)
    left[torch.searchsorted(articles, own)] = False
    others = articles[left]
    if not len(others):
        return logsumexp(queries, vectors(own))
    rest = others[torch.randint(len(others), (most,), device=articles.device)]
    more = np.log(len(others) / most)
    return torch.logaddexp(logsumexp(queries, vectors(own)), logsumexp(queries, vectors(rest)) + more)
