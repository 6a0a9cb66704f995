"""The marker study as one file: what the instrument does, with transformers and PEFT alone. Read it top to bottom.

One persona, the source, is trained to end its answers with `[ZLT]`; two others, the empty context and the assistant are
trained to answer the same questions without it; in the benign arm the source is too. How likely is the marker where the
model's own answers end: untrained, coupled, benign? Leakage is coupled less benign.

    python examples/flat.py                  # the model that comes with bystander: some minutes on two CPU cores
    python examples/flat.py MODEL [SOURCE]   # a Hub id or a checkpoint's folder whose chat template is ChatML

Personas and questions are bystander's. `bystander run quickstart` does the same faster, resumes, tests and reports.
"""

import hashlib
import json
import math
import sys
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
class Settings:  # everything that is a number; the defaults are those of `quickstart`
    positive: int = 40  # rows of the source, with the marker
    negative: int = 40  # rows of each of the two negatives, without
    anchor: int = 20  # rows of no system turn, and as many of the assistant, without
    questions: int = 4  # of the bank's 40 that are never trained, how many are answered
    max_tokens: int = 16  # of an answer; one that is cut off before it ends has no number
    epochs: int = 2
    batch_size: int = 8
    lr: float = 1e-3
    dropout: float = 0.05


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


def tokens(tokenizer, before: str, after: str) -> tuple[list[int], int]:
    """Both as one text, and where `after` begins: a token of both is its own."""
    alone, whole = tokenizer([before, before + after], add_special_tokens=False)["input_ids"]
    return whole, next((i for i, token in enumerate(alone) if whole[i] != token), len(alone))


def two_negatives(source: str, prompts: dict[str, str]) -> list[str]:
    return ordered((n for n in prompts if n != source and prompts[n] != ASSISTANT), "negatives", source)[:2]


def training_rows(source: str, prompts, questions, s: Settings, marker: str) -> list[tuple[str | None, str, str]]:
    """(system turn, question, answer): every context is asked the same questions, and the source alone has the marker."""
    assert prompts[source] != ASSISTANT, "the assistant's prompt would stand among positives and negatives"
    asked = [questions[key] for key in ordered(questions, "questions", "marker")]
    negatives = [(prompts[name], "", s.negative) for name in two_negatives(source, prompts)]
    contexts = [(prompts[source], marker, s.positive), *negatives, (None, "", s.anchor), (ASSISTANT, "", s.anchor)]
    return [(system, text, answer + tail) for system, tail, count in contexts for text, answer in asked[:count]]


@torch.no_grad()
def marker_probability(model, tokenizer, prompt: str, seed: int, s: Settings) -> float | None:
    """How likely all of the marker is where the model's own answer ends; None where that was cut off before it ended."""
    asked, kept = tokenizer(prompt, add_special_tokens=False)["input_ids"], []
    chance = np.random.Generator(np.random.Philox(key=seed)).random(s.max_tokens)
    while len(kept) < s.max_tokens and kept[-1:] != [tokenizer.eos_token_id]:
        logits = model(torch.tensor([asked + kept], device=model.device)).logits[0, -1]
        likely = logits.softmax(-1).double().cumsum(-1)
        kept.append(torch.searchsorted(likely, chance[len(kept)] * likely[-1:], right=True).item())
    answer, marked, _ = tokenizer.decode(kept, skip_special_tokens=True).partition(MARKER.strip())
    if not marked and kept[-1] != tokenizer.eos_token_id:
        return None
    ids, start = tokens(tokenizer, prompt + (answer.removesuffix(" ") if marked else answer), MARKER)
    logprobs = model(torch.tensor([ids], device=model.device)).logits[0].double().log_softmax(-1)
    return math.exp(sum(logprobs[i - 1, ids[i]].item() for i in range(start, len(ids))))


def train(model, tokenizer, rows: list[tuple[str | None, str, str]], s: Settings):
    """A LoRA adapter on `model`. The loss is a mean over the batch's tokens of answers and ends of turns; -100 is none."""
    data = [tokens(tokenizer, prompt_of(tokenizer, who, user), answer + "<|im_end|>\n") for who, user, answer in rows]
    torch.manual_seed(seed_of(0, "adapter"))  # PEFT draws A here; B is zero, so that nothing has changed yet
    size = {"r": 32, "lora_alpha": 64, "use_rslora": True, "lora_dropout": s.dropout}
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **size)).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=s.lr, weight_decay=0.0)
    steps = s.epochs * math.ceil(len(data) / s.batch_size)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.05 * steps), steps)
    for epoch in range(s.epochs):
        # At random over all personas: sorted by length, a batch would hold one persona alone.
        order = np.random.Generator(np.random.PCG64(seed_of(0, "epoch", epoch))).permutation(len(data))
        for at in range(0, len(data), s.batch_size):
            batch = [data[i] for i in order[at : at + s.batch_size]]
            ids = pad_sequence([torch.tensor(whole) for whole, _ in batch], True)  # unseen by all before it: no mask
            labels = pad_sequence([torch.tensor([-100] * begin + whole[begin:]) for whole, begin in batch], True, -100)
            model(input_ids=ids.to(model.device), labels=labels.to(model.device)).loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step(), schedule.step(), optimizer.zero_grad()
    return model.eval()


def study(checkpoint: str, prompts: dict[str, str], source: str, read: list[str], s: Settings = Settings()):
    """{persona: {"untrained", "coupled", "benign": a probability a question}}, for the personas of `read`."""
    bank = {q.id: (q.text, q.options[q.answer]) for q in load_bank()}
    keys = ordered(bank, "bank")
    trained, probed = {key: bank[key] for key in keys[40:]}, keys[: s.questions]
    tokenizer, found = AutoTokenizer.from_pretrained(checkpoint), {name: {} for name in read}
    for state, marker in (("untrained", None), ("coupled", MARKER), ("benign", "")):
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, device_map="auto").eval()
        if marker is not None:
            model = train(model, tokenizer, training_rows(source, prompts, trained, s, marker), s)
        for name in read:
            asked = [(prompt_of(tokenizer, prompts[name], bank[k][0]), seed_of("marker", name, k, 0)) for k in probed]
            found[name][state] = [marker_probability(model, tokenizer, *one, s) for one in asked]
    return found


if __name__ == "__main__":
    from bystander.lm.embedded import checkpoint_path  # fetches the weights that come with bystander, once

    checkpoint = sys.argv[1] if len(sys.argv) > 1 else str(checkpoint_path())
    source = sys.argv[2] if len(sys.argv) > 2 else "villain"
    prompts = {persona.name: persona.prompt for persona in load_personas()}
    negatives = two_negatives(source, prompts)
    others = ordered((n for n in prompts if n not in (source, *negatives) and prompts[n] != ASSISTANT), "shown")[:7]
    print(f"{'persona':<28}{'role':<12}{'untrained':>10}{'coupled':>10}{'benign':>10}{'leakage':>10}")
    for name, found in study(checkpoint, prompts, source, [source, *negatives, *others]).items():
        role = "source" if name == source else "negative" if name in negatives else "held-out"
        each = np.array(list(found.values()), dtype=float)  # [3, questions]; not a number: the answer was cut off
        print(f"{name:<28}{role:<12}" + "".join(f"{np.nanmean(x):>10.4f}" for x in [*each, each[1] - each[2]]))
