"""Made the .pt files beside it, with torch 2.13: python tests/data/make_torch_files.py

Ten real digits (the first of each class) in the layouts in which others save distilled sets.
"""

import collections
import pathlib

import numpy as np
import torch
from sklearn.datasets import load_digits

HERE = pathlib.Path(__file__).parent
MEAN, STD = 0.3053, 0.3760  # of scikit-learn's digits in [0, 1], about

digits = load_digits()
rows = [int(np.argmax(digits.target == label)) for label in range(10)]
pixels = np.rint(digits.images[rows] * (255 / 16)) / 255
images = torch.tensor((pixels - MEAN) / STD, dtype=torch.float32)[:, None]
labels = torch.arange(10)

# VICO-UoE/DatasetCondensation, main.py: one pair for each experiment, accuracies of NumPy.
accuracies = {"ConvNet": [np.float64(0.5), np.float64(0.25)]}
result = {
    "data": [[images.clone(), labels.clone()], [images.flip(0), labels.flip(0)]],
    "accs_all_exps": accuracies,
}
torch.save(result, HERE / "res_digits_ConvNet_1ipc.pt")
torch.save(result, HERE / "older_form.pt", _use_new_zipfile_serialization=False)

# MTT and DD-Ranking: two bare tensors; labels are soft here.
torch.save(images, HERE / "images_best.pt")
torch.save(torch.nn.functional.one_hot(labels, 10) - 0.1, HERE / "labels_best.pt")

# What tensors can look like: views of one storage, a parameter, other types.
base = torch.arange(24, dtype=torch.float64).reshape(4, 6)
views = collections.OrderedDict(
    transposed=base.T,
    slice=base[1:3, ::2],
    expanded=torch.ones(1, dtype=torch.float16).expand(5),
    parameter=torch.nn.Parameter(torch.full((2,), 3.0)),
    scalar=torch.tensor(7, dtype=torch.int16),
    flags=torch.tensor([True, False]),
    nothing=torch.zeros(0, 3),
    text=["a", 1, 2.5, None],
)
torch.save(views, HERE / "views.pt")
torch.save(views, HERE / "views_older_form.pt", _use_new_zipfile_serialization=False)
torch.save(torch.nn.Linear(2, 2), HERE / "a_module.pt")
