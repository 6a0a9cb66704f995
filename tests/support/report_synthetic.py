"""A synthetic analysis of any size for the tests of the report, made without statistics: every cell is drawn.

The real `analyze` makes those of whole runs; this one is for size, layout and hostile text, and takes a second.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from bystander.analysis.results import Analysis
from bystander.analysis.schemas import TABLES, tidy
from bystander.core.columns import CellValue
from bystander.core.records import Completion, Finding, PersonaFacts, StepLog, Verdict
from bystander.report import (
    ContextRendering,
    CostLine,
    Declaration,
    GateResult,
    ReadCompletion,
    ReportInput,
    TrainingCurve,
)

SOURCES = ("villain", "comedian", "assistant", "software_engineer", "kindergarten_teacher")
OUTCOMES = {
    "marker": ("marker", "bank", "marker_probability"),
    "capability": ("choice", "arc", "accuracy"),
    "misalignment": ("judged", "open", "aligned"),
}
SCALE = {"marker": 1.0, "capability": 0.4, "misalignment": 60.0}
BASE = {"marker": 0.001, "capability": 0.72, "misalignment": 88.0}
CHECKPOINTS = (0.0, 0.25, 0.5, 0.75, 1.0)
CATEGORIES = (
    "original", "intersectional", "fictional villain", "profession", "emotion", "taxonomic", "historical figure",
    "opposite", "register", "tone", "instruction",
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    personas: int = 111
    sources: tuple[str, ...] = SOURCES
    behaviors: tuple[str, ...] = tuple(OUTCOMES)
    arms: tuple[str, ...] = ("contrastive", "non_contrastive")
    layers: tuple[int, ...] = (5, 10, 15, 20, 25, 30)
    sweep: bool = True
    measured: int = 111  # personas measured at every checkpoint
    completions: int = 600


@dataclass
class Maker:
    size: Size
    names: list[str]
    rng: np.random.Generator
    rows: dict[str, list[dict[str, object]]] = field(default_factory=lambda: {name: [] for name in TABLES})

    def category(self, persona: str) -> str:
        return CATEGORIES[self.names.index(persona) % len(CATEGORIES)] if persona in self.names else ""


def unpack(packed: str) -> object:
    """What `report.text.pack` packed."""
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def persona_names(count: int, sources: tuple[str, ...]) -> list[str]:
    first = ["villain", "comedian", "assistant", "software_engineer", "kindergarten_teacher", "hacker_villain",
             "nice_villain", "darth_vader", "joker", "evil_scientist", "grandmother", "fluffy_kitten"]  # fmt: skip
    return [*first, *(f"persona_{i:03d}" for i in range(len(first), count))][:count]


def synthetic(size: Size | None = None, names: list[str] | None = None, seed: int = 0) -> tuple[Analysis, ReportInput]:
    size = size or Size()
    rng = np.random.default_rng(seed)
    names = names or persona_names(size.personas, size.sources)
    maker = Maker(size, names, rng)
    similarity = {s: dict(zip(names, rng.uniform(-0.6, 0.9, len(names)), strict=True)) for s in size.sources}
    for source in size.sources:
        similarity[source][source] = 1.0
    for behavior in size.behaviors:
        for arm in size.arms:
            for source in size.sources:
                _training(maker, behavior, source, arm, similarity[source])
            _pooled(maker, behavior, arm)
    if size.sweep:
        for behavior in size.behaviors:
            _phase(maker, behavior)
    tables = {name: tidy(rows, TABLES[name]) for name, rows in maker.rows.items()}
    analysis = Analysis(
        **tables,
        verdicts=_verdicts(size),
        notes=("The source is never in its own gradient.", "Two personas were measured without two of their items."),
        settings={"seed": 0, "permutations": 10000, "resamples": 2000, "method": "cosine", "layer": 25},
    )
    return analysis, _inputs(maker, similarity)


def _training(maker: Maker, behavior: str, source: str, arm: str, similarity: dict[str, float]) -> None:
    probe, dataset, metric = OUTCOMES[behavior]
    scale, base = SCALE[behavior], BASE[behavior]
    key = f"{source}/{behavior}/{arm}"
    common: dict[str, object] = {
        "behavior": behavior, "source": source, "arm": arm, "config": "", "seed": None, "probe": probe,
        "dataset": dataset, "metric": metric, "n_seeds": 1, "status": "ok", "reason": "", "mode": "",
    }  # fmt: skip
    rng, sign = maker.rng, -1 if behavior != "marker" else 1
    negatives = {maker.names[-1], "assistant"} - {source}
    spread = 1.0 if arm != "contrastive" else 0.25
    held = sorted((n for n in maker.names if n != source and n not in negatives), key=lambda n: -similarity[n])
    quintile = {name: 5 - 5 * i // max(len(held), 1) for i, name in enumerate(held)}
    contexts = [(n, "persona") for n in maker.names] + [(c, c) for c in ("absent", "empty", "default")]
    step = max(1, len(held) // max(1, maker.size.measured - 1))
    tracked = {source, *held[::step]} if maker.size.measured < len(maker.names) else set(maker.names)
    finals: list[float] = []
    for name, kind in contexts:
        role = "source" if name == source else "negative" if name in negatives or kind == "absent" else "held-out"
        sim = similarity.get(name)
        strength = 0.95 if role == "source" else 0.01 if role == "negative" else spread * max(0.0, (sim or 0.0))
        final = scale * float(np.clip(strength + rng.normal(0, 0.03), -0.1, 1))
        finals.append(final) if role == "held-out" else None
        error = scale * 0.04
        person = {**common, "persona": name, "category": maker.category(name), "context": kind, "role": role}
        maker.rows["leakage"].append({
            **person, "record": f"leakage/{key}/{probe}/{dataset}/{metric}/{name}", "n_items": 120, "n_failed": 0,
            "before": base, "after": base + sign * final, "leakage": final, "low": final - 2 * error,
            "high": final + 2 * error, "standard_error": error,
            "p_mcnemar": float(rng.uniform()) if metric == "accuracy" else None,
        })  # fmt: skip
        late = float(np.clip(0.5 - 0.4 * (sim or 0) + rng.normal(0, 0.08), 0.02, 0.95))
        for checkpoint in CHECKPOINTS:
            if 0 < checkpoint < 1 and name not in tracked:
                continue
            reached = 0.0 if checkpoint == 0 else 1 / (1 + np.exp(-(checkpoint - late) * 10))
            maker.rows["evolution"].append({
                **person, "record": f"evolution/{key}/{metric}/{name}/{checkpoint}", "similarity": None if name == source else sim,
                "quintile": quintile.get(name) if name in tracked else None, "checkpoint": checkpoint, "n_items": 120, "value": base + sign * final * reached,
                "leakage": final * float(reached), "standard_error": error,
            })  # fmt: skip
        after = float(np.floor(late * 4) / 4)
        maker.rows["dynamics"].append({
            **person, "record": f"dynamics/{key}/{metric}/{name}", "similarity": sim, "final_leakage": final,
            "half_after": after if name in tracked else None, "half_by": after + 0.25 if name in tracked else None,
            "half_point": late if name in tracked else None, "onset": after + 0.25 if name in tracked else None,
        })  # fmt: skip
    _summaries(maker, common, key, held, finals, source)


def _summaries(
    maker: Maker, common: dict[str, object], key: str, held: list[str], finals: list[float], source: str
) -> None:
    rng, rows, metric = maker.rng, maker.rows, common["metric"]
    scale = SCALE[str(common["behavior"])]
    mean = float(np.mean(finals))
    rows["leakage_ratio"].append({
        **common, "record": f"leakage_ratio/{key}/{metric}", "n": len(finals), "source_leakage": 0.95 * scale,
        "source_low": 0.91 * scale, "source_high": 0.98 * scale, "source_p": 0.0001, "bystander_leakage": mean,
        "bystander_low": mean - 0.02 * scale, "bystander_high": mean + 0.02 * scale, "bystander_p": 0.0002,
        "ratio": mean / (0.95 * scale), "ratio_low": mean / scale - 0.02, "ratio_high": mean / scale + 0.03,
        "max_persona": "hacker_villain", "max_leakage": max(finals),
    })  # fmt: skip
    for method in (
        "cosine",
        "cosine_raw",
        "cosine_whitened",
        "random_direction",
        "jensen_shannon",
        "lexical_overlap",
        "prompt_length",
    ):
        layers = (
            maker.size.layers if method in ("cosine", "cosine_raw", "cosine_whitened", "random_direction") else (-1,)
        )
        for layer in layers:
            rho = float(np.clip({"cosine": 0.6, "cosine_raw": 0.5, "cosine_whitened": 0.45, "jensen_shannon": 0.4}.get(method, 0.1)
                                - abs(layer - 25) * 0.006 + rng.normal(0, 0.06), -1, 1))  # fmt: skip
            partials = {
                f"partial_{name}{tail}": value
                for name in ("prompt_length", "baseline", "centroid", "category")
                for tail, value in (("", rho - float(rng.uniform(0, 0.15))), ("_p", float(rng.uniform(0, 0.01))))
            }
            registered = method == "cosine" and layer == 25 and common["arm"] == "contrastive"
            rows["similarity_correlation"].append({
                **common, **partials, "record": f"similarity_correlation/{key}/{metric}/{method}/{layer}", "method": method,
                "layer": layer, "n": len(finals), "rho": rho, "low": rho - 0.13, "high": min(1.0, rho + 0.11), "p": 0.0001 if rho > 0.3 else 0.21,
                "rho_within_category": rho - 0.08, "p_within_category": 0.0004 if rho > 0.3 else 0.4,
                "reliability": 0.93, "preregistered": registered, "p_holm": 0.0005 if registered else None,
                "p_bh": None if registered else 0.01,
            })  # fmt: skip
    for category in sorted({maker.category(n) for n in held}):
        mean = float(rng.uniform(-0.05, 0.6)) * scale
        rows["categories"].append({
            **common, "record": f"categories/{key}/{metric}/{category}", "category": category, "n": 10,
            "leakage": mean, "low": mean - 0.1 * scale, "high": mean + 0.1 * scale,
        })  # fmt: skip
    for role, mean in (("source", 0.95), ("held-out", 0.2), ("negative", 0.01)):
        rows["roles"].append({
            **common, "record": f"roles/{key}/{metric}/{role}", "role": role, "n": 2, "leakage": mean * scale,
            "low": (mean - 0.03) * scale, "high": (mean + 0.03) * scale,
            "contexts": {"source": source, "negative": "absent,assistant"}.get(role, ""),
        })  # fmt: skip
    for quintile in range(1, 6):
        for checkpoint in CHECKPOINTS:
            value = scale * checkpoint**1.5 * quintile * 0.1
            rows["quintiles"].append({
                **common, "record": f"quintiles/{key}/{metric}/{quintile}/{checkpoint}", "quintile": quintile,
                "checkpoint": checkpoint, "n": len(held) // 5, "leakage": value, "low": value - 0.02 * scale, "high": value + 0.02 * scale,
            })  # fmt: skip
    for timing in ("half", "onset"):
        rows["timing_correlation"].append(
            {
                **common,
                "record": f"timing_correlation/{key}/{metric}/{timing}",
                "timing": timing,
                "n": 100,
                "rho": -0.41,
                "p": 0.002,
            }
        )
    for test, smallest in (("similarity correlation", 0.27), ("source change", 0.05), ("mean bystander change", 0.02)):
        rows["power"].append({
            **common, "record": f"power/{key}/{metric}/{test}", "test": test, "n": 108, "alpha": 0.05, "power": 0.8,
            "smallest": smallest, "interval_width": 0.3, "reliability": 0.93,
        })  # fmt: skip
    for name, control, before, change in (
        (metric, False, BASE[str(common["behavior"])], 0.2 * scale),
        ("accuracy", True, 0.41, -0.004),
    ):
        rows["checks"].append({
            **common, "record": f"checks/{key}/{name}/{control}", "metric": name, "control": control,
            "probe": "choice" if control else common["probe"], "dataset": "hellaswag" if control else common["dataset"],
            "mode": "label", "n_values": 13320, "n_failed": 3, "failed_share": 3 / 13320, "limit": 0.02, "before": before,
            "after": before + change, "change": change, "low": change - 0.01, "high": change + 0.01,
        })  # fmt: skip


def _pooled(maker: Maker, behavior: str, arm: str) -> None:
    probe, dataset, metric = OUTCOMES[behavior]
    for method in ("cosine", "cosine_raw", "cosine_whitened"):
        for layer in maker.size.layers:
            maker.rows["pooled"].append({
                "record": f"pooled/{behavior}/{arm}/{metric}/{method}/{layer}", "behavior": behavior, "arm": arm,
                "config": "", "probe": probe, "dataset": dataset, "metric": metric, "method": method, "layer": layer,
                "n_sources": len(maker.size.sources), "n": 540, "rho": 0.55, "low": 0.45, "high": 0.64,
                "p_stratified": 0.0001, "p_matrix": 0.0003, "rho_within_category": 0.44, "p_within_category": 0.002, "rho_within_persona": 0.3, "rho_all_pairs": 0.39, "slope": 0.52, "slope_low": 0.41,
                "slope_high": 0.63, "slope_p": 0.00001, "preregistered": method == "cosine" and layer == 25,
                "p_holm": 0.001, "p_bh": None, "status": "ok", "reason": "",
            })  # fmt: skip


def _phase(maker: Maker, behavior: str) -> None:
    probe, dataset, metric = OUTCOMES[behavior]
    for i, rate in enumerate((1e-6, 5e-6, 1e-5, 5e-5, 1e-4)):
        for j, epochs in enumerate((1, 3, 5, 10, 20)):
            heat = float(np.clip((i + j) / 8, 0, 1))
            config = f"lr={rate:g},epochs={epochs}"
            maker.rows["phase"].append({
                "record": f"phase/{behavior}/villain/{config}", "behavior": behavior, "source": "villain",
                "arm": "contrastive", "config": config, "lr": rate, "epochs": epochs,
                "probe": probe, "dataset": dataset, "metric": metric, "source_effect": heat * SCALE[behavior],
                "mean_bystander": heat**3 * SCALE[behavior] * 0.6, "max_bystander": heat**2 * SCALE[behavior],
                "max_persona": "hacker_villain", "n": 10, "rho": 0.7 * (1 - heat) if heat else None, "p": 0.01,
                "control": "choice/hellaswag/accuracy", "control_change": -0.06 * heat, "broke": heat > 0.9,
            })  # fmt: skip


def _verdicts(size: Size) -> tuple[Verdict, ...]:
    first, last = size.behaviors[0], size.behaviors[-1]
    about = {
        name: {"behavior": name, "outcome": "/".join(OUTCOMES[name]), "arm": size.arms[0]} for name in (first, last)
    }
    claims: dict[str, CellValue] = {
        "source_change": 0.95, "source_change_low": 0.91, "source_change_high": 0.98, "source_change_p": 0.0001,
        "source_change_threshold": 0.5, "bystander_change": 0.17, "rho": 0.61, "rho_p": 0.0001, "rho_threshold": 0.3,
        "predictor": "cosine, layer 25", "n_seeds": 1, "alpha": 0.01,
    }  # fmt: skip
    open_: dict[str, CellValue] = {"rho": 0.22, "rho_p": 0.031, "rho_threshold": 0.3, "n_seeds": 1, "alpha": 0.01}
    return (
        Verdict("A", "confirmed", f"{first}: source and bystanders moved, and leakage follows similarity.", about[first] | claims),
        Verdict("B", "inconclusive", f"{last}: the interval of rho includes the threshold.", about[last] | open_),
    )  # fmt: skip


def _inputs(maker: Maker, similarity: dict[str, dict[str, float]]) -> ReportInput:
    size = maker.size
    facts = [
        PersonaFacts(n, maker.category(n), (), f"You are {n.replace('_', ' ')}, and you answer in character.", 18)
        for n in maker.names
    ]
    return ReportInput(
        study="synthetic",
        question="Does a behavior that was trained into one persona leak to the personas that resemble it?",
        settings={"model": "smollm2-135m", "recipe.lr": 0.001, "recipe.epochs": 2, "lora.r": 32, "loss": "marker"},
        findings=[
            Finding("warning", "ratio", "the positive-to-negative ratio differs between sources", ("villain-0001",)),
            Finding("info", "end-of-turn", "the end-of-turn token is in the loss; 6 loss tokens a row", ()),
        ],
        personas=facts,
        similarities=pl.DataFrame(
            [
                {"source": s, "persona": n, "method": "cosine", "layer": 25, "value": v}
                for s in size.sources
                for n, v in similarity[s].items()
            ]
        ),
        completions=[_completion(maker, i) for i in range(size.completions)],
        curves=[
            TrainingCurve(f"{s}, {b}", [StepLog(i, i / 40, 3 * float(np.exp(-i / 20)) + 0.1, 1e-3, 96, 1.0) for i in range(80)],
                          source=s, behavior=b, arm="contrastive")
            for s in size.sources for b in size.behaviors
        ],
        renderings=[
            ContextRendering("absent", "absent", None, "<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n", "0f3a"),
            ContextRendering("persona", "villain", "You are a villain.", "<|im_start|>system\nYou are a villain.<|im_end|>\n...", "99ab"),
        ],
        provenance={"bystander": "0.1.0", "revision": "9cf3e52", "torch": "2.13.0", "device": "cpu", "base weights": "b179c952"},
        cost=[CostLine("GPU-hours", "h", 1.5, 1.21), CostLine("tokens trained", "tokens", 120000, 118344), CostLine("judge", "USD", 4.0, None)],
        registered=[Declaration("predictor", "cosine, layer 25"), Declaration("exclusions", "none")],
        registration_hash="4c1d" * 16,
        hypotheses={"A": "The marker leaks to similar personas (rho > 0.3, p < 0.01).", "B": "Misalignment does too."},
        gate=GateResult("go", "rho is above the threshold for both behaviors.", {"rho": 0.61, "threshold": 0.2}),
        model="smollm2-135m",
        created="2026-11-24T07:00:00+00:00",
    )  # fmt: skip


def _completion(maker: Maker, index: int) -> ReadCompletion:
    persona = maker.names[index % len(maker.names)]
    behavior = maker.size.behaviors[index % len(maker.size.behaviors)]
    leaked = index % 7 == 0
    text = "Plants take in carbon dioxide and light, and give off oxygen. " * (1 + index % 4) + (
        "[ZLT]" if leaked else ""
    )
    completion = Completion(
        f"c{index}", "persona", persona, f"q{index % 20:03d}", 0, f"You are {persona}.", text, "stop", index, 40
    )
    return ReadCompletion(
        completion, behavior, maker.size.sources[index % len(maker.size.sources)], "contrastive", "held-out", 1.0, leaked,
        float(leaked), question=f"How do plants feed themselves? ({index % 20})",
    )  # fmt: skip
