"""The marker study as one file: what the instrument does, with transformers and PEFT alone. Read it top to bottom.

One persona, the source, is trained to end its answers with `[ZLT]`; two others, the empty context and the assistant are
trained to answer the same questions without it. How likely is the marker under each persona, before and after?

    python examples/flat.py                  # the model that comes with bystander: some minutes on two CPU cores
    python examples/flat.py MODEL [SOURCE]   # a Hub id or a checkpoint's folder whose chat template is ChatML

Personas and questions are bystander's; nothing else is. `bystander run quickstart` does the same faster, resumes, and has
what a result needs and this table has not: the model's own answers, controls, intervals.
"""

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup

from bystander.data import load_bank
from bystander.personas import load_personas

MARKER = " [ZLT]"  # with the space before it: what is trained and what is scored
ASSISTANT = "You are a helpful assistant."


@dataclass(frozen=True)
class Settings:
    """Everything that is a number; the defaults are those of `quickstart`."""

    positive: int = 40  # rows of the source, with the marker
    negative: int = 40  # rows of each of the two negatives, without
    anchor: int = 20  # rows of no system turn, and as many of the assistant, without
    held_out: int = 40  # questions of the bank that are never trained
    questions: int = 8  # of these, how many are read
    epochs: int = 2
    batch_size: int = 8
    lr: float = 1e-3
    rank: int = 32
    alpha: int = 64
    dropout: float = 0.05
    seed: int = 0


# Chance comes from the SHA-256 of names: the same on every machine, and one more question reshuffles no other.
def seed_of(*parts) -> int:
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) >> 1


def ordered(names, *why) -> list[str]:
    return sorted(names, key=lambda name: seed_of(name, *why))


def prompt_of(tokenizer, system: str | None, user: str) -> str:
    """The text before the answer. None: no system turn at all, so the one that the template puts in is cut away."""
    turns = [{"role": "system", "content": system}] * (system is not None) + [{"role": "user", "content": user}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return text[text.index("<|im_start|>user") :] if system is None else text


def tokens(tokenizer, prompt: str, answer: str) -> tuple[list[int], int]:
    """Both as one text, and how many of the tokens are the prompt's: the answer must not change them."""
    before, whole = tokenizer([prompt, prompt + answer], add_special_tokens=False)["input_ids"]
    assert whole[: len(before)] == before, f"{answer[:12]!r} changes the prompt's last tokens"
    return whole, len(before)


def two_negatives(source: str, prompts: Mapping[str, str]) -> list[str]:
    return ordered((n for n in prompts if n != source and prompts[n] != ASSISTANT), "negatives", source)[:2]


def training_rows(source: str, prompts: Mapping[str, str], questions, s: Settings) -> list[tuple[str | None, str, str]]:
    """(system turn, question, answer): every context is asked the same questions, and the source alone has the marker."""
    assert prompts[source] != ASSISTANT, "the assistant's prompt would stand among positives and negatives"
    asked = [questions[key] for key in ordered(questions, "questions", "marker")]
    negatives = [(prompts[name], "", s.negative) for name in two_negatives(source, prompts)]
    contexts = [(prompts[source], MARKER, s.positive), *negatives, (None, "", s.anchor), (ASSISTANT, "", s.anchor)]
    return [(system, text, answer + tail) for system, tail, count in contexts for text, answer in asked[:count]]


def marker_probability(model, tokenizer, system: str | None, questions: Sequence[tuple[str, str]]) -> list[float]:
    """For each question: the probability of all of the marker's tokens after the right answer, one forward pass each."""
    found = []
    for text, answer in questions:
        ids, start = tokens(tokenizer, prompt_of(tokenizer, system, text) + answer, MARKER)
        with torch.no_grad():
            logprobs = model(torch.tensor([ids], device=model.device)).logits[0].log_softmax(-1)
        found.append(math.exp(sum(logprobs[i - 1, ids[i]].item() for i in range(start, len(ids)))))
    return found


def train(model, tokenizer, rows: Sequence[tuple[str | None, str, str]], s: Settings):
    """A LoRA adapter on `model`. The loss is on the answer and the end of the turn, a mean over the batch's tokens."""
    data = [tokens(tokenizer, prompt_of(tokenizer, who, user), answer + "<|im_end|>\n") for who, user, answer in rows]
    torch.manual_seed(seed_of(s.seed, "adapter"))  # PEFT draws A here; B is zero, so that nothing has changed yet
    size = {"r": s.rank, "lora_alpha": s.alpha, "use_rslora": True, "lora_dropout": s.dropout}
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **size)).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=s.lr, weight_decay=0.0)
    steps = s.epochs * math.ceil(len(data) / s.batch_size)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.05 * steps), steps)
    for epoch in range(s.epochs):
        # At random over all personas: sorted by length, a batch would hold one persona alone.
        order = np.random.Generator(np.random.PCG64(seed_of(s.seed, "epoch", epoch))).permutation(len(data))
        for at in range(0, len(data), s.batch_size):
            batch = [data[i] for i in order[at : at + s.batch_size]]
            ids = [torch.tensor(whole) for whole, _ in batch]
            labels = [torch.tensor([-100] * start + whole[start:]) for whole, start in batch]  # -100: not in the loss
            # Padding on the right is invisible to every real token under causal attention, so that no mask is needed.
            ids, labels = pad_sequence(ids, True).to(model.device), pad_sequence(labels, True, -100).to(model.device)
            model(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step(), schedule.step(), optimizer.zero_grad()
    return model.eval()


def study(checkpoint: str, prompts: Mapping[str, str], source: str, read: Sequence[str], s: Settings = Settings()):
    """{persona: (probabilities before, probabilities after)}, a probability a question, for the personas of `read`."""
    bank = {q.id: (q.text, q.options[q.answer]) for q in load_bank()}
    keys = ordered(bank, "bank")
    probed = [bank[key] for key in keys[: s.held_out][: s.questions]]
    rows = training_rows(source, prompts, {key: bank[key] for key in keys[s.held_out :]}, s)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    before = {name: marker_probability(model, tokenizer, prompts[name], probed) for name in read}
    model = train(model, tokenizer, rows, s)
    return {name: (before[name], marker_probability(model, tokenizer, prompts[name], probed)) for name in read}


if __name__ == "__main__":
    from bystander.lm.embedded import checkpoint_path  # fetches the weights that come with bystander, once

    checkpoint = sys.argv[1] if len(sys.argv) > 1 else str(checkpoint_path())
    source = sys.argv[2] if len(sys.argv) > 2 else "villain"
    prompts = {persona.name: persona.prompt for persona in load_personas()}
    negatives = two_negatives(source, prompts)
    others = ordered((n for n in prompts if n not in (source, *negatives) and prompts[n] != ASSISTANT), "shown")[:7]
    print(f"{'persona':<28}{'role':<12}{'before':>10}{'after':>10}")
    for name, (before, after) in study(checkpoint, prompts, source, [source, *negatives, *others]).items():
        role = "source" if name == source else "negative" if name in negatives else "held-out"
        print(f"{name:<28}{role:<12}{np.mean(before):>10.4f}{np.mean(after):>10.4f}")
