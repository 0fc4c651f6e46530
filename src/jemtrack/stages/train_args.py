"""The parameters that the trainers share."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from jemtrack.jem.networks.shape import Depth, NormName
from jemtrack.parameters import AtLeastOne, Count, NotNegative, parameters
from jemtrack.train.hardware import DeviceName, Hardware, Precision, Strategy


def _no_parent(name: str) -> str:
    if not name or "/" in name or name in {".", ".."}:
        raise ValueError("must be a plain name without '/'")
    return name


@parameters
class TrainArgs:
    """How a trainer trains; the objective's own parameters stand beside it.

    Attributes:
        experiment: name of the run, for trackers and for the folder under `save_dir`.
        save_dir: folder of logs and extra checkpoints; neither is an output of the stage.
        depth: layers of the wide residual network, 6n + 4.
        width: its widening factor.
        norm: normalisation in its blocks.
        dropout_rate: share of the activations that a block drops in training.
        load_path: model file to start from, in place of a fresh initialisation; `jemtrack graph`
            makes it one of the stage's deps.
        clf_only: train the class head alone; the trunk stays as it is. This, `lr`,
            `warm_up_steps`, `schedule`, `weight_decay` and `n_epochs` are for the ordinary
            training: a recipe with steps of its own says them itself.
        uncond: take log p~(x) from the energy head instead of from the logits; cross entropy alone
            does not train it.
        lr: Adam's learning rate.
        warm_up_steps: optimization steps over which it rises to `lr`.
        schedule: whether it then is constant, or falls to 0, epoch by epoch, along half a cosine.
        weight_decay: Adam's L2 penalty.
        batch_size: images in an optimization step.
        n_epochs: passes over the training images.
        sigma: standard deviation of the noise on images scaled to [-1, 1].
        labels_per_class: labelled images of each class; 0 or -1: all are labelled.
        n_steps: Langevin steps of a chain. SampledJEM trains on the ends of its chains; in every
            trainer, the log density that chains of this length reach is set beside that of
            validation images when training ends; 0: no chains.
        ckpt_every: epochs between extra checkpoints under `save_dir`; 0: none.
        eval_every: epochs between looks at the validation images.
        print_every: batches between lines where no progress bar is drawn.
        print_to_log: write the lines into a file under `save_dir` too.
        device: auto is a GPU where there is one, else the CPU.
        precision: fp32, or bf16-mixed: the weights in fp32, what autocast chooses in bfloat16.
        processes: that share each batch; on GPUs, each has one of its own.
        strategy: auto is one process, or ddp where there are several: each has the whole model,
            and their gradients are averaged.
    """

    experiment: Annotated[str, AfterValidator(_no_parent)] = "energy_model"
    save_dir: Annotated[str, Field(min_length=1)] = "experiment"
    depth: Depth = 10
    width: AtLeastOne = 2
    norm: NormName = "none"
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    uncond: bool = False
    load_path: str | None = None
    clf_only: bool = False
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    warm_up_steps: Count = 0
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: NotNegative = 0.0
    batch_size: AtLeastOne = 64
    n_epochs: AtLeastOne = 40
    sigma: NotNegative = 0.03
    labels_per_class: Annotated[int, Field(ge=-1)] = -1
    n_steps: Count = 20
    ckpt_every: Count = 0
    eval_every: AtLeastOne = 1
    print_every: AtLeastOne = 100
    print_to_log: bool = False
    device: DeviceName = "auto"
    precision: Precision = "fp32"
    processes: AtLeastOne = 1
    strategy: Strategy = "auto"

    @property
    def hardware(self) -> Hardware:
        """What to train on."""
        return Hardware(
            device=self.device,
            precision=self.precision,
            processes=self.processes,
            strategy=self.strategy,
        )
