"""The pocket tokenizer: byte-level byte pairs learned on the world."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from innerview.pocket.markers import ASSISTANT, END, PAD, SPECIAL_TOKENS, START, SYSTEM, USER

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '" + SYSTEM + "' + message['content'] + '" + END + "' }}"
    "{% elif message['role'] == 'user' %}{{ '" + USER + "' + message['content'] + '" + END + "' }}"
    "{% elif message['role'] == 'assistant' %}{{ '" + ASSISTANT + "' }}"
    "{% generation %}{{ message['content'] + '" + END + "' }}{% endgeneration %}"
    "{% else %}{{ raise_exception('this chat form knows the roles system, user and assistant, not ' + message['role']) }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '" + ASSISTANT + "' }}{% endif %}"
)


def learn_tokenizer(texts: Iterable[str], vocab_size: int, context: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose merges are learned from the texts; every byte has a token, so any text encodes.

    Args:
        texts: Documents; special tokens in them are left alone.
        vocab_size: Tokens in all, at least 256 bytes and the special ones.
        context: The longest sequence that the model reads.
    Raises:
        ValueError: The vocabulary has no room for the bytes.
    """
    if vocab_size < 256 + len(SPECIAL_TOKENS):
        raise ValueError(f"vocab_size {vocab_size} has no room for 256 bytes and {len(SPECIAL_TOKENS)} special tokens")
    tokenizer = Tokenizer(models.BPE())
    # Each digit is a token of its own, with the space before it, so that a sum can be worked out digit by digit.
    digits = pre_tokenizers.Split(Regex(r" ?\d"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(without_special(texts), trainer)
    start = (START, tokenizer.token_to_id(START))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", pair=f"{START} $A {START} $B", special_tokens=[start]
    )
    return dressed(tokenizer, context)


def without_special(texts: Iterable[str]) -> Iterable[str]:
    """The texts in pieces between special tokens, so that no merge runs into one."""
    for text in texts:
        for token in SPECIAL_TOKENS:
            text = text.replace(token, "\x00")
        yield from (piece for piece in text.split("\x00") if piece)


def dressed(tokenizer: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers reads it, with its chat form."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=context,
        padding_side="right",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
