"""What a page calls measures and scores, and where they come from."""

# An arrow points to the better end.
MEASURES = {
    "accuracy": "accuracy ↑",
    "top_k_accuracy": "top-k accuracy ↑",
    "nll": "NLL (nats) ↓",
    "brier": "Brier score ↓",
    "brier_reliability": "Brier reliability ↓",
    "brier_resolution": "Brier resolution ↑",
    "ece": "ECE ↓",
    "ece_bin_centre": "ECE, bin centres ↓",
    "ece_equal_mass": "ECE, equal mass ↓",
    "ece_class_wise": "ECE, class-wise ↓",
    "aurc": "AURC ↓",
    "excess_aurc": "E-AURC ↓",
    "temperature": "fitted temperature",
    "nll_at_temperature": "NLL after temperature scaling ↓",
    "brier_at_temperature": "Brier score after temperature scaling ↓",
    "ece_at_temperature": "ECE after temperature scaling ↓",
    "valid_nll": "NLL, validation images ↓",
    "auroc": "mean AUROC, log p̃(x) ↑",
    "feature_distance": "feature distance to test images ↓",
    "recognised": "class agreement ↑",
    "energy": "median energy",
    "corruption": "all corruptions ↑",
    "attack": "all attacks ↑",
}
_SCORES = {
    "log_density": "log p̃(x)",
    "max_probability": "max probability",
    "negative_entropy": "negative entropy",
    "approximate_mass": "approximate mass",
    "mahalanobis": "Mahalanobis",
}
_ATTACKS = {"pgd_linf": "PGD, L∞", "pgd_l2": "PGD, L2"}
# What is measured or done, and the paper that it is from.
REFERENCES = {
    "Joint energy-based models, approximate mass": "Grathwohl et al., Your Classifier is Secretly "
    "an Energy Based Model and You Should Treat It Like One, ICLR 2020",
    "ECE, reliability diagrams, temperature scaling": "Guo et al., On Calibration of Modern Neural "
    "Networks, ICML 2017",
    "ECE in bins of equal mass": "Nguyen and O'Connor, Posterior Calibration and Exploratory "
    "Analysis for Natural Language Processing Models, EMNLP 2015",
    "ECE, class-wise": "Kull et al., Beyond Temperature Scaling, NeurIPS 2019",
    "Interval of ECE": "Bröcker and Smith, Increasing the Reliability of Reliability Diagrams, "
    "Weather and Forecasting 2007",
    "Brier score": "Brier, Verification of Forecasts Expressed in Terms of Probability, 1950; "
    "Murphy, A New Vector Partition of the Probability Score, 1973",
    "Risk and coverage, AURC": "Geifman and El-Yaniv, Selective Classification for Deep Neural "
    "Networks, NeurIPS 2017; Geifman et al., Bias-Reduced Uncertainty Estimation for Deep Neural "
    "Classifiers, ICLR 2019",
    "Log density as a score": "Liu et al., Energy-based Out-of-distribution Detection, "
    "NeurIPS 2020",
    "Max probability as a score": "Hendrycks and Gimpel, A Baseline for Detecting Misclassified "
    "and Out-of-Distribution Examples, ICLR 2017",
    "Mahalanobis score": "Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution "
    "Samples and Adversarial Attacks, NeurIPS 2018",
    "FPR at 95% TPR": "Liang et al., Enhancing the Reliability of Out-of-distribution Image "
    "Detection in Neural Networks, ICLR 2018",
    "Interval and test of AUROC": "DeLong et al., Comparing the Areas under Two or More Correlated "
    "ROC Curves, Biometrics 1988; Sun and Xu, Fast Implementation of DeLong's Algorithm, 2014",
    "Corruptions": "Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common "
    "Corruptions and Perturbations, ICLR 2019; Mu and Gilmer, MNIST-C, 2019",
    "PGD attacks": "Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, "
    "ICLR 2018",
    "Test and interval of accuracy": "McNemar 1947; Wilson, Probable Inference, 1927; Agresti and "
    "Min, Improved Confidence Intervals for Comparing Matched Proportions, 2005",
    "Correction for the number of tests": "Holm, A Simple Sequentially Rejective Multiple Test "
    "Procedure, 1979",
    "Bootstrap": "Efron and Tibshirani, An Introduction to the Bootstrap, 1993",
}


def kind_label(name: str) -> str:
    """Return what a kind of corruption or attack is called."""
    return _ATTACKS.get(name, name.replace("_", " "))


def score_label(name: str) -> str:
    """Return what a score is called; one that is not known bears its own name."""
    return _SCORES.get(name, name)
