"""What only the data can tell about the trainers' parameters."""

from collections.abc import Iterator
from pathlib import Path

from jemtrack.data.images import DataSplits
from jemtrack.errors import InputError
from jemtrack.jem.batches import pick_labelled
from jemtrack.jem.model_file import load_weights_into
from jemtrack.parameters import build
from jemtrack.stages.parameter_file import read_graph, read_parameters, sections
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.training import network_shape


def check_trainers(data: DataSplits) -> None:
    """Hold the parameters of every trainer against the data, before the first one trains.

    Raises:
        InputError: one line for each value that does not fit.
    """
    found = []
    for section in sections(read_graph(), read_parameters()):
        if issubclass(section.cls, TrainArgs):
            values = {name: value for name, value in section.values.items() if name != "_cls"}
            params = build(section.cls, values, section.where)
            found += [f"{section.where}.{problem}" for problem in _problems(params, data)]
    if found:
        raise InputError("\n".join(found))


def _problems(params: TrainArgs, data: DataSplits) -> Iterator[str]:
    try:
        pick_labelled(data.train.labels_N, params.labels_per_class, data.seed)
    except InputError as error:
        yield str(error)
    if params.load_path:
        shape = network_shape(params, data)
        try:
            load_weights_into(shape.build_model(), shape, Path(params.load_path))
        except InputError as error:
            yield f"load_path: {error}"
