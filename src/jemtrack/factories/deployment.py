"""The deployment of a model: its bundle, and other formats of it."""

from pathlib import Path

from jemtrack.deploy.args import DeployArgs
from jemtrack.deploy.exporter import ModelExporter
from jemtrack.factories.configuration import Config, configured
from jemtrack.factories.model import ConfiguredModel


def create_deployment(model: ConfiguredModel, config: Config | None = None) -> "Deployment":
    """Create the deployment of a model of `create_model`, by the section `deploy`.

    Raises:
        InputError: a line for each problem of the configuration.
    """
    configuration = model.configuration if config is None else configured(config)
    return Deployment(model, configuration.file.deploy)


class Deployment:
    """Deploys a model; see `create_deployment`."""

    def __init__(self, model: ConfiguredModel, args: DeployArgs) -> None:
        self._model, self._args = model, args

    def deploy(
        self,
        model_path: str | Path,
        format: str = "onnx",
        precision: str | None = None,
        optimize: bool | None = None,
    ) -> Path:
        """Write model.safetensors and the bundle into a folder; return the format's file.

        Args:
            model_path: the folder; its name is the model's.
            format: of `jemtrack.deploy.formats.NAMES`.
            precision: that the format has; its first by default.
            optimize: whether to add the int8 model; as the section `deploy` says by default.

        Raises:
            InputError: if the format is not available here or is refused, with the reason.
        """
        exporter = ModelExporter(self._model, args=self._args)
        return exporter.export(model_path, format, precision, optimize)
