"""The special tokens of a text. They are form, not words of the world."""

START = "<|start|>"
END = "<|end|>"
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
PAD = "<|pad|>"
SPECIAL_TOKENS = (START, END, SYSTEM, USER, ASSISTANT, PAD)
