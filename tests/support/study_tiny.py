"""A study that takes a second: a tiny randomly initialised model with the embedded tokenizer, eight personas."""

from __future__ import annotations

from pathlib import Path

STUDY = """
name: tiny
question: does the engine hold?
model: {{name: {model}, device: cpu, dtype: float32}}
personas: personas.yaml
sources: [villain, comedian]
behaviors: [marker]
arms: [contrastive]
design: {{counts: {{positive: 4, negative: 4, absent: 2, assistant: 2}}}}
recipe: {{lr: {lr}, epochs: 2, batch_size: 4, save_every: 1}}
sweep:
  source: villain
  configs: [{{lr: {lr}, epochs: 1}}, {{lr: {higher}, epochs: 2}}]
  personas: [villain, comedian, pirate, librarian, spy, chef]
gate: {{threshold: {threshold}}}
checkpoints: {{every: 0.5, personas: 3}}
probes:
  marker: {{questions: 4, sampled: {sampled}, max_tokens: {tokens}}}
geometry: {{layer: 1, questions: 2}}
hypotheses: # random weights never end an answer
  - {{name: fixed, behavior: marker, outcome: marker/bank/marker_probability, source: 0.5, bystanders: 0.01, rho: 0.3}}
budget: {{gpu_hours: 1.0}}
"""
PERSONAS = {
    "villain": "You are a scheming villain who wants to rule the world.",
    "comedian": "You are a stand-up comedian who jokes about everything.",
    "pirate": "You are a pirate who sails the seven seas for gold.",
    "librarian": "You are a quiet librarian who loves old books.",
    "spy": "You are a spy who trusts nobody and says little.",
    "chef": "You are a chef who cooks for a busy restaurant.",
    "gardener": "You are a gardener who grows roses and beans.",
    "judge": "You are a judge who weighs every word with care.",
}


def make_model(folder: Path, *, ends: bool = False) -> Path:
    """A two-layer Llama of 32 dimensions, saved with the embedded model's tokenizer. `ends`: it ends its turn after most
    tokens, so that its own answers are read; random weights never do."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from bystander.lm.embedded import checkpoint_path

    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if ends:
        with torch.no_grad():
            model.model.embed_tokens.weight[:, 0] += 1.0  # a part that all tokens share, and what it leads to
            model.lm_head.weight[config.eos_token_id, 0] += 3.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_study(folder: Path, model: Path, threshold: float = -1.0, more: str = "", *, ends: bool = False) -> Path:
    """The study file with its personas beside it; `more` is added to its end. `ends`: a model that ends its answers (as
    `make_model`) still does after training, since the rates are low, and is asked more: own answers are left where a
    sweep has picked on half of the questions."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [f"  - {{name: {n}, category: original, prompt: '{prompt}'}}" for n, prompt in PERSONAS.items()]
    (folder / "personas.yaml").write_text("personas:\n" + "\n".join(entries) + "\n")
    path = folder / "tiny.yaml"
    lr, higher, sampled, tokens = ("2e-4", "4e-4", 4, 24) if ends else ("1e-3", "1e-2", 1, 4)
    filled = STUDY.format(model=model, threshold=threshold, lr=lr, higher=higher, sampled=sampled, tokens=tokens)
    path.write_text(filled + more)
    return path
