"""Patching the bundled model on prompts that its world writes: what holds whatever it has learned."""

from __future__ import annotations

import pytest

import innerview as iv


@pytest.fixture(scope="module")
def model() -> iv.Model:
    return iv.open_model("pocket")


def drawn(model: iv.Model, count: int) -> list[tuple[str, str, str, str]]:
    """Clean and corrupt prompts of one length that differ in who receives, and both answers, one token each."""

    def ids(text: str) -> list[int]:
        return model.tokenizer(text, add_special_tokens=False)["input_ids"]

    told = iv.pocket.sentences("receiver", behaviour="indirect object", pairs=60)
    found = []
    for one, other in zip(told[::2], told[1::2], strict=True):
        prompts = one.sentence.prompt, other.sentence.prompt
        answers = " " + one.value, " " + other.value
        if len(ids(prompts[0])) == len(ids(prompts[1])) and all(len(ids(answer)) == 1 for answer in answers):
            found.append((*prompts, *answers))
    assert len(found) >= count
    return found[:count]


def test_an_answer_comes_along_from_where_the_prompts_part_and_ends_at_the_last_token(model: iv.Model) -> None:
    ((clean, corrupt, right, wrong),) = drawn(model, 1)
    grid = iv.patch_grid(model, clean, corrupt, metric=iv.logit_difference(right, wrong))
    parted = next(i for i, column in enumerate(grid.columns) if column.tokens[0][0] != column.tokens[0][1])
    # What stands before the first difference is the same on both sides.
    assert grid.effect[:, :parted].abs().max() < 1e-4
    last = grid.effect[-1]
    assert last[-1] == pytest.approx(1.0, abs=1e-3) and last[:-1].abs().max() < 1e-4
    differs = [column.tokens[0][0] != column.tokens[0][1] for column in grid.columns]
    names = [i for i, is_name in enumerate(differs) if is_name]
    whole = iv.patch(model, clean, corrupt, "embed", names, metric=iv.logit_difference(right, wrong))
    assert whole.effect == pytest.approx(1.0, abs=1e-3)


def test_pairs_are_averaged_and_each_has_its_own_answers(model: iv.Model) -> None:
    pairs = drawn(model, 4)
    clean, corrupt, right, wrong = (list(column) for column in zip(*pairs, strict=True))
    metric = iv.logit_difference(right, wrong)
    heads = iv.patch_grid(model, clean, corrupt, "blocks.*.attn.heads", positions=-1, metric=metric, batch_size=64)
    for pair, (one, other, answer, rival) in enumerate(pairs[:2]):
        alone = iv.patch_grid(
            model, one, other, "blocks.*.attn.heads", positions=-1, metric=iv.logit_difference(answer, rival), batch_size=64
        )  # fmt: skip
        assert (heads.patched[:, :, pair] - alone.patched[:, :, 0]).abs().max() < 1e-3
