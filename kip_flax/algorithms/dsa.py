"""DSA: DC with one differentiable augmentation, the same for real and synthetic images.

Zhao and Bilen, *Dataset Condensation with Differentiable Siamese Augmentation* (ICML 2021, arXiv
2102.08259).
"""

import dataclasses

from ml_collections import ConfigDict

from kip_flax.algorithms import dc
from kip_flax.runtime.errors import UserError

_BIBTEX = """@inproceedings{zhao2021siamese,
  title     = {Dataset Condensation with Differentiable Siamese Augmentation},
  author    = {Zhao, Bo and Bilen, Hakan},
  booktitle = {International Conference on Machine Learning},
  year      = {2021},
  note      = {arXiv:2102.08259}
}"""

FACTS = dataclasses.replace(
    dc.FACTS,
    title="DSA",
    spelled_out="Dataset Condensation with Differentiable Siamese Augmentation (DSA)",
    bibtex=f"{dc.FACTS.bibtex}\n{_BIBTEX}",
)

check_data = dc.check_data
init = dc.init
make_step = dc.make_step


def check(config: ConfigDict) -> None:
    """Raises UserError if `matching.augment` is empty, or where `dc.check_fixed` does."""
    dc.check_fixed(config)
    if not config.matching.augment:
        raise UserError(
            "matching.augment is empty: DSA draws from it: name for example 'color,crop,cutout,"
            "scale,rotate', or take algorithm='dc'."
        )
