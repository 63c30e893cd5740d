"""Choosing the next token by a generator of the run's own, so that runs in several threads reproduce."""

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from innerview.models.options import Options


class GumbelSampler:
    """Adds Gumbel noise to warped scores: the largest is then a draw from their softmax.

    Reference: arXiv:1611.01144
    """

    def __init__(self, options: Options) -> None:
        self._generator = torch.Generator().manual_seed(options.seed)
        warpers: list[Any] = [TemperatureLogitsWarper(float(options.temperature))]
        if options.top_k is not None:
            warpers.append(TopKLogitsWarper(options.top_k))
        if options.top_p is not None:
            warpers.append(TopPLogitsWarper(float(options.top_p)))
        self._warpers = LogitsProcessorList(warpers)

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        """Scores whose largest entry is the draw, shape [rows, vocab]."""
        warped = self._warpers(input_ids, scores.float())
        noise = torch.empty(warped.shape).exponential_(generator=self._generator).log_().neg_()
        return warped + noise.to(warped.device)
