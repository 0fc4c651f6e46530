"""A trained model as MLflow loads it; `jemtrack.trackers.mlflow` logs this file as the code.

Nothing is unpickled: MLflow runs the file, and `jemtrack.load_model` reads the safetensors file.
"""

from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

import jemtrack


class Classifier(PythonModel):
    """Predicts p(y|x), float32 (N, classes), of uint8 images (N, C, H, W)."""

    def load_context(self, context: Any) -> None:
        """Load the weights."""
        self.model = jemtrack.load_model(context.artifacts["weights"])

    # MLflow would check the input by type hints in place of the signature.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Compute the class probabilities."""
        return self.model.predict(model_input).numpy()


set_model(Classifier())
