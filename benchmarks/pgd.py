"""What PGD costs beside other libraries at equal robust accuracy: CPU seconds, one thread.

    python benchmarks/pgd.py --out benchmarks/pgd.md

torchattacks and foolbox come with `make .venv`. A small convolutional network is trained on scikit-learn's digits,
scaled to 28 x 28; 256 held-out images are attacked in L_inf by 40 steps of eps / 10 without random start, at several
eps. All do the same deterministic walk, so that robust accuracy must agree; ours drops
the samples that are broken. The libraries take turns, and medians with ranges are shown.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from manifoldkit.attacks import PGD

STEPS = 40


def task(seed: int) -> tuple[nn.Module, Tensor, Tensor]:
    digits = load_digits()
    x = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    x = F.interpolate(x, (28, 28), mode="bilinear").clamp(0, 1)
    y = torch.tensor(digits.target)
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(8):
        for rows in torch.randperm(1500).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval(), x[1500:1756], y[1500:1756]


def libraries(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, Callable[[], Tensor]]:
    alpha = eps / 10

    def plain() -> Tensor:
        adv = x.clone()
        for _ in range(STEPS):
            adv.requires_grad_(True)
            (g,) = torch.autograd.grad(F.cross_entropy(net(adv), y), adv)
            adv = torch.min(torch.max(adv.detach() + alpha * g.sign(), x - eps), x + eps).clamp(0, 1)
        return adv

    found: dict[str, Callable[[], Tensor]] = {
        "manifoldkit": lambda: PGD(net, eps, alpha, STEPS)(x, y),
        "manifoldkit, no early stop": lambda: PGD(net, eps, alpha, STEPS, early_stop=False)(x, y),
        "ten lines of torch": plain,
    }
    if importlib.util.find_spec("torchattacks"):
        import torchattacks

        peer = torchattacks.PGD(net, eps=eps, alpha=alpha, steps=STEPS, random_start=False)
        found["torchattacks"] = lambda: peer(x, y)
    if importlib.util.find_spec("foolbox"):
        import foolbox

        wrapped = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        walk = foolbox.attacks.LinfPGD(abs_stepsize=alpha, steps=STEPS, random_start=False)
        found["foolbox"] = lambda: walk(wrapped, x, y, epsilons=eps)[1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="Markdown file for the tables")
    parser.add_argument("--eps", type=float, nargs="*", default=[0.05, 0.1, 0.3])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the network")
    args = parser.parse_args()
    torch.set_num_threads(1)
    net, x, y = task(args.seed)
    accuracy = float((net(x).argmax(1) == y).float().mean())
    lines = [
        "# PGD: what 40 steps cost", "", "    python benchmarks/pgd.py --out benchmarks/pgd.md", "",
        f"One thread of {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}, torch "
        f"{torch.__version__}; seed {args.seed}; 256 images of 28 x 28, clean accuracy {accuracy:.4f}; L_inf, step "
        f"eps / 10. Medians of {args.repeats} runs, in turns; the ratio is that of the medians to ours.", "",
        "| eps | library | CPU s | least-most | ratio | robust accuracy |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for eps in args.eps:
        engines = libraries(net, x, y, eps)
        seconds: dict[str, list[float]] = {name: [] for name in engines}
        robust = {}
        for name, attack in engines.items():  # also the warm-up
            robust[name] = float((net(attack()).argmax(1) == y).float().mean())
        for _ in range(args.repeats):
            for name, attack in engines.items():
                start = time.process_time()
                attack()
                seconds[name].append(time.process_time() - start)
        ours = median(seconds["manifoldkit"])
        for name, values in seconds.items():
            lines.append(
                f"| {eps:g} | {name} | {median(values):.2f} | {min(values):.2f}-{max(values):.2f} "
                f"| {median(values) / ours:.2f} | {robust[name]:.4f} |"
            )
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
