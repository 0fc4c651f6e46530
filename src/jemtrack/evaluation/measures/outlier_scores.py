"""How much like the training images an image looks to a model; higher is more alike.

Liu et al., "Energy-based Out-of-distribution Detection" (2020), for log p~(x); Hendrycks and
Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples" (2017), for the
maximum probability. Two more need the model: `jemtrack.jem.scores` and
`jemtrack.evaluation.measures.mahalanobis`.

Letters: N images, C classes.
"""

from torch import Tensor

from jemtrack.errors import InputError


def outlier_scores(logits_NC: Tensor, log_density_N: Tensor) -> dict[str, Tensor]:
    """Give three scores of each image, (N,), in float64 on the CPU.

    `log_density` is log p~(x); `max_probability` the highest class probability, 1/C to 1;
    `negative_entropy` that of the class probabilities, in nats, -log C to 0.

    Raises:
        InputError: when the two do not fit together.
    """
    if logits_NC.ndim != 2 or log_density_N.shape != logits_NC.shape[:1]:
        raise InputError(
            "expected one row of logits and one log density an image, got shapes "
            f"{tuple(logits_NC.shape)} and {tuple(log_density_N.shape)}"
        )
    log_probabilities_NC = logits_NC.detach().cpu().double().log_softmax(dim=1)
    probabilities_NC = log_probabilities_NC.exp()
    return {
        "log_density": log_density_N.detach().cpu().double(),
        "max_probability": probabilities_NC.max(dim=1).values,
        "negative_entropy": (probabilities_NC * log_probabilities_NC).sum(dim=1),
    }
