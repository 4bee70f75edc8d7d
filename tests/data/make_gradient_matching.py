"""Writes gradient_matching.npz: distances, gradients and three steps of DC, computed by PyTorch.

    python tests/data/make_gradient_matching.py

Needs PyTorch (2.x, CPU), which the tests do not: they read the file. All in float64. Weights are
written in the layout of kip_flax: convolutions (row, column, in, out), dense (in, out).
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

CLASSES, PER_CLASS, REAL, SIDE, CHANNELS, WIDTH = 3, 2, 5, 8, 2, 6
LR_IMAGES, MOMENTUM, LR_NETWORK, OUTER, INNER = 0.5, 0.5, 0.1, 3, 2


def draw(rng: np.random.Generator) -> list[torch.Tensor]:
    """Weights, in PyTorch's layout: two blocks of convolution, norm; then a dense layer."""
    shapes = []
    for channels in (CHANNELS, WIDTH):
        shapes += [(WIDTH, channels, 3, 3), (WIDTH,), (WIDTH,), (WIDTH,)]
    shapes += [(CLASSES, WIDTH * (SIDE // 4) ** 2), (CLASSES,)]
    return [torch.tensor(0.5 * rng.standard_normal(shape), requires_grad=True) for shape in shapes]


def network(w: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Logits of images (n, C, H, W)."""
    for i in (0, 4):
        x = F.conv2d(x, w[i], w[i + 1], padding=1)
        x = F.group_norm(x, WIDTH, w[i + 2], w[i + 3], eps=1e-5)
        x = F.avg_pool2d(F.relu(x), 2)
    # kip_flax flattens (H, W, C).
    return F.linear(x.permute(0, 2, 3, 1).flatten(1), w[8], w[9])


def distance(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> torch.Tensor:
    """Sum over layers and their outputs of 1 - cosine; vectors are left out."""
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(ours, theirs, strict=True):
        if a.dim() > 1:
            a, b = a.flatten(1), b.flatten(1)
            total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
    return total


def gradient(w: list[torch.Tensor], x: torch.Tensor, label: int, graph: bool) -> list[torch.Tensor]:
    """Of the cross-entropy to one class."""
    loss = F.cross_entropy(network(w, x), torch.full((len(x),), label))
    return list(torch.autograd.grad(loss, w, create_graph=graph))


def match(w: list[torch.Tensor], images: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Distances of the classes (classes,), for images (classes, n, C, H, W)."""
    found = []
    for label in range(CLASSES):
        theirs = [g.detach() for g in gradient(w, real[label], label, False)]
        found.append(distance(gradient(w, images[label], label, True), theirs))
    return torch.stack(found)


def ours(w: list[torch.Tensor]) -> list[np.ndarray]:
    """Weights in the layout of kip_flax."""
    arrays = [leaf.detach().numpy() for leaf in w]
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    return [np.transpose(a, axes[a.ndim]) for a in arrays]


def main() -> None:
    """Computes and writes."""
    rng = np.random.default_rng(0)
    w = draw(rng)
    shape = (CLASSES, PER_CLASS, CHANNELS, SIDE, SIDE)
    images = torch.tensor(rng.standard_normal(shape), requires_grad=True)
    real = torch.tensor(rng.standard_normal((OUTER, CLASSES, REAL, CHANNELS, SIDE, SIDE)) + 0.3)
    kept = {f"weights/{i}": a.copy() for i, a in enumerate(ours(w))}
    kept["images"] = images.detach().numpy().transpose(0, 1, 3, 4, 2).copy()
    kept["real"] = real.numpy().transpose(0, 1, 2, 4, 5, 3)
    distances = match(w, images, real[0])
    kept["distances"] = distances.detach().numpy()
    (grads,) = torch.autograd.grad(distances.sum(), images)
    kept["gradients"] = grads.numpy().transpose(0, 1, 3, 4, 2)

    optimizer = torch.optim.SGD([images], lr=LR_IMAGES, momentum=MOMENTUM)
    trainer = torch.optim.SGD(w, lr=LR_NETWORK)
    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    for loop in range(OUTER):
        optimizer.zero_grad()
        match(w, images, real[loop]).sum().backward()
        optimizer.step()
        if loop < OUTER - 1:
            for _ in range(INNER):
                trainer.zero_grad()
                F.cross_entropy(network(w, images.detach().flatten(0, 1)), labels).backward()
                trainer.step()
    kept["images after"] = images.detach().numpy().transpose(0, 1, 3, 4, 2)
    kept |= {f"weights after/{i}": a for i, a in enumerate(ours(w))}
    np.savez(Path(__file__).with_name("gradient_matching.npz"), **kept)


if __name__ == "__main__":
    main()
