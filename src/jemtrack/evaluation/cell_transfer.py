"""Labels of held-out cells from those of their nearest training cells, and how sure they are.

Letters: N cells, D dimensions, C labels.
"""

import numpy as np
import torch

from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures

_NEIGHBOURS = 15
_LEAST = 1e-3  # share of a label that no neighbour has, so that it has a logarithm


def transfer_scores(
    train_ND: np.ndarray, train_labels_N: np.ndarray, test_ND: np.ndarray, labels_N: np.ndarray
) -> dict[str, float]:
    """Measure the labels that the nearest training cells vote for; codes are from 0.

    Cells whose label no training cell has are wrong with certainty and are left out. Nothing is
    measured if none is left, or if the training cells have fewer than two labels.
    """
    from sklearn.metrics import f1_score
    from sklearn.neighbors import KNeighborsClassifier

    known_N = np.isin(labels_N, train_labels_N)
    if len(np.unique(train_labels_N)) < 2 or not known_N.any():
        return {}
    votes = KNeighborsClassifier(min(_NEIGHBOURS, len(train_ND))).fit(train_ND, train_labels_N)
    place = {label: number for number, label in enumerate(votes.classes_)}
    labels_N = np.array([place[label] for label in labels_N[known_N]])
    shares_NC = votes.predict_proba(test_ND[known_N])
    logits_NC = torch.from_numpy(np.log(np.maximum(shares_NC, _LEAST)))
    measured = CalibrationMeasures()(logits_NC, torch.from_numpy(labels_N)).metrics
    macro = f1_score(labels_N, shares_NC.argmax(axis=1), average="macro", zero_division=0)
    chosen = {name: measured[name] for name in ("accuracy", "nll", "ece")}
    return {**chosen, "macro_f1": float(macro)}
