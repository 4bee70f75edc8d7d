"""What is stated of KIP and of Label Solve alike: their papers, and how these ran them."""

# The papers of the loss itself, kernel ridge regression from a learned support.
BIBTEX = """@inproceedings{nguyen2021dataset,
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


def published_recipe(images_per_class: int) -> str:
    """The recipe of the published numbers, in words."""
    del images_per_class
    return "larger batches and longer runs than the configurations here, partly augmented"
