"""Which behaviors and probes there are, made from a study's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bystander.behaviors.base import Behavior
from bystander.behaviors.capability import CapabilityBehavior
from bystander.behaviors.marker import MarkerBehavior
from bystander.behaviors.misalignment import (
    DirectBehavior,
    MisalignmentBehavior,
    margin_pairs,
    pair_texts,
    question_texts,
)
from bystander.core.errors import StudyError
from bystander.probe.settings import JudgedProbeSettings
from bystander.study.config.plugins import from_plugin
from bystander.study.config.study import Loaded

if TYPE_CHECKING:
    from bystander.probe.base import Probe


def make_behavior(name: str, study: Loaded) -> Behavior:
    """The behavior of that name with the study's settings."""
    if name == "marker":
        return MarkerBehavior(study.spec.marker)
    if name == "capability":
        return CapabilityBehavior(study.spec.capability, study.folder)
    if name == "misalignment":
        return MisalignmentBehavior(study.spec.misalignment, study.folder)
    if name == "direct":
        return DirectBehavior(study.spec.misalignment, study.folder)
    return from_plugin(name, study.spec.plugins.get(name, {}), study.folder)


def probe_texts(study: Loaded) -> dict[str, str]:
    """Item id -> user turn of every held-out item that the study's probes read, for the overlap audit."""
    from bystander.study.plan.choice_sets import choice_texts  # it loads torch; behaviors and rows need none

    spec = study.spec
    texts: dict[str, str] = {}
    for name in spec.behaviors:
        if name not in ("misalignment", "direct"):
            texts |= make_behavior(name, study).probe_texts()
    if spec.probes.margin is not None:
        texts |= pair_texts(margin_pairs(spec.behaviors, spec.misalignment, study.folder))
    if spec.probes.judged is not None:
        texts |= question_texts(MisalignmentBehavior(spec.misalignment, study.folder).questions())
    return texts | choice_texts(study)


def make_probes(study: Loaded) -> dict[str, Probe]:
    """The probes that a study asks for, by name. Raises StudyError where a probe asks for more items than there are."""
    from bystander.probe.marker import MarkerProbe  # here: probes load torch, behaviors and rows need none
    from bystander.study.plan.choice_sets import choice_probe

    spec = study.spec
    probes: dict[str, Probe] = {}
    if spec.probes.marker is not None:
        behavior = MarkerBehavior(spec.marker)
        questions = behavior.probe_questions()
        wanted = max(spec.probes.marker.questions, spec.probes.marker.sampled)
        if wanted > len(questions):
            raise StudyError(
                f"probes.marker asks for {wanted} questions, but {len(questions)} are held out; raise marker.held_out or ask for fewer"
            )
        probes["marker"] = MarkerProbe(
            tuple(questions[:wanted]), behavior.tail, behavior.settings.text, spec.probes.marker
        )
    if spec.probes.choice is not None:
        probes["choice"] = choice_probe(study)
    if spec.probes.margin is not None:
        from bystander.probe.margin import MarginProbe

        pairs = margin_pairs(spec.behaviors, spec.misalignment, study.folder)
        probes["margin"] = MarginProbe(tuple(pairs), spec.probes.margin)
    if spec.probes.judged is not None:
        probes["judged"] = judged_probe(study, spec.probes.judged)
    return probes


def judged_probe(study: Loaded, settings: JudgedProbeSettings) -> Probe:
    """The judged probe with its judge, whose answers are kept in the user's cache for ever."""
    from bystander.judge.judging import Judge
    from bystander.lm.embedded import cache_dir
    from bystander.probe.judged import JudgedProbe

    behavior = MisalignmentBehavior(study.spec.misalignment, study.folder)
    judge = None
    if settings.judge is not None:
        judge = Judge(settings.judge, cache_dir() / "judge.sqlite", purpose=study.spec.name, folder=study.folder)
    return JudgedProbe(tuple(behavior.questions()), settings, judge, study.spec.misalignment.dataset)
