"""A bar for long work, in the notebook or the terminal, that is gone when the work is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from IPython.display import display
from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook


@contextmanager
def progress(total: int, what: str, unit: str) -> Iterator[Callable[[], Any]]:
    """Shows a bar inside the block; what it gives is called after each step.

    Args:
        total: Number of steps.
        what: What is done, in a word.
        unit: What a step is, in a word.
    """
    if not issubclass(tqdm, tqdm_notebook):
        with tqdm(total=total, desc=what, unit=unit, leave=False, disable=None) as bar:
            yield bar.update
        return
    bar = tqdm(total=total, desc=what, unit=unit, leave=False, display=False)
    shown = display(bar.container, display_id=True)
    try:
        yield bar.update
    finally:
        bar.close()
        # A closed bar's output would stay as an empty strip: an output of nothing takes no room.
        if shown is not None:
            shown.update({}, raw=True)
