"""A bar for long work, in the notebook or the terminal, that is gone when the work is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm


@contextmanager
def progress(
    total: int, what: str, unit: str, *, delay_s: float = 0.0, is_shown: bool = True
) -> Iterator[Callable[..., Any]]:
    """Shows a bar inside the block; what it gives is called after each step, or with a number of steps.

    Args:
        total: Number of steps.
        what: What is done, in a word.
        unit: What a step is, in a word.
        delay_s: How long the work may take before the bar is shown, in seconds.
        is_shown: Whether to show it at all.
    """
    if not is_shown:
        yield lambda steps=1: None
    elif any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__):
        with _in_notebook(total, what, unit, delay_s) as step:
            yield step
    else:
        with tqdm(total=total, desc=what, unit=unit, leave=False, disable=None, delay=delay_s) as bar:
            yield bar.update


@contextmanager
def _in_notebook(total: int, what: str, unit: str, delay_s: float) -> Iterator[Callable[..., Any]]:
    from IPython.display import display

    bar: Any = tqdm(total=total, desc=what, unit=unit, leave=False, display=False)
    shown: list[Any] = []
    started = time.monotonic()

    def step(steps: int = 1) -> None:
        if not shown and time.monotonic() - started >= delay_s:
            shown.append(display(bar.container, display_id=True))
        bar.update(steps)

    try:
        if delay_s == 0:
            step(0)
        yield step
    finally:
        bar.close()
        # A closed bar's output would stay as an empty strip: an output of nothing takes no room.
        if shown and shown[0] is not None:
            shown[0].update({}, raw=True)
