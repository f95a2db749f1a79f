"""What locally isometric layers do to distances: linked rings and the hierarchy of the torus, with and without them.

    python benchmarks/lil_geometry.py --work out/lil_geometry > benchmarks/lil_geometry.md

Rings: two linked unit circles, 600 points, networks [3, 20, 20, 20, 20, 2] with tanh, 2,000 full-batch epochs of Adam.
Torus: 1,600 points with noise 0.001, cut into 2, 4 and 8 cylinders; three such blocks, the losses of a level reach its
own block and the one before, 1,500 epochs at a rate of 0.005 (the paper: 10,000 at 0.001). Every row is kept in the
folder --work, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lil_robustness import cell  # sets the threads
from stored import stored
from torch import Tensor

from manifoldkit.datasets import make_linked_rings, make_ring_torus
from manifoldkit.isometry import IsometricTrainer, IsometryReport, LocallyIsometricNet

LEVELS = (2, 4, 8)


def measure(net: LocallyIsometricNet, x: Tensor, labels: list[Tensor]) -> dict[str, float]:
    """Accuracy, stress and correlation of distances of each level, the latter two within classes."""
    with torch.no_grad():
        scores = net.logits(net.representations(x))
    row = {}
    for level, report in enumerate(IsometryReport.of_network(net, x, labels)):
        row[f"accuracy_{level}"] = float((scores[level].argmax(dim=1) == labels[level]).float().mean())
        row[f"stress_{level}"], row[f"correlation_{level}"] = report.stress, report.distance_correlation
    return row


def rings(beta: float, seed: int) -> dict[str, float]:
    sample, labels = make_linked_rings(600, random_state=seed)
    x, y = torch.from_numpy(sample.points).float(), torch.from_numpy(labels)
    generator = torch.Generator().manual_seed(seed)
    net = LocallyIsometricNet.mlp(3, 2, width=20, generator=generator)
    start = time.process_time()
    IsometricTrainer(net, beta=beta, generator=generator).fit(x, y, epochs=2000)
    return {"seconds": time.process_time() - start, **measure(net, x, [y])}


def torus(beta: float, seed: int) -> dict[str, float]:
    sample = make_ring_torus(1600, noise=0.001, random_state=seed)
    sector = torch.from_numpy(sample.parameters[:, 0] * 8 / (2 * math.pi)).long()
    labels = [sector // 4, sector // 2, sector]
    x, generator = torch.from_numpy(sample.points).float(), torch.Generator().manual_seed(seed)
    net = LocallyIsometricNet.mlp(3, list(LEVELS), width=20, generator=generator)
    trainer = IsometricTrainer(net, beta=beta, generator=generator, optimizer=lambda p: torch.optim.Adam(p, lr=5e-3))
    start = time.process_time()
    trainer.fit(x, labels, epochs=1500)
    return {"seconds": time.process_time() - start, **measure(net, x, labels)}


def head(*names: str) -> None:
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("out/lil_geometry"), help="folder of the rows")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)

    def rows(job: Callable[[float, int], dict[str, float]], beta: float) -> list[dict[str, float]]:
        return [
            stored(options.work / f"{job.__name__}_{beta:g}_{seed}.json", functools.partial(job, beta, seed))
            for seed in range(options.seeds)
        ]

    print(f"# Locally isometric layers and distances\n\nMean ± standard deviation over {options.seeds} seeds. ", end="")
    print("Command: `python benchmarks/lil_geometry.py`.\n\n## Linked rings\n")
    print(
        "| beta | accuracy | correlation within rings | relative stress within rings | CPU s |\n|---|---|---|---|---|"
    )
    names = ("accuracy_0", "correlation_0", "stress_0")
    for beta in (0.0, 1.0, 10.0):
        found = rows(rings, beta)
        print(f"| {beta:g} | {' | '.join(cell(found, name, 4) for name in names)} | {cell(found, 'seconds', 0)} |")
    print("| target | 1 | 0.99 or more | 0.05 or less | |\n\n## Torus, by levels of the hierarchy\n")
    head("beta", "classes", "accuracy", "correlation within classes", "stress of the block", "CPU s")
    for beta in (0.0, 100.0):
        found = rows(torus, beta)
        for level, classes in enumerate(LEVELS):
            middle = " | ".join(cell(found, f"{name}_{level}", 4) for name in ("accuracy", "correlation", "stress"))
            print(f"| {beta:g} | {classes} | {middle} | {cell(found, 'seconds', 0) if not level else ''} |")
    print("| target | | more than 0.99 | | | |")


if __name__ == "__main__":
    main()
