"""Joint energy-based models as reproducible DVC stages."""

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jemtrack.deploy.exporter import FormatConverter, ModelExporter, optimize_for_inference
    from jemtrack.deploy.predictor import Predictor
    from jemtrack.deploy.profiler import PerformanceProfiler
    from jemtrack.factories.callbacks import EarlyStopping, LearningRateScheduler, ModelCheckpoint
    from jemtrack.factories.deployment import create_deployment
    from jemtrack.factories.evaluator import create_evaluator
    from jemtrack.factories.model import create_dataloader, create_model
    from jemtrack.factories.trainer import create_trainer
    from jemtrack.jem.trained_model import TrainedModel, load_model

__all__ = [
    "EarlyStopping",
    "FormatConverter",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ModelExporter",
    "PerformanceProfiler",
    "Predictor",
    "TrainedModel",
    "create_dataloader",
    "create_deployment",
    "create_evaluator",
    "create_model",
    "create_trainer",
    "load_model",
    "optimize_for_inference",
]
_MODULES = {
    "EarlyStopping": "factories.callbacks",
    "FormatConverter": "deploy.exporter",
    "LearningRateScheduler": "factories.callbacks",
    "ModelCheckpoint": "factories.callbacks",
    "ModelExporter": "deploy.exporter",
    "PerformanceProfiler": "deploy.profiler",
    "Predictor": "deploy.predictor",
    "TrainedModel": "jem.trained_model",
    "create_dataloader": "factories.model",
    "create_deployment": "factories.deployment",
    "create_evaluator": "factories.evaluator",
    "create_model": "factories.model",
    "create_trainer": "factories.trainer",
    "load_model": "jem.trained_model",
    "optimize_for_inference": "deploy.exporter",
}

# Without it, matrix products on a GPU are refused where results must be the same each time
# (`shared.hardware.reproducible`). cuBLAS reads it once, at the first product.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# DVC runs a queued experiment in a copy of the project under `.dvc/tmp`. There, an editable install
# would import the current code of the checkout instead of the copy's: import from the copy. No
# other folder's code takes the place of the installed package.
for _folder in (Path.cwd(), *Path.cwd().parents):
    _here = _folder / "src" / __name__ / "__init__.py"
    if (".dvc", "tmp") in zip(_folder.parts, _folder.parts[1:], strict=False) and _here.is_file():
        if not _here.samefile(__file__):
            sys.path.insert(0, str(_here.parents[1]))
            del sys.modules[__name__]
            importlib.import_module(__name__)
        break


def __getattr__(name: str) -> Any:
    """Look up what takes a while to import when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
