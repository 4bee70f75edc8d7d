"""BibTeX of the papers whose method made a set."""

from kip_flax.algorithms import _methods as methods

_KIP = """@inproceedings{nguyen2021dataset,
  title     = {Dataset Meta-Learning from Kernel Ridge-Regression},
  author    = {Nguyen, Timothy and Chen, Zhourong and Lee, Jaehoon},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  note      = {arXiv:2011.00050}
}
@inproceedings{nguyen2021infinitely,
  title     = {Dataset Distillation with Infinitely Wide Convolutional Networks},
  author    = {Nguyen, Timothy and Novak, Roman and Xiao, Lechao and Lee, Jaehoon},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021},
  note      = {arXiv:2107.13034}
}"""
_DC = """@inproceedings{zhao2021dataset,
  title     = {Dataset Condensation with Gradient Matching},
  author    = {Zhao, Bo and Mopuri, Konda Reddy and Bilen, Hakan},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  note      = {arXiv:2006.05929}
}"""
_DSA = """@inproceedings{zhao2021siamese,
  title     = {Dataset Condensation with Differentiable Siamese Augmentation},
  author    = {Zhao, Bo and Bilen, Hakan},
  booktitle = {International Conference on Machine Learning},
  year      = {2021},
  note      = {arXiv:2102.08259}
}"""
_PAPERS = {"DC": _DC, "DSA": f"{_DC}\n{_DSA}"}


def bibtex(algorithm: str) -> str:
    """The entries for sets of `algorithm`; those of KIP and Label Solve where it is not known."""
    return _PAPERS.get(methods.name(algorithm), _KIP)
