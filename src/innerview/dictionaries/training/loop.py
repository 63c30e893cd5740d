"""The loop of a training: batches, steps of every dictionary, saved states, and what a stop leaves."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.manifest import Manifest, Normalisation
from innerview.dictionaries.training.harvest import CONTEXT
from innerview.dictionaries.training.learner import Learner
from innerview.dictionaries.training.live import LiveTraining, contexts_of
from innerview.dictionaries.training.processes import Processes
from innerview.dictionaries.training.result import DictionaryTraining
from innerview.dictionaries.training.settings import DictionarySpec, TrainingSettings
from innerview.dictionaries.training.sources import Source
from innerview.dictionaries.training.states import fingerprint, load_state, save_state
from innerview.dictionaries.training.statistics import measured
from innerview.dictionaries.training.windows import Batch
from innerview.dictionaries.training.workers import Each, side_by_side
from innerview.errors import DictionaryError
from innerview.interrupts import Uninterrupted
from innerview.opened import opened
from innerview.progress import progress

# Tokens on which factors and first biases are measured, and the last ones, on which finished dictionaries are.
SAMPLE_TOKENS = 8192
RECENT_TOKENS = 16_384
RECENT_BYTES = 1 << 28
# A batch, the number of its pass, and how many batches of that pass have come by then.
Placed = tuple[Batch, int, int]


@dataclass(eq=False)
class Loop:
    """A training.

    Attributes:
        source: Where tokens come from.
        specs: The dictionaries.
        settings: How they run through the tokens.
        processes: Those that train together.
        folder: Where its state is saved; None saves none.
    """

    source: Source
    specs: tuple[DictionarySpec, ...]
    settings: TrainingSettings
    processes: Processes
    folder: Path | None
    done: int = 0
    at_pass: int = 0
    first: int = 0
    learners: list[Learner] = field(default_factory=list)
    recent: deque[Batch] = field(default_factory=deque)

    def run(self, *, is_shown: bool) -> DictionaryTraining:
        """Train to the end, or to a stop."""
        started = time.monotonic()
        n_tokens = self._n_tokens()
        n_steps = max(1, n_tokens // self.settings.batch_tokens)
        live = LiveTraining(self.specs, n_steps, n_tokens, self.source.model)
        batches = self._begin(n_steps, live)
        opened.add("training", live)
        try:
            self._steps(batches, n_steps, live, is_shown=is_shown and self.processes.is_first)
        except KeyboardInterrupt:
            live.stop()
        except BaseException:
            # Whoever watches must not believe that it still runs.
            live.state = "failed"
            live.tell()
            raise
        live.state = "done" if self.done == n_steps else "stopped"
        if self.folder is not None:
            self._save()
        live.tell()
        return self._result(live, time.monotonic() - started)

    def _n_tokens(self) -> int:
        found = self.settings.n_tokens or self.source.n_tokens
        if found is None:
            raise DictionaryError("nobody knows how many tokens these are; give n_tokens")
        if found < self.settings.batch_tokens:
            raise DictionaryError(
                f"{found} tokens are fewer than one batch of {self.settings.batch_tokens}; give a smaller batch_tokens"
            )
        return found

    @property
    def _sites(self) -> list[str]:
        return list(dict.fromkeys(site for spec in self.specs for site in spec.sites))

    def _begin(self, n_steps: int, live: LiveTraining) -> Iterator[Placed]:
        """Learners as they start, or as they were saved, and the batches that are left."""
        wanted = fingerprint(self.specs, self.settings)
        state = None if self.folder is None else load_state(self.folder, wanted)
        if state is not None:
            self.done, self.at_pass, self.first = state["done"], state["pass"], state["first"]
        batches = self._batches()
        ahead: list[Placed] = []
        for placed in batches:
            ahead.append(placed)
            if len(ahead) * self.settings.batch_tokens >= SAMPLE_TOKENS or state is not None:
                break
        if not ahead and (state is None or self.done < n_steps):
            raise DictionaryError(
                f"the source gives no batch of {self.settings.batch_tokens} tokens; give a smaller one"
            )
        # A finished state needs no batch: what was measured of it is in the state.
        sample = (
            {site: torch.cat([batch[site] for batch, _, _ in ahead]) for site in self._sites}
            if ahead
            else {site: torch.ones(1, width) for site, width in (state or {})["widths"].items()}
        )
        self.learners = [Learner(spec, self.settings, sample, n_steps, self.processes) for spec in self.specs]
        if state is not None:
            for learner, one in zip(self.learners, state["learners"], strict=True):
                learner.restore(one)
        live.step, live.tokens = self.done, self.done * self.settings.batch_tokens
        live.histories = [learner.history for learner in self.learners]
        live.examples = [{} for _ in self.learners]
        return self._chained(ahead, batches)

    @staticmethod
    def _chained(ahead: list[Placed], batches: Iterator[Placed]) -> Iterator[Placed]:
        while ahead:
            yield ahead.pop(0)
        yield from batches

    def _batches(self) -> Iterator[Placed]:
        """Whole batches from where training stands, pass after pass, until a pass gives none; each with the place behind it."""
        at, first = self.at_pass, self.first
        while True:
            seed = self.settings.seed * 1_000_003 + at
            n = 0
            for batch in self.source.batches(self._sites, self.settings.batch_tokens, seed, first=first):
                if len(batch[self._sites[0]]) == self.settings.batch_tokens:
                    n += 1
                    yield batch, at, first + n
            if not n and not first:
                return
            at, first = at + 1, 0

    def _steps(self, batches: Iterator[Placed], n_steps: int, live: LiveTraining, *, is_shown: bool) -> None:
        saved = time.monotonic()
        size = self.settings.batch_tokens
        shown = progress(n_steps, "training", "step", delay_s=2.0, is_shown=is_shown)
        with shown as tick, side_by_side(self._threads) as each:
            while self.done < n_steps and not self._is_stopping(live):
                placed = next(batches, None)
                if placed is None:
                    return
                batch = placed[0]
                # An interrupt waits for the step to end, so that weights and what is counted of them agree.
                with Uninterrupted():
                    self._step(batch, live, each)
                    _, self.at_pass, self.first = placed
                tick(1)
                if self.done % self.settings.report_every == 0 or self.done == n_steps:
                    self._report(batch, live, self.done * size)
                if self.folder is not None and time.monotonic() - saved >= self.settings.save_every_s:
                    self._save()
                    saved = time.monotonic()

    def _is_stopping(self, live: LiveTraining) -> bool:
        """Whether any process was told to stop: all stop behind the same step."""
        if self.processes.count == 1:
            return live.is_stopping
        return bool(self.processes.summed(torch.tensor([int(live.is_stopping)], device=self.settings.where())))

    @property
    def _threads(self) -> int:
        """Dictionaries that may take their steps side by side: all on a CPU, in order where processes speak to one another or a GPU queues."""
        is_alone = self.processes.count == 1 and self.settings.where().type == "cpu"
        return len(self.learners) if is_alone else 1

    def _step(self, batch: Batch, live: LiveTraining, each: Each[Learner]) -> None:
        own = {site: self.processes.part(batch[site]) for site in self._sites}
        seen = self.done * self.settings.batch_tokens
        each(lambda learner: learner.step(own, self.done, seen), self.learners)
        self.done += 1
        live.step, live.tokens = self.done, self.done * self.settings.batch_tokens
        self.recent.append({site: batch[site] for site in self._sites})
        while len(self.recent) > 1 and self._is_too_much():
            self.recent.popleft()

    def _is_too_much(self) -> bool:
        """Whether the recent batches but the oldest are enough."""
        size = self.settings.batch_tokens
        one = sum(tensor.numel() * tensor.element_size() for tensor in self.recent[0].values())
        return (len(self.recent) - 1) * size >= RECENT_TOKENS or len(self.recent) * one > RECENT_BYTES

    def _report(self, batch: Batch, live: LiveTraining, seen: int) -> None:
        contexts = contexts_of(batch, CONTEXT)
        for nth, learner in enumerate(self.learners):
            learner.report(self.done, seen)
            live.watch(nth, learner.latest, None if contexts is None else self.processes.part(contexts))
        live.tell()

    def _save(self) -> None:
        if not self.processes.is_first or self.folder is None:
            return
        state = {
            "fingerprint": fingerprint(self.specs, self.settings),
            "done": self.done, "pass": self.at_pass, "first": self.first,
            "widths": {site: int(tensor.shape[1]) for site, tensor in self.recent[-1].items()} if self.recent else {},
            "learners": [learner.state() for learner in self.learners],
        }  # fmt: skip
        save_state(self.folder, state)

    def _result(self, live: LiveTraining, seconds: float) -> DictionaryTraining:
        seen = self.done * self.settings.batch_tokens
        made = tuple(self._dictionary(learner, seen) for learner in self.learners)
        for one in made:
            opened.add("dictionary", one)
        histories = tuple(tuple(learner.history) for learner in self.learners)
        return DictionaryTraining(self.specs, made, histories, seen, live.state == "done", seconds)

    def _dictionary(self, learner: Learner, seen: int) -> Dictionary:
        spec = learner.spec
        manifest = Manifest(
            False, Normalisation(), spec.site, spec.site_out if spec.is_transcoder else "", self.source.model,
            self.source.bos, f"trained by innerview on {seen} tokens, seed {spec.seed}",
        )  # fmt: skip
        made = learner.dictionary(manifest, seen)
        if not self.recent:
            return made
        x, target = (torch.cat([_own(batch[site]) for batch in self.recent]) for site in (spec.site, spec.sites[-1]))
        told = measured(made, x, target) | {"trained_tokens": seen}
        return made.at(statistics=told)


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()
