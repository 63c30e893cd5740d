"""One call of the root module: how many tokens it carries, which ones they are, and where edits apply among them."""

from typing import Any

import torch
from torch import Tensor

from innerview.errors import EditError
from innerview.models.site import Site
from innerview.plans import Planned, Read, Source
from innerview.readings import OverPrompt, Reading
from innerview.rows import Memory, Rows
from innerview.where import Where
from innerview.where.spans import Reader


class Forward:
    """One call of the root module: how many tokens it carries, and which ones they are."""

    def __init__(
        self, rows: Rows | None, shape: tuple[int, int] | None, col0: int, device: Any, *,
        ids: Tensor | None = None, memory: Memory | None = None,
    ) -> None:  # fmt: skip
        self.shape = shape
        self.col0 = col0
        self.rows = rows
        self.ids = ids
        self.memory = Memory() if memory is None else memory
        self._device = device
        self._pos: Tensor | None = None
        self._real: Tensor | bool | None = False
        self._masks: dict[Any, Tensor | None] = {}
        self._idle: set[Any] = set()
        self._heard: dict[Any, Tensor] = {}
        self._taken: dict[str, Tensor] = {}

    @property
    def q(self) -> int:
        """Tokens of each row in this forward."""
        return self.shape[1] if self.shape else 0

    @property
    def pos(self) -> Tensor:
        """Position of each token in its row, negative for left pads, shape [rows, q]."""
        if self._pos is None:
            self._pos = self._of_rows().pos(self.col0, self.col0 + self.q, self._device)
        return self._pos

    @property
    def real(self) -> Tensor | None:
        """True for real tokens, shape [rows, q]; None when all are."""
        if self._real is False:
            self._real = None
            if self.rows is not None and self.shape is not None and not self.rows.is_full:
                real = self._of_rows().real_tokens(self.col0, self.col0 + self.q, self._device)
                self._real = None if bool(real.all()) else real
        return self._real  # type: ignore[return-value]

    def _of_rows(self) -> Rows:
        if self.rows is None or self.shape is None:
            raise EditError(
                "this network was not called with token ids, so positions and scopes mean nothing; drop where="
            )
        self.rows = self.rows.expanded(self.shape[0])
        return self.rows

    def prompt_len(self) -> Tensor:
        """Length of each row's prompt, shape [rows, 1].

        Raises:
            EditError: It is unknown.
        """
        rows = self._of_rows()
        if rows.prompt_len is None:
            raise EditError(rows.why_unknown)
        return rows.prompt_len.to(self._device)[:, None]

    def token_ids(self) -> Tensor:
        """Id of each token, shape [rows, q].

        Raises:
            EditError: The network was called with something else.
        """
        if self.ids is None:
            raise EditError(
                "this network was not called with token ids (but with inputs_embeds, perhaps), so tokens and special tokens are unknown; "
                "call it with input_ids, or choose by positions"
            )
        return self.ids.to(self._device)

    def span(self, where: Where, reader: Any) -> Tensor:
        """True for the tokens of the text or role that is named, shape [rows, q].

        Raises:
            EditError: The prompts' ids are unknown, or what is named is not in a row.
        """
        memory = self.memory
        if memory.ids is None or (self.col0 == 0 and self.ids is not None and not self._goes_on(memory.ids)):
            self._learn_prompts()
        mask, behind = memory.span(where, reader)
        base, width = mask.shape
        rows = self.shape[0] if self.shape else base
        if base == 0 or rows % base:
            raise EditError(f"a forward of {rows} rows does not belong to prompts of {base}")
        missing = max(0, self.col0 + self.q - width)
        whole = torch.cat([mask, behind.to(mask.device)[:, None].expand(-1, missing)], dim=1)
        return whole[:, self.col0 : self.col0 + self.q].to(self._device).repeat_interleave(rows // base, dim=0)

    def _goes_on(self, prompts: Tensor) -> bool:
        """Whether this forward's rows begin with the prompts that are known: a run without a cache computes them again."""
        assert self.ids is not None
        (rows, width), own = prompts.shape, self.ids.cpu()
        if own.shape[0] % rows:
            return False
        return bool(
            torch.equal(own[:, :width], prompts[:, : own.shape[1]].repeat_interleave(own.shape[0] // rows, dim=0))
        )

    def _learn_prompts(self) -> None:
        """Take the prompts' ids from this forward, if it holds them whole.

        Raises:
            EditError: It does not.
        """
        if self.ids is None or self.col0 != 0:
            why = (
                "they came before this edit was there"
                if self.col0
                else "it was called with something else (inputs_embeds, perhaps)"
            )
            raise EditError(
                f"the ids of this network's prompt are unknown, because {why}, so texts and roles cannot be sought; "
                "give the whole text as input_ids, or choose by positions"
            )
        rows = self._of_rows()
        self.memory.spans.clear()
        self.memory.ids = self.ids.cpu()
        self.memory.real = rows.real_tokens(0, self.q, "cpu")
        self.memory.prompt_len = rows.prompt_len

    def mask(self, planned: Planned) -> Tensor | None:
        """True where an edit applies, conditions aside, shape [rows, q]; None for everywhere."""
        if planned.is_plain:
            return self.real
        key = planned.key
        if key not in self._masks:
            mask = self._masks[key] = self._mask(planned.edit.where, planned.reader, planned.since, planned.until)
            if mask is not None and not bool(mask.any()):
                self._idle.add(key)
        return self._masks[key]

    def chosen(self, where: Where, reader: Reader | None = None) -> Tensor | None:
        """True for the tokens of this forward that a Where means, conditions aside, shape [rows, q]; None for all.

        Args:
            where: The tokens that are asked for.
            reader: Of the network's tokenizer, `Reader.of(model.tokenizer)`; needed where `where.needs_reader`.
        Raises:
            EditError: What is asked for is unknown here, or not there.
        """
        return self._mask(where, reader, 0, None)

    def is_idle(self, planned: Planned) -> bool:
        """Whether an edit applies to no token of this forward; asked behind its mask."""
        return bool(self._idle) and planned.key in self._idle

    def _mask(self, where: Where, reader: Reader | None, since: int, until: int | None) -> Tensor | None:
        chosen = self.real
        if not where.is_everywhere:
            if where.needs_positions and not self._of_rows().has_positions:
                raise EditError(self._of_rows().why_unknown)
            wanted = where.mask(self, reader)
            chosen = wanted if chosen is None else chosen & wanted  # type: ignore[operator]
        if since > self.col0 or (until is not None and until < self.col0 + self.q):
            column = self.col0 + torch.arange(self.q, device=self._device)
            inside = (column >= since) & (column < (until if until is not None else self.col0 + self.q))
            chosen = inside.expand_as(self.pos) if chosen is None else chosen & inside
        return chosen

    def share(self, planned: Planned) -> Tensor | None:
        """Share of the coefficient for each token, shape [rows, q]; None for one."""
        schedule = planned.edit.where.schedule
        return None if schedule is None else schedule.factor(self.pos - self.prompt_len())

    # Conditions.

    def taken(self, source: Site) -> Tensor | None:
        """What has passed at a site that an edit reads, edited; None before it fires."""
        return self._taken.get(source.name)

    def hear(self, reads: tuple[Read | Source, ...], value: Any, owner: Any) -> None:
        """Read what a point hands on, for edits at later points and their conditions.

        Args:
            reads: What is read.
            value: What the module handles there, edited.
            owner: The plan that asks, so that two blocks do not share prompts.
        """
        for read in reads:
            if isinstance(read, Source):
                # A copy: networks that work in place write over what they hand on.
                self._taken[read.site.name] = read.site.read(value, self.shape).clone()
                continue
            numbers = self._numbers(read, value)
            self._heard[read.reading.key] = numbers
            if read.is_over_prompt:
                self._remember((owner, read.reading.key, None), numbers)

    def holds(self, planned: Planned, value: Any, chosen: Tensor | None, owner: Any) -> Tensor | None:
        """`chosen`, less the tokens at which an edit's condition does not hold.

        Raises:
            EditError: A reading has not been read yet where the edit is.
        """
        condition = planned.edit.where.condition
        if condition is None:
            return chosen
        here: dict[Any, Tensor] = {}
        for read in planned.reads:
            if read.site.point == planned.site.point:
                here[read.reading.key] = numbers = self._numbers(read, value)
                if read.is_over_prompt:
                    self._remember((owner, read.reading.key, planned.slot), numbers)
        if chosen is not None and not bool(chosen.any()):
            return chosen

        def number(term: Reading | OverPrompt) -> Tensor:
            reading = term.reading if isinstance(term, OverPrompt) else term
            if isinstance(term, OverPrompt):
                key = self._prompt_key(owner, reading, planned.slot if reading.key in here else None)
                is_read = reading.key in here or reading.key in self._heard or self.memory.has_passed
                if key not in self.memory.heard and not is_read:
                    raise self._too_early(reading, planned)
                return self.memory.number(key, term, self._of_rows(), self._of_rows().left_pad.shape[0])
            found = here.get(reading.key, self._heard.get(reading.key))
            if found is None:
                raise self._too_early(reading, planned)
            return found

        found = condition.holds(number).to(self._device)
        found = found.expand(self.shape or found.shape)
        return found if chosen is None else chosen & found

    def _prompt_key(self, owner: Any, reading: Reading, slot: int | None) -> Any:
        """What the memory keeps a reading of the prompt by; an edit that an update has moved finds what it heard in its old place."""
        key, heard = (owner, reading.key, slot), self.memory.heard
        if key in heard or slot is None:
            return key
        return next((k for k in heard if k[:2] == key[:2] and k[2] is not None), key)

    def _too_early(self, reading: Reading, planned: Planned) -> EditError:
        return EditError(
            f"the condition on {reading.name!r} reads {reading.site!r}, which had not fired when {planned.edit.label} was to apply; "
            "read at the edited site or before it"
        )

    def _numbers(self, read: Read, value: Any) -> Tensor:
        """The reading of each token, shape [rows, q]; tokens that the site lacks hold no condition."""
        x = read.site.read(value, self.shape)
        numbers = read.reading.of(x.detach())
        if self.shape is None:
            raise EditError(
                f"the condition on {read.reading.name!r} is asked of tokens, but the network was not called with ids through its root module; "
                "drop condition="
            )
        if read.site.name == "logits" and numbers.shape[1] < self.q:
            # Transformers computes logits for the last tokens only, where no more are asked for.
            lacking = numbers.new_full((numbers.shape[0], self.q - numbers.shape[1]), torch.nan)
            numbers = torch.cat([lacking, numbers], dim=1)
        if tuple(numbers.shape) != self.shape:
            raise EditError(
                f"reading {read.reading.name!r} gives numbers of shape {list(numbers.shape)} at {read.site.name!r}, and this forward has the "
                f"tokens {list(self.shape)}; read a site with one activation a token"
            )
        return numbers

    def _remember(self, key: Any, numbers: Tensor) -> None:
        memory = self.memory
        if self.col0 > 0 and not memory.has_passed and self.rows is not None and self.rows.prompt_len is not None:
            memory.has_passed = not bool((self.pos < self.prompt_len()).any())
        if not memory.has_passed or self.col0 == 0:
            memory.hear(key, numbers, self.col0)
