"""Small tokenizers that a test trains itself: nothing is needed but the tokenizers library."""

from __future__ import annotations

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Core

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# As the tokenizers of these names cut text.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def core_of(pre: str) -> Core:
    """A small byte-level tokenizer that cuts text as those called `pre` do."""
    core = Core(models.BPE(ignore_merges=pre == "llama-bpe"))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre == "smollm")
    first = (
        pre_tokenizers.Digits(individual_digits=True)
        if pre == "smollm"
        else pre_tokenizers.Split(Regex(QWEN2 if pre == "qwen2" else LLAMA3), "isolated")
    )
    core.pre_tokenizer, core.decoder = pre_tokenizers.Sequence([first, level]), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["What is rain? It is water.\n\nThe year 2024 has 366 days.\n"] * 20, trainer)
    return core
