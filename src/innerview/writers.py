"""Who writes the tokens of a generation: a loop of our own around the network, or transformers' `generate`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from innerview.decoding import decode
from innerview.models import text
from innerview.models.model import Model
from innerview.models.options import Options
from innerview.models.sampling import GumbelSampler
from innerview.models.stepping import GrowingSteps, why_not
from innerview.models.writing import generation_config

OnStep = Callable[[Tensor], None]


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be written.

    Attributes:
        model: The network.
        tokens: What is gone on from, padded left.
        read: What an encoder reads; None without one.
        options: How it is written.
        stops: Ids that end a row.
        pad_id: Id that fills a row behind its end.
        sampler: Makes scores whose largest entry is the draw; None takes the likeliest token.
    """

    model: Model
    tokens: text.Tokens
    read: text.Tokens | None
    options: Options
    stops: list[int]
    pad_id: int
    sampler: GumbelSampler | None

    @property
    def each(self) -> int:
        """Rows of each prompt."""
        return self.options.num_return_sequences if self.options.is_drawn else 1

    def spread(self, given: Tensor) -> Tensor:
        """What is known of each prompt, for each of its rows, where the network is."""
        rows = given if self.each == 1 else given.repeat_interleave(self.each, dim=0)
        return rows.to(self.model.device)


class Writer(Protocol):
    """Who writes.

    Attributes:
        name: In words.
    """

    name: str

    def write(self, on_step: OnStep) -> Tensor | None:
        """Write to the end.

        Args:
            on_step: Told behind each token the ids of every row so far, shape [rows, columns]. It raises to stop.
        Returns:
            The ids in the end, where they are not those of the last step.
        """
        ...


class LoopWriter:
    """A loop of our own: the very forwards that `generate` makes, without what stands around them."""

    name = "own loop"

    def __init__(self, request: Request) -> None:
        self._request = request

    def write(self, on_step: OnStep) -> None:
        """Write to the end."""
        asked = self._request
        ids, mask = asked.spread(asked.tokens.ids), asked.spread(asked.tokens.mask)
        decode(
            GrowingSteps(asked.model.module, ids, mask), ids, room=asked.options.max_new_tokens, stops=asked.stops,
            pad_id=asked.pad_id, sampler=asked.sampler, on_step=on_step,
        )  # fmt: skip


class GenerateWriter:
    """The network's own `generate`.

    Args:
        why: Why it is not the loop of our own.
    """

    def __init__(self, request: Request, why: str) -> None:
        self.name = f"transformers' generate: {why}"
        self._request = request
        # What transformers is told behind each token: no row ends for our sake.
        self._goes_on: Tensor | None = None

    def write(self, on_step: OnStep) -> Tensor:
        """Write to the end; the ids of the best beams stand behind it."""
        asked = self._request
        read = asked.tokens if asked.read is None else asked.read
        given = {"input_ids": read.ids, "attention_mask": read.mask.long()}
        if asked.read is not None:
            given["decoder_input_ids"] = asked.tokens.ids

        def tell(input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
            # Candidates of each prompt come best first; unfinished beams hold no end of text.
            each = input_ids.shape[0] // asked.tokens.ids.shape[0] if asked.options.num_beams > 1 else 1
            on_step(input_ids[::each].cpu())
            if self._goes_on is None or self._goes_on.shape[0] != input_ids.shape[0]:
                self._goes_on = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
            return self._goes_on

        network: Any = asked.model.module
        written = network.generate(
            **{name: asked.spread(value) for name, value in given.items()},
            generation_config=generation_config(asked.options, stops=asked.stops, pad_id=asked.pad_id),
            logits_processor=[asked.sampler] if asked.sampler else [],
            stopping_criteria=[tell],
        )
        return written.cpu()


def writer_of(request: Request) -> Writer:
    """Who writes what is asked: the loop of our own wherever it makes the same calls of the network as `generate`."""
    options = request.options
    if options.num_beams > 1:
        why = f"{options.num_beams} beams"
    elif options.cache != "dynamic":
        why = f"cache={options.cache!r}"
    else:
        why = why_not(request.model.module)
    return LoopWriter(request) if why is None else GenerateWriter(request, why)
