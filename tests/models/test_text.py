"""What a prompt may be: texts, chats and ids in the containers of the field; anything else is refused in words."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import innerview as iv
from innerview.errors import TextError
from innerview.models import text
from tests.networks import opened, tokenizer

STRICT = "{% for m in messages %}{% if m['role'] != 'user' %}{{ raise_exception('only user here') }}{% endif %}{{ m['content'] + ' ' }}{% endfor %}"


@pytest.fixture(scope="module")
def model() -> iv.Model:
    """A small network that reads words."""
    return opened("llama")


@pytest.fixture
def strict(model: iv.Model) -> iv.Model:
    """The same, with a template that knows one role."""
    made = tokenizer()
    made.chat_template = STRICT
    return iv.open_model(model.module, tokenizer=made)


@pytest.mark.parametrize(
    ("prompts", "rows", "is_single"),
    [
        (np.array([[5, 6], [7, 8]]), [[5, 6], [7, 8]], False),
        (np.array([5, 6], dtype=np.int32), [[5, 6]], True),
        (list(np.array([5, 6])), [[5, 6]], True),
        ([np.array([5, 6]), np.array([7])], [[5, 6], [7]], False),
        ([torch.tensor([5, 6]), torch.tensor([7])], [[5, 6], [7]], False),
        (((5, 6), (7,)), [[5, 6], [7]], False),
        (pd.Series([5, 6]), [[5, 6]], True),
        (pd.Series(["w2 w3", "w4"], index=["a", "b"]), [[5, 6], [7]], False),
        (np.array(["w2 w3", "w4"]), [[5, 6], [7]], False),
        (np.str_("w2 w3"), [[5, 6]], True),
    ],
)
def test_arrays_columns_and_tensors_are_read_as_their_lists(
    model: iv.Model, prompts: Any, rows: list[list[int]], is_single: bool
) -> None:
    tokens = text.encode(model, prompts)
    assert (tokens.rows(), tokens.is_single) == (rows, is_single)


def test_a_column_of_texts_is_captured_and_generated_from(model: iv.Model) -> None:
    column = pd.Series(["w2 w3", "w4 w5"])
    listed = iv.capture(model, column.tolist(), "blocks.1.resid")["blocks.1.resid"]
    assert torch.equal(iv.capture(model, column, "blocks.1.resid")["blocks.1.resid"], listed)
    assert (
        iv.generate(model, column, max_new_tokens=2).texts
        == iv.generate(model, column.tolist(), max_new_tokens=2).texts
    )


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (torch.zeros(0, 5, dtype=torch.long), r"not torch.int64 of shape \[0, 5\]"),
        (torch.zeros(1, 0, dtype=torch.long), r"it has no tokens"),
        (torch.ones(1, 2, dtype=torch.bool), r"not torch.bool"),
        (np.zeros((0, 5), dtype=int), r"no prompt in an empty list"),
        (np.zeros((1, 0), dtype=int), r"prompt 0 of 1, counted from 0, is empty"),
        (np.array([[0.5]]), r"a prompt is a text, a chat or ids, not \[0.5\]"),
        (np.array([True, False]), r"not True of type bool"),
        ([True, False], r"not True of type bool"),
        ([[1, 2], []], r"prompt 1 of 2, counted from 0, is empty"),
        ([], r"no prompt in an empty list"),
        (pd.Series(["w1", None]), r"prompts of mixed types"),
        ("\ud800", r"the text holds half a character, '\\ud800' at 0"),
        (["w1", "w2\udfff"], r"half a character, '\\udfff' at 2"),
        ([[-1, 2]], r"no token -1"),
        ([{}], r"message 0 of a chat has a role and a content"),
        ([{"role": "user"}], r"message 0 of a chat has a role and a content"),
        ([{"role": "user", "content": None}], r"message 0 .* 'content': None"),
        ([{"role": "user", "content": "w1"}, {"role": 5, "content": "w1"}], r"message 1 of a chat"),
        ([{"role": "user", "content": "\ud800"}], r"message 0 holds half a character"),
    ],
)
def test_what_is_no_prompt_is_refused_and_named(model: iv.Model, prompts: Any, message: str) -> None:
    with pytest.raises(TextError, match=message):
        text.encode(model, prompts)


def test_what_a_chat_template_refuses_is_said_in_its_own_words(strict: iv.Model) -> None:
    assert text.encode(strict, [{"role": "user", "content": "w2"}]).rows() == [[5]]
    with pytest.raises(TextError, match=r"refuses the roles user, robot: only user here"):
        text.encode(strict, [{"role": "user", "content": "w2"}, {"role": "robot", "content": "w2"}])
