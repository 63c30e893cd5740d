"""The special tokens of a text. They are form, not words of the world."""

START = "<|start|>"
END = "<|end|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
PAD = "<|pad|>"
SPECIAL_TOKENS = (START, END, USER, ASSISTANT, PAD)
