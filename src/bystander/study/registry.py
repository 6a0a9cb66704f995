"""Which behaviors and probes there are, made from a study's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bystander.behaviors.base import Behavior
from bystander.behaviors.capability import CapabilityBehavior
from bystander.behaviors.marker import MarkerBehavior
from bystander.core.errors import StudyError
from bystander.study.spec import Loaded

if TYPE_CHECKING:
    from bystander.probe.base import Probe


def make_behavior(name: str, study: Loaded) -> Behavior:
    """The behavior of that name with the study's settings."""
    if name == "marker":
        return MarkerBehavior(study.spec.marker)
    if name == "capability":
        return CapabilityBehavior(study.spec.capability, study.folder)
    raise StudyError(f"behavior {name!r} does not exist")


def make_probes(study: Loaded) -> dict[str, Probe]:
    """The probes that a study asks for, by name. Raises StudyError where a probe asks for more items than there are."""
    from bystander.probe.marker import MarkerProbe  # here: probes load torch, behaviors and rows need none
    from bystander.study.choice_sets import choice_probe

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
    return probes
