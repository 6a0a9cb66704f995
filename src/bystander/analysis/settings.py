"""What decides the numbers of an analysis, beside its tables."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class AnalysisSettings:
    """`method` and `layer` name the predictor that the study chose before it ran; `layer` None: none was chosen, so that
    every similarity correlation is exploratory. The rest is resampling effort and limits."""

    method: str = "cosine"
    layer: int | None = None
    seed: int = 0
    permutations: int = 9_999  # so that p is a multiple of 1/10,000
    partial_permutations: int = 1_999  # partials and undeclared outcomes are many: p need not resolve below 1/2,000
    resamples: int = 2_000  # for intervals of means; the variance of a rank correlation takes half of them
    failed_limit: float = 0.05  # share of failed items above which an estimate is refused
    control_limit: float = 0.02  # fall of a control that is a fraction beyond which a model counts as broken
    coherence_limit: float = 10.0  # the same for a score of 0-100
    captured_share: float = 0.5  # of the source's leakage, above which a bystander counts as captured
    bystander_roles: tuple[str, ...] = ("held-out",)  # roles whose personas enter a similarity correlation

    blind: tuple[str, ...] = ()  # outcomes (probe/dataset/metric) on which the untrained model has nothing to lose

    @property
    def exploratory(self) -> AnalysisSettings:
        """For outcomes that nobody declared: as many permutations as a partial correlation gets, and fewer resamples."""
        return replace(
            self, permutations=min(self.permutations, self.partial_permutations), resamples=min(self.resamples, 800)
        )

    @property
    def control_limits(self) -> dict[str, float]:
        """Unit of a control -> its limit. Log-probabilities have none."""
        return {"fraction": self.control_limit, "score": self.coherence_limit}

    def declares(self, method: str, layer: int) -> bool:
        """Whether that predictor is the one that was chosen; without a chosen layer, the method decides."""
        return method == self.method and (self.layer is None or layer == self.layer)
