"""Choosing the next token by a generator of the run's own, so that runs in several threads reproduce."""

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from innerview.errors import GenerationError


class GumbelSampler:
    """Adds Gumbel noise to warped scores: the largest is then a draw from their softmax.

    Raises:
        GenerationError: `top_k` or `top_p` leaves nothing to draw among, or makes no sense.
    Reference: arXiv:1611.01144
    """

    def __init__(self, seed: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise GenerationError(f"top_k is a whole number from 1, not {top_k!r}; None draws among all tokens")
        if top_p is not None and not 0 < top_p <= 1:
            raise GenerationError(f"top_p is above 0 and at most 1, not {top_p!r}; None draws among all tokens")
        self._generator = torch.Generator().manual_seed(seed)
        warpers: list[Any] = [TemperatureLogitsWarper(temperature)]
        if top_k is not None:
            warpers.append(TopKLogitsWarper(top_k))
        if top_p is not None:
            warpers.append(TopPLogitsWarper(top_p))
        self._warpers = LogitsProcessorList(warpers)

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        """Scores whose largest entry is the draw, shape [rows, vocab]."""
        warped = self._warpers(input_ids, scores.float())
        noise = torch.empty(warped.shape).exponential_(generator=self._generator).log_().neg_()
        return warped + noise.to(warped.device)
