"""Who writes the tokens of a generation: a loop of our own around the network, or transformers' `generate`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from innerview.compiled_runs import CompiledRun
from innerview.compiling import Compiled
from innerview.decoding import decode
from innerview.models import text
from innerview.models.model import Model
from innerview.models.options import Options
from innerview.models.sampling import GumbelSampler
from innerview.models.stepping import GrowingSteps, StaticSteps, columns_for, why_not, why_not_static
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


class CompiledWriter:
    """A loop of our own around a compiled network, whose taps hold the edits."""

    name = "compiled"

    def __init__(self, request: Request, live: Compiled, run: CompiledRun) -> None:
        self._request = request
        self._live = live
        self._run = run

    def write(self, on_step: OnStep) -> None:
        """Write to the end."""
        asked, live = self._request, self._live
        ids, mask = asked.spread(asked.tokens.ids), asked.spread(asked.tokens.mask)
        rows, width = ids.shape
        columns = columns_for(width + asked.options.max_new_tokens, live.model.context)
        live.check_weights()
        self._run.compiling((rows, columns))
        cache = live.caches.take(rows, columns)
        try:
            steps = _Tapped(StaticSteps(live.model.module, live.step, cache, ids, mask), self._run, ids)
            decode(
                steps, ids, room=asked.options.max_new_tokens, stops=asked.stops, pad_id=asked.pad_id, sampler=asked.sampler, on_step=on_step
            )  # fmt: skip
        finally:
            live.caches.give(rows, cache)


class _Tapped:
    """Forwards as a run's own."""

    def __init__(self, steps: StaticSteps, run: CompiledRun, ids: Tensor) -> None:
        self._steps = steps
        self._run = run
        self._ids = ids
        self.decoding = steps.decoding

    def first(self) -> Tensor:
        return self._run.forward_of(self._ids, self._steps.first)

    def next(self, fresh: Tensor) -> Tensor:
        return self._run.forward_of(fresh[:, None], lambda: self._steps.next(fresh))


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


def why_not_loop(model: Model, options: Options) -> str | None:
    """Why transformers' `generate` writes; None where a loop of our own makes the very same calls of the network."""
    if options.num_beams > 1:
        return f"{options.num_beams} beams"
    return f"cache={options.cache!r}" if options.cache != "dynamic" else why_not(model.module)


def why_not_compiled(model: Model, options: Options) -> str | None:
    """Why compiled code does not write; None where it does."""
    if options.num_beams > 1:
        return f"{options.num_beams} beams"
    return f"cache={options.cache!r}" if options.cache == "none" else why_not_static(model.module)


def writer_of(request: Request, why_not_live: str | None) -> Writer:
    """Who writes what is asked, where no compiled code does.

    Args:
        request: What is asked.
        why_not_live: Why the compiled code that was given does not write; None where none was given.
    """
    why = why_not_loop(request.model, request.options)
    writer = LoopWriter(request) if why is None else GenerateWriter(request, why)
    if why_not_live is not None:
        writer.name = f"{writer.name}, not compiled: {why_not_live}"
    return writer
