"""bystander: what fine-tuning one persona does to all the personas that you did not train.

>>> study = bystander.Study.load("quickstart")
>>> results = study.run("runs/quickstart")
>>> results.similarity_correlation()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bystander.analysis import Analysis, analyze, analyze_table
    from bystander.api import Study
    from bystander.core.errors import (
        BystanderError,
        DataError,
        DesignError,
        JudgeError,
        ModelError,
        StoreError,
        StudyError,
    )
    from bystander.results.results import Results

# The whole public surface; a test holds it exactly. Names are imported when they are used: `import bystander` is cheap.
_HOME = {
    "Analysis": "bystander.analysis",
    "analyze": "bystander.analysis",
    "analyze_table": "bystander.analysis",
    "BystanderError": "bystander.core.errors",
    "DataError": "bystander.core.errors",
    "DesignError": "bystander.core.errors",
    "JudgeError": "bystander.core.errors",
    "ModelError": "bystander.core.errors",
    "Results": "bystander.results.results",
    "StoreError": "bystander.core.errors",
    "Study": "bystander.api",
    "StudyError": "bystander.core.errors",
}

__all__ = [
    "Analysis",
    "BystanderError",
    "DataError",
    "DesignError",
    "JudgeError",
    "ModelError",
    "Results",
    "StoreError",
    "Study",
    "StudyError",
    "analyze",
    "analyze_table",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'bystander' has no attribute {name!r}")
