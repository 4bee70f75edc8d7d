"""What the algorithms are called where people read of them.

One's own algorithm, which is not here, goes by the name of its module.
"""

_NAMES = {
    "kip": "KIP",
    "kip_solve": "KIP",
    "kip_newton": "KIP",
    "ls": "Label Solve",
    "dc": "DC",
    "dsa": "DSA",
}
_VARIANTS = {"kip_solve": "labels solved at each step", "kip_newton": "Gauss-Newton"}
_IN_FULL = {
    "KIP": "Kernel Inducing Points (KIP)",
    "DC": "Dataset Condensation (DC)",
    "DSA": "Dataset Condensation with Differentiable Siamese Augmentation (DSA)",
}


def name(algorithm: str) -> str:
    """The method's, as in a table's column: 'KIP'."""
    return _NAMES.get(algorithm, algorithm)


def variant(algorithm: str) -> str:
    """How the method is carried out, where there are several ways: 'Gauss-Newton', or ''."""
    return _VARIANTS.get(algorithm, "")


def in_full(algorithm: str) -> str:
    """For those who do not know the method yet: 'Kernel Inducing Points (KIP), Gauss-Newton'."""
    method = name(algorithm)
    return ", ".join(filter(None, (_IN_FULL.get(method, method), variant(algorithm))))


def is_kip(algorithm: str) -> bool:
    """Whether images are learned by the error of kernel ridge regression on them."""
    return name(algorithm) == "KIP"


def computes_kernels(algorithm: str) -> bool:
    """Whether its steps consist of kernel entries."""
    return is_kip(algorithm) or algorithm == "ls"
