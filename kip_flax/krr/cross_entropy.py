"""Predictions of a support that have the least cross-entropy on the targets.

A support predicts K_ts alpha, whatever its images are. The squared error has a closed form
(`label_solve`), but spends itself on targets that are classified well already. The cross-entropy
is convex in alpha too: it is logistic regression on the rows of K_ts. Shapes: S support images, T
targets, C classes.
"""

import numpy as np
import scipy.linalg

from kip_flax.runtime.errors import UserError

PENALTY = 1e-3  # Of half the mean square of the predictions. Accuracy hardly depends on it.
_JITTER = 1e-9  # In units of the mean square of an entry of K_ts.
_TOLERANCE, _ITERATIONS = 1e-6, 2000


def solution(k_ts: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """alpha (S, C), float64, that minimises

        mean over targets of -log softmax(K_ts alpha)[class] + PENALTY/2 |K_ts alpha|^2,

    multiplied by a number that brings its predictions as near as can be to one-hot - 1/C. These
    predictions do not depend on the unit of the kernel.

    Args:
        k_ts: (T, S), the kernel of targets and support.
        classes: (T,), the classes of the targets, 0 to C - 1.
        num_classes: C.

    Raises:
        UserError: K_ts holds NaN or inf, or zeros alone; or all targets are of one class.
    """
    rows = k_ts.astype(np.float64)
    if not np.isfinite(rows).all():
        raise UserError(
            "the kernel of targets and support holds NaN or inf: take smaller steps, or start from "
            "images without NaN."
        )
    if not rows.any() or (classes == classes[0]).all():
        raise UserError(
            "labels of least cross-entropy need targets of two classes or more, and a kernel that "
            "is not zero everywhere: pass other images."
        )
    factor, features = _whitened(rows)
    weights = _logistic_regression(features, classes, num_classes)
    alpha = scipy.linalg.solve_triangular(factor, weights, lower=True, trans="T")
    predictions = rows @ alpha
    fitting = np.vdot(predictions, np.eye(num_classes)[classes] - 1 / num_classes)
    return alpha * fitting / np.vdot(predictions, predictions)


def _whitened(k_ts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A lower triangle L (S, S) and Z = K_ts L^-T (T, S), whose mean Z^T Z / T is the identity.

    So the penalty on weights of Z is that on predictions, and the solver needs few iterations.
    """
    gram = k_ts.T @ k_ts / len(k_ts)
    jitter = _JITTER * np.trace(gram) / len(gram)
    factor = scipy.linalg.cholesky(gram + jitter * np.eye(len(gram)), lower=True)
    return factor, scipy.linalg.solve_triangular(factor, k_ts.T, lower=True).T


def _logistic_regression(features: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Weights (S, C) of a regression without intercept; zeros for classes without a target."""
    from sklearn.linear_model import LogisticRegression  # It takes a second to import.

    two = len(np.unique(classes)) == 2  # Then scikit-learn finds their difference alone.
    penalty = PENALTY * len(features) / (2 if two else 1)
    model = LogisticRegression(
        C=1 / penalty, fit_intercept=False, tol=_TOLERANCE, max_iter=_ITERATIONS
    )
    found = model.fit(features, classes).coef_
    if two:
        found = np.concatenate([-found, found]) / 2
    weights = np.zeros((features.shape[1], num_classes))
    weights[:, model.classes_] = found.T
    return weights
