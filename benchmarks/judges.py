"""A distilled set judged by others' programs, which are not part of this project.

    python benchmarks/judges.py dc EXPORT --data=DATA --program=DatasetCondensation [--method=DSA]
    python benchmarks/judges.py ddranking EXPORT --data=DATA [--labels=soft] [--space=own]

EXPORT is a folder of `--mode=export`, DATA that of the publisher's files. It runs in an environment
of its own with PyTorch and, for the second, `ddranking` 0.2; docs/formats.md has the commands. `dc`
calls `evaluate_synset` of a clone of VICO-UoE/DatasetCondensation with the arguments that its
main.py gives it; `ddranking` calls `compute_metrics` of the label-robust score.
"""

import argparse
import gzip
import importlib
import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

_CIFAR = [f"data_batch_{number}" for number in range(1, 6)], ["test_batch"]
_MOMENTS = {
    "CIFAR10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "MNIST": ((0.1307,), (0.3081,)),
}
# --dsa_strategy in their README: all six, without the flip for digits.
_STRATEGIES = {
    "CIFAR10": "color_crop_cutout_flip_scale_rotate",
    "MNIST": "color_crop_cutout_scale_rotate",
}
# DD-Ranking's parameters for DSA, from configs/Demo_LRS_Hard_Label.yaml.
_DSA = {
    "flip": 0.5,
    "rotate": 15.0,
    "saturation": 2.0,
    "brightness": 1.0,
    "contrast": 0.5,
    "scale": 1.2,
    "crop": 0.125,
    "cutout": 0.5,
}


def main() -> None:
    """Evaluates the set and prints one line of JSON."""
    args = _arguments()
    if args.judge == "dc" and not (args.program and (args.program / "utils.py").is_file()):
        raise SystemExit("the judge dc needs --program: a clone of VICO-UoE/DatasetCondensation.")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002  (their augmentations draw from it)
    (result,) = (args.export / "torch").glob("res_*.pt")
    dataset = result.name.split("_")[1]
    if dataset not in _MOMENTS:
        raise SystemExit(f"the export is of {dataset}: take one of {', '.join(_MOMENTS)}.")
    figures = _dc(args, dataset, result) if args.judge == "dc" else _ddranking(args, dataset)
    print(json.dumps({"set": args.export.name, "judge": args.judge, **figures}))


def _dc(args: argparse.Namespace, dataset: str, result: Path) -> dict[str, Any]:
    """Accuracies by DC's `evaluate_synset`, with the arguments of its main.py."""
    sys.path.insert(0, str(args.program))
    theirs = importlib.import_module("utils")
    pixels, classes = _read(args.data, dataset, train=False)
    test = theirs.TensorDataset(_normalised(pixels, dataset), classes)
    loader = torch.utils.data.DataLoader(test, batch_size=256, shuffle=False)
    augment = theirs.get_daparam(dataset, "ConvNet", "ConvNet", 1)
    dsa = args.method == "DSA"
    augmented = dsa or augment["strategy"] != "none"
    settings = SimpleNamespace(
        device="cpu",
        lr_net=0.01,
        batch_train=256,
        epoch_eval_train=args.epochs or (1000 if augmented else 300),
        dsa=dsa,
        dsa_strategy=_STRATEGIES[dataset],
        dsa_param=theirs.ParamDiffAug(),
        dc_aug_param=None if dsa else augment,
    )
    images, labels = torch.load(result, weights_only=True)["data"][0]
    accuracies = []
    for number in range(args.runs):
        shape = tuple(images.shape[2:])
        network = theirs.get_network("ConvNet", images.shape[1], 10, shape)
        # Its `view` fails on newer PyTorch's layout of one channel; the numbers stay the same.
        network.features.register_forward_hook(lambda *values: values[-1].contiguous())
        accuracies.append(
            theirs.evaluate_synset(
                number, network, images.clone(), labels.clone(), loader, settings
            )[2]
        )
    return {"epochs": settings.epoch_eval_train, **_summary("accuracy", accuracies)}


def _ddranking(args: argparse.Namespace, dataset: str) -> dict[str, Any]:
    """The label-robust score, and the accuracies that it is computed from."""
    from ddranking import metrics

    soft = args.labels == "soft"
    module: Any = importlib.import_module(f"ddranking.metrics.{args.labels}_label")
    module.get_dataset = lambda *_: _ddranking_data(args, dataset, module.TensorDataset)
    module.save_results = lambda *_: None  # 0.2 fails here: one list is twice as long.
    module.REAL_DATA_ACC_CACHE[f"{dataset}-ConvNet-3"] = args.real
    images, labels = (_load(args.export, name) for name in ("images.pt", "labels.pt"))
    classes = labels.argmax(1)
    if not torch.equal(classes, torch.arange(10).repeat_interleave(len(classes) // 10)):
        raise SystemExit("DD-Ranking takes the classes in order, as many images of each.")
    common = {
        "dataset": dataset,
        "ipc": len(classes) // 10,
        "num_eval": args.runs,
        "num_epochs": args.epochs or 300,
        "step_size": (args.epochs or 300) // 2,
        "data_aug_func": args.augment,
        "aug_params": dict(_DSA) if args.augment else None,
        "num_workers": 0,
        "device": "cpu",
        "random_data_format": "tensor",
        "random_data_path": str(args.export / "ddranking"),
        "save_path": str(args.export / "ddranking" / "scores.csv"),
    }
    if soft:
        weights = {"mse_weight": 1.0, "ce_weight": 0.0}
        judge = _soft_class(metrics.LabelRobustScoreSoft, args.scale)(
            soft_label_criterion="mse_gt",
            loss_fn_kwargs=weights,
            teacher_model_names=[],
            use_aug_for_hard=True,
            **common,
        )
    else:
        judge = metrics.LabelRobustScoreHard(**common)
    judge.test_interval = args.test_every or judge.num_epochs
    images = _in_space(args, images, dataset)
    given = {"soft_labels": labels * args.scale} if soft else {}
    scores = judge.compute_metrics(image_tensor=images, syn_lr=args.rate, **given)
    scores = {name: float(value) for name, value in scores.items()}
    # 0.2 takes e to the power of percentages, but the paper's formula is for shares.
    difference = scores["improvement_over_random_mean"] - scores["hard_label_recovery_mean"]
    shares = (np.exp(difference / 200) - np.exp(-1)) / (np.e - np.exp(-1))
    return {"labels": args.labels, "space": args.space, **scores, "score_of_shares": float(shares)}


def _soft_class(base: Any, scale: float) -> Any:
    """`base` with random images labelled by class, because 0.2 fails when it asks a teacher."""

    class Soft(base):
        def _get_random_data_helper(self, eval_iter: int) -> Any:
            functions = importlib.import_module("ddranking.utils")
            images, classes = functions.get_random_data_tensors(
                self.dataset, self.dst_train, self.class_to_indices, self.ipc, self.class_map,
                eval_iter, self.random_data_path,
            )  # fmt: skip
            one_hot = torch.nn.functional.one_hot(classes, self.num_classes).float()
            return None, images, scale * (one_hot - 1 / self.num_classes)

    return Soft


def _ddranking_data(args: argparse.Namespace, dataset: str, tensors: Any) -> Any:
    """The return value of its `get_dataset`, with images in the space of `--space`."""
    parts = []
    for train in (True, False):
        pixels, classes = _read(args.data, dataset, train=train)
        images = _in_space(args, _normalised(pixels, dataset), dataset)
        parts.append(tensors(images, classes.tolist()))
    train, test = parts
    same = {number: number for number in range(10)}
    mean, std = _MOMENTS[dataset]
    return 3, (32, 32), mean, std, 10, train, test, test, same, same


def _in_space(args: argparse.Namespace, images: torch.Tensor, dataset: str) -> torch.Tensor:
    """Normalised images (N, C, H, W), converted to the space of `--space`."""
    if args.space == "pixels":
        return images
    (path,) = args.export.glob("*_ckpt*.npz")
    arrays = dict(np.load(path))
    side = json.loads(str(arrays["meta"]))["preprocess_file"]
    arrays |= dict(np.load(path.with_name(side))) if side else {}
    mean, std = (np.asarray(values, np.float32) for values in _MOMENTS[dataset])
    rows = images.numpy().transpose(0, 2, 3, 1) * std + mean
    rows = ((rows - _array(arrays, "mean")) / _array(arrays, "std")).reshape(len(images), -1)
    rows = (rows - _array(arrays, "center")) @ _array(arrays, "whiten")
    height, width = images.shape[2:]
    rows = rows.astype(np.float32).reshape(-1, height, width, images.shape[1])
    return torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 3, 1, 2)))


def _array(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    found = [array for key, array in arrays.items() if key in (name, f"preprocess/{name}")]
    if not found:
        raise SystemExit(f"no {name} in the export: --space=own is for zca_center.")
    return found[0]


def _read(data: Path, dataset: str, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels uint8 (N, C, H, W) and class numbers of the publisher's files."""
    if dataset == "MNIST":
        stem = "train" if train else "t10k"
        images = _idx(data, f"{stem}-images-idx3-ubyte")[16:].reshape(-1, 1, 28, 28)
        labels = _idx(data, f"{stem}-labels-idx1-ubyte")[8:]
    else:
        names = _CIFAR[0] if train else _CIFAR[1]
        batches = [pickle.loads(_file(data, name).read_bytes(), encoding="bytes") for name in names]
        images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([batch[b"labels"] for batch in batches])
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def _idx(data: Path, name: str) -> np.ndarray:
    path = _file(data, name)
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    return np.frombuffer(content, np.uint8)


def _file(data: Path, name: str) -> Path:
    folders = (data, data / "mnist", data / "cifar-10-batches-py")
    found = [
        p for folder in folders for end in ("", ".gz") if (p := folder / (name + end)).exists()
    ]
    if not found:
        raise SystemExit(f"{data} lacks {name}.")
    return found[0]


def _normalised(pixels: torch.Tensor, dataset: str) -> torch.Tensor:
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in _MOMENTS[dataset])
    return (pixels.float() / 255 - mean) / std


def _load(export: Path, name: str) -> torch.Tensor:
    return torch.load(export / "torch" / name, weights_only=True)


def _summary(name: str, values: list[float]) -> dict[str, Any]:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {name: float(np.mean(values)), "std": spread, "each": [float(v) for v in values]}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("judge", choices=("dc", "ddranking"))
    parser.add_argument("export", type=Path, help="folder of --mode=export")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--program", type=Path, help="clone of VICO-UoE/DatasetCondensation")
    parser.add_argument("--method", choices=("DC", "DSA"), default="DC", help="whose augmentation")
    parser.add_argument("--labels", choices=("hard", "soft"), default="hard")
    parser.add_argument("--space", choices=("pixels", "own"), default="pixels")
    parser.add_argument("--augment", choices=("dsa",), help="of DD-Ranking; none by default")
    parser.add_argument("--scale", type=float, default=1.0, help="times the soft labels")
    parser.add_argument("--rate", type=float, help="of the set; DD-Ranking tries five without it")
    parser.add_argument("--real", type=float, default=84.8, help="accuracy with all real images")
    parser.add_argument("--epochs", type=int, help="300, or the judge's own")
    parser.add_argument("--test_every", type=int, help="epochs; by default once, at the end")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
