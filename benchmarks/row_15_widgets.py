"""Row 15: how long a person waits for a widget in JupyterLab: first paint, a frame while scrolling, typed text lit up."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.pairing import Contender, Role, Span, measure
from benchmarks.result import Claim, Row, Workload
from benchmarks.row import run
from scripts import browsing

N_LAYERS, N_TOKENS, N_FEATURES = 40, 512, 100_000
PAINT_MS, FRAME_MS, TYPED_MS = 300.0, 1000 / 60, 100.0
# Timers of a browser are this coarse, beside a frame of 16.7 ms.
JITTER_MS = 0.3
SETTING = f"""
import importlib.util
import numpy as np, pandas as pd, torch
from IPython.display import HTML
from transformers import GPT2Config, GPT2LMHeadModel
import innerview as iv
pocket = iv.open_model("pocket")
torch.manual_seed(0)
size = GPT2Config(vocab_size=pocket.module.config.vocab_size, n_positions={N_TOKENS}, n_embd=64, n_layer={N_LAYERS}, n_head=4)
deep = iv.open_model(GPT2LMHeadModel(size).eval(), tokenizer=pocket.tokenizer)
ids = torch.randint(5, size.vocab_size, ({N_TOKENS},)).tolist()
lens = iv.logit_lens(deep, ids)
drawn = np.random.default_rng(0)
frame = pd.DataFrame({{"label": [f"word {{i}}" for i in range({N_FEATURES})], "density": drawn.random({N_FEATURES}), "max": drawn.random({N_FEATURES})}})
shares = lens.top_logprobs[..., 0].exp().T
board = iv.dashboard(iv.load_dictionary("pocket", site="blocks.4.resid"), pocket, iv.pocket.texts(200, seed="row 15"), progress=False)
shown = None
if importlib.util.find_spec("itables"):
    import itables
    itables.init_notebook_mode(connected=False)
if importlib.util.find_spec("circuitsvis"):
    import circuitsvis as cv
""".strip()
# Code of a cell, what it draws, and how many of those at least.
Cell = tuple[str, str, int]
# What each cell shows, and what stands in the document when it is drawn.
LENS = ("shown = iv.LogitLens(lens); shown", "section.iv-lens [data-at]", 100)
COLOURED = (
    "HTML(cv.tokens.colored_tokens_multi(lens.words, shares, labels=lens.layers).local_src)", "[id^=circuits-vis] span", N_TOKENS,
)  # fmt: skip
TABLE = ("shown = iv.FeatureBrowser(frame); shown", "section.iv-browser .iv-row-number", 10)
DATA_TABLE = ("itables.show(frame, maxBytes=0)", "table.dataTable tbody tr td", 30)
READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady === true"
STARTED = """async () => {
  const panel = window.jupyterapp.shell.currentWidget, cell = panel.content.widgets[0];
  panel.content.activeCellIndex = 0;
  await window.jupyterapp.commands.execute('notebook:run-cell');
  const failed = cell.model.outputs.toJSON().filter(one => one.output_type === 'error');
  if (failed.length) throw new Error(failed[0].evalue);
}"""
RUN = """async code => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const reply = await kernel.requestExecute({code}).done;
  return reply.content.status === 'ok' ? '' : reply.content.evalue;
}"""
CLEAR = "() => { window.jupyterapp.shell.currentWidget.content.widgets.at(-1).outputArea.model.clear(); }"
# Frames go by until something is so; where it does not come, an error says what.
UNTIL = """
const frame = () => new Promise(requestAnimationFrame);
const until = async (what, isSo) => {
  const since = performance.now();
  while (!isSo()) {
    if (performance.now() - since > 60_000) throw new Error(`${what} did not come in a minute`);
    await frame();
  }
};
"""
# Until what was asked for stands in the document, and the frame that shows it was handed over.
PAINTED = (
    f"""async ([code, selector, least]) => {{{UNTIL}"""
    """
  const panel = window.jupyterapp.shell.currentWidget, cell = panel.content.widgets.at(-1);
  cell.model.sharedModel.setSource(code);
  panel.content.activeCellIndex = panel.content.widgets.length - 1;
  window.jupyterapp.commands.execute('notebook:run-cell');
  await until(`${least} of ${selector}`, () => cell.node.querySelectorAll(selector).length >= least);
  await frame();
  await new Promise(done => setTimeout(done));
}"""
)
# Mean milliseconds of a frame while it scrolls for a second and a half.
SCROLLED = """async ([selector, across, step]) => {
  const box = document.querySelector(selector), frame = () => new Promise(requestAnimationFrame);
  box[across ? 'scrollLeft' : 'scrollTop'] = 0;
  const start = await frame();
  let now = start, frames = 0;
  while (now - start < 1500) {
    box[across ? 'scrollLeft' : 'scrollTop'] += step;
    now = await frame();
    frames += 1;
  }
  return (now - start) / frames;
}"""
# A letter more: until every token of the text stands there, lit up.
TYPED = (
    f"""async text => {{{UNTIL}"""
    """
  const field = document.querySelector('textarea.iv-own-field');
  Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(field, text);
  field.dispatchEvent(new Event('input', {bubbles: true}));
  await frame();
  const said = () => document.querySelector('.iv-own .iv-said')?.textContent;
  await until('the text, lit up', () => said() && said() !== 'reading…');
  await new Promise(done => setTimeout(done));
}"""
)
SENTENCE = "On Monday we rested , and on Tuesday we worked"


def row(rounds: int | None) -> Row:
    """First paint of a lens and of a table beside CircuitsVis and itables; frames while they scroll; typing."""
    found = _found()
    with _notebook() as page:
        workloads = [
            _painted(page, f"logit lens, {N_LAYERS} layers × {N_TOKENS} tokens, computed before", LENS, COLOURED if "circuitsvis" in found else None,
                     "CircuitsVis, colored_tokens_multi", (".iv-lens .iv-grid-box", True, 37), rounds),
            _painted(page, f"table of {N_FEATURES:,} features", TABLE, DATA_TABLE if "itables" in found else None,
                     "itables, every row sent", (".iv-rows-box", False, 220), rounds),
            _typed(page, rounds),
        ]  # fmt: skip
    notes = [
        "From running the cell to the frame that shows it, in a Chromium without a GPU beside its kernel, on the same two cores. Frames are drawn 60 times a second at most.",
        "CircuitsVis draws the tokens coloured by one layer, with a choice of the 40; its script is read from the package, as it is without a network.",
    ]
    missing = {name: "not installed" for name in ("circuitsvis", "itables") if name not in found}
    return Row("15", "Widgets: first paint, scrolling, typing", workloads, notes, missing)


def _found() -> set[str]:
    return {name for name in ("circuitsvis", "itables") if find_spec(name)}


@contextmanager
def _notebook() -> Iterator[Page]:
    """A notebook in JupyterLab whose first cell was run, and whose last one is empty."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder)
        (home / "notebooks").mkdir()
        cells = [
            {"cell_type": "code", "id": f"c{i}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
            for i, source in enumerate((SETTING, ""))
        ]  # fmt: skip
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        made = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        (home / "notebooks/row_15.ipynb").write_text(json.dumps(made))
        browser = playwright.chromium.launch(executable_path=browsing.chromium(), args=browsing.OPTIONS)
        with browsing.jupyter(home, PYTHONPATH=str(browsing.ROOT / "src")) as served:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.goto(served.url("row_15.ipynb"))
            page.wait_for_function(READY, timeout=60_000)
            # What the first cell shows is asked for too: itables puts its script there.
            page.set_default_timeout(120_000)
            page.evaluate(STARTED)
            yield page
        browser.close()


def _painted(
    page: Page, name: str, ours: Cell, theirs: Cell | None, peer: str, scrolled: tuple[str, bool, int], rounds: int | None
) -> Workload:  # fmt: skip
    """First paint beside a peer's, and frames while ours scrolls."""

    def contender(name: str, role: Role, cell: Cell) -> Contender:
        return Contender(name, role, lambda: page.evaluate(PAINTED, list(cell)), lambda: _cleared(page))

    contenders = [contender("innerview", "ours", ours)]
    contenders += [] if theirs is None else [contender(peer, "peer", theirs)]
    timings = measure(contenders, rounds=rounds or 20)
    claims = [Claim("first paint", _scaled(timings.span("innerview")), "ms", PAINT_MS)]
    if theirs is not None:
        claims.append(Claim(f"time of innerview ÷ {peer}'s", timings.ratio("innerview", peer), "×"))
    _cleared(page)
    page.evaluate(PAINTED, list(ours))
    frames = [page.evaluate(SCROLLED, list(scrolled)) for _ in range(20)]
    claims.append(Claim("a frame while it scrolls", Span.of(frames), "ms", FRAME_MS + JITTER_MS))
    _cleared(page)
    return Workload(name, "every contender is awaited by what it draws", timings, claims)


def _typed(page: Page, rounds: int | None) -> Workload:
    """From a typed letter to the text lit up, on pocket."""
    page.evaluate(
        PAINTED,
        [
            "shown = iv.FeaturePage(board, int(board.search(' Monday').feature.iloc[0])); shown",
            "textarea.iv-own-field",
            1,
        ],
    )
    lengths = iter(range(12, 12 + 10_000))
    words = SENTENCE.split()

    def type_one() -> None:
        n = next(lengths)
        page.evaluate(TYPED, " ".join(words[i % len(words)] for i in range(n)))

    timings = measure([Contender("innerview", "ours", type_one)], rounds=rounds or 40)
    claim = Claim("typed until lit up", _scaled(timings.span("innerview")), "ms", TYPED_MS)
    return Workload(
        "a letter more in a feature's page, pocket",
        "awaited until what is lit is of the text that was typed",
        timings,
        [claim],
    )


def _cleared(page: Page) -> None:
    page.evaluate(CLEAR)
    said = page.evaluate(RUN, "shown = shown.close() if shown is not None else None")
    if said:
        raise RuntimeError(said)


def _scaled(span: Span) -> Span:
    return Span(*(1e3 * getattr(span, name) for name in ("median", "low", "high", "least", "most")))


if __name__ == "__main__":
    run(row)
