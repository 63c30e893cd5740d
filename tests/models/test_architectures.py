"""Classes of transformers' language-model mappings: a varied sample in every run, all of them by `make architectures` or `-m slow`."""

import re

import pytest
import torch

import innerview as iv
from tests.models.architectures import CHECKS, PAGE, Report, page, report, reports
from tests.models.configs import CAUSAL, EXTRA, INNER, MASKED, MISSING, network

# Norms before and behind, parallel parts, experts, state spaces, shared and gated blocks, tuples and lists, streams and prompts.
SAMPLE = (
    "afmoe", "bailing_hybrid", "bart", "bloom", "cpmant", "dbrx", "deepseek_v3", "deepseek_v4", "gemma4_text", "git", "granitemoehybrid",
    "jamba", "kimi_linear", "lfm2", "longcat_flash", "mpt", "musicgen", "nemotron_h", "openai-gpt", "reformer", "rwkv", "xglm", "xlnet",
    "zamba2",
)  # fmt: skip
SAMPLE_MASKED = ("albert", "bart", "deberta-v2", "mobilebert", "modernbert", "xlm")
# Blocks that carry no sums, and why, are on the page; these are the sums that must hold.
SUMS = {"afmoe", "bailing_hybrid", "bloom", "cpmant", "dbrx", "deepseek_v3", "gemma4_text", "granitemoehybrid", "jamba", "kimi_linear", "lfm2", "mpt", "musicgen", "nemotron_h", "xglm"}  # fmt: skip


def checked(mapping: str, name: str) -> Report:
    made = report(mapping, name)
    assert made.failed == ()
    assert made.opened_by in ("table", "finding") or made.note
    return made


@pytest.mark.parametrize("name", SAMPLE)
def test_a_causal_language_model_opens_and_what_is_named_holds(name: str) -> None:
    made = checked("causal", name)
    assert {"captured", "zero", "moves"} <= set(made.passed)
    assert ("sums" in made.passed) == (name in SUMS)


@pytest.mark.parametrize("name", SAMPLE_MASKED)
def test_a_masked_language_model_opens_and_what_is_named_holds(name: str) -> None:
    assert {"captured", "zero", "moves"} <= set(checked("masked", name).passed)


def test_the_configs_name_classes_that_exist() -> None:
    assert set(EXTRA) | set(INNER) | set(MISSING) <= {*CAUSAL, *MASKED, "gemma4_unified_text"}
    assert set(SAMPLE) <= set(CAUSAL) and set(SAMPLE_MASKED) <= set(MASKED)


def test_the_readme_says_how_many_open() -> None:
    opened = re.findall(r"^(\d+) of (\d+) open: ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(total) for _, total in opened] == [len(CAUSAL), len(MASKED)]
    (causal, causals), (masked, maskeds) = opened
    assert masked == maskeds
    assert f"{causal} of the {causals} causal and all {masked} masked" in (PAGE.parents[1] / "README.md").read_text(
        encoding="utf-8"
    )


def test_the_page_lists_every_class_and_no_check_of_it_fails() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")]
    assert [name for name in rows if name != "config"] == [*CAUSAL, *MASKED]
    assert "fails" not in text and all(f"**{name}**" in text for name in CHECKS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_class_is_as_the_page_says() -> None:
    assert page(reports()) == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["bloom", "openai-gpt"])
def test_a_site_keeps_the_container_that_the_block_returns(name: str) -> None:
    model = iv.open_model(network("causal", name))
    block = model.module.get_submodule(model.site("blocks.0.resid").module)
    seen: list[type] = []
    handle = block.register_forward_hook(lambda m, a, o: seen.append(type(o)))
    with iv.editing(model, [iv.Custom(lambda x, context: x + 1, site="blocks.0.resid")]):
        model.module(input_ids=torch.arange(20, 25)[None])
    handle.remove()
    assert seen == [tuple if name == "bloom" else list]
