"""Kinds of arrays, the result object, paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manifoldkit import DiffusionManifold
from manifoldkit.attacks import (
    FGSM,
    PGD,
    Attack,
    LatentPGD,
    OnManifoldPGD,
    PatchPGD,
    PatchSearch,
    ProbabilitiesWarning,
    ProjectionAttack,
    RandomTangentWalk,
    SubspacePGD,
    evaluate,
)  # fmt: skip
from manifoldkit.attacks.loop import Walk
from manifoldkit.attacks.losses import cross_entropy, margin
from manifoldkit.datasets import make_circle
from manifoldkit.exceptions import UnsteadyModelWarning
from manifoldkit.geometry.exact import Plane


def all_attacks(model: torch.nn.Module, size: int) -> list[Attack]:
    plane = Plane(torch.eye(size)[:, : size - 1])
    return [
        FGSM(model, 0.05),
        PGD(model, 0.05, steps=4, norm=2),
        PGD(model, 0.05, steps=4, random_start=True, restarts=2),
        OnManifoldPGD(model, plane, 0.02, 4),
        RandomTangentWalk(model, plane, 0.02, 4),
        PGD(model, 0.5, steps=4, norm=1, step_control="apgd"),
        SubspacePGD(model, plane, 0.2, steps=4),
        SubspacePGD(model, plane, 0.2, "tangent", norm="inf", steps=4),
        ProjectionAttack(model, plane, 0.1, steps=4),
        LatentPGD(model, torch.nn.Identity(), torch.nn.Identity(), 0.1, steps=4),
        PatchPGD(model, torch.ones(1), 0.05, 4, nesterov=1.0),
        PatchSearch(model, torch.ones(1), 4),
    ]


@pytest.mark.parametrize("which", range(12))
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_answer_has_the_kind_of_the_images(convnet, images, which, dtype, kind):
    y = convnet(images).argmax(1)
    x = images.to(getattr(torch, dtype))
    given = x if kind == "torch" else x.numpy()
    result = all_attacks(convnet, 36)[which].run(given, y if kind == "torch" else y.numpy().astype(np.int32))
    expected = torch.Tensor if kind == "torch" else np.ndarray
    for name in ("adversarial", "l2", "linf", "success", "steps_taken", "prediction_before", "prediction_after"):
        value = getattr(result, name)
        assert type(value) is expected, name
        assert len(value) == len(images)
    assert result.adversarial.shape == given.shape
    for name in ("adversarial", "l2", "linf"):
        assert getattr(result, name).dtype == given.dtype
    assert isinstance(result.status, np.ndarray)


def test_numpy_and_torch_agree(convnet, images):
    y = convnet(images).argmax(1)
    assert np.array_equal(PGD(convnet, 0.1)(images.numpy(), y.numpy()), PGD(convnet, 0.1)(images, y).numpy())


def test_awkward_numpy_layouts(convnet, images):
    y = convnet(images).argmax(1).numpy()
    expected = PGD(convnet, 0.1)(images.numpy(), y)
    swapped = images.numpy().astype(">f8")
    assert np.array_equal(PGD(convnet, 0.1)(swapped, y), expected)
    flipped = images.numpy()[::-1]
    assert np.array_equal(PGD(convnet, 0.1)(flipped, y[::-1]), expected[::-1])


def test_computation_is_in_the_dtype_of_the_parameters(images):
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(36, 3)

        def forward(self, x):
            seen.append(x.dtype)
            return self.layer(x.flatten(1))

    PGD(Spy(), 0.1, steps=2)(images, torch.zeros(40, dtype=torch.long))
    assert set(seen) == {torch.float32}


def test_model_without_parameters_computes_in_the_dtype_of_the_images():
    class Fixed(torch.nn.Module):
        def forward(self, x):
            assert x.dtype == torch.float32
            return torch.stack([x[:, 0], x[:, 1]], dim=1)

    assert PGD(Fixed(), 0.3).run(torch.tensor([[0.6, 0.4]]), [0]).success.all()


def test_result_figures_match_the_images(convnet, images):
    y = convnet(images).argmax(1)
    y[:3] = (y[:3] + 1) % 4  # three that are wrong from the outset
    result = PGD(convnet, 0.12, 0.01, 20).run(images, y)
    change = (result.adversarial - images).flatten(1)
    assert torch.allclose(result.l2, change.norm(dim=1))
    assert torch.allclose(result.linf, change.abs().amax(dim=1))
    assert torch.equal(result.prediction_before, convnet(images).argmax(1))
    assert torch.equal(result.prediction_after, convnet(result.adversarial).argmax(1))
    assert torch.equal(result.success, result.prediction_after != y)
    assert (result.success.numpy() == (result.status == "success")).all()
    assert result.steps_taken[:3].tolist() == [0, 0, 0]
    figures = result.summary()
    success = result.success.double()
    assert figures["samples"] == len(result) == 40
    assert figures["success"] + figures["stalled"] + figures["max_steps"] == 40
    assert figures["success_rate"] == pytest.approx(success.mean().item())
    assert figures["robust_accuracy"] == pytest.approx(1 - success.mean().item())
    assert figures["clean_accuracy"] == pytest.approx(37 / 40)
    assert figures["flipped_rate"] == pytest.approx(success[3:].mean().item())
    assert figures["mean_l2"] == pytest.approx(result.l2[result.success].mean().item())
    assert figures["mean_distance_to_manifold"] is None
    assert repr(result).startswith("AttackResult(40 samples, ")


def test_robust_accuracy_never_exceeds_clean_accuracy(convnet, images):
    """A walk that starts at the projection puts right some samples that were wrong: those are not robust."""
    plane = Plane(torch.eye(36)[:, :12])
    projected = plane.project(images)
    y = convnet(projected).argmax(1)
    wrong = convnet(images).argmax(1) != y
    assert wrong.any()
    attack = ProjectionAttack(convnet, plane, 1e-6, steps=1)
    result = attack.run(images, y)
    assert not result.success.any()
    figures = result.summary()
    assert figures["clean_accuracy"] == figures["robust_accuracy"] == pytest.approx(1 - wrong.double().mean().item())
    row = evaluate(convnet, [(images, y)], {"projection": attack}).table()[0]
    assert row["clean_accuracy"] == row["robust_accuracy"] == figures["clean_accuracy"]
    curve = evaluate(convnet, [(images, y)], {"projection": attack}, eps=[1e-6, 0.3, 1]).curves()["projection"][1]
    assert (np.diff(curve) <= 0).all()
    assert curve[-1] < curve[0]


def test_summary_without_a_success_has_no_means(half_space):
    figures = PGD(half_space([1.0, -1.0]), 0.01).run(torch.tensor([[0.9, 0.1]]), [0]).summary()
    assert figures["mean_steps"] is None
    assert figures["robust_accuracy"] == 1.0


@pytest.mark.parametrize("which", range(1, 12))
def test_path_shows_every_step(convnet, images, which):
    attack = all_attacks(convnet, 36)[which]
    attack.record_path = True
    y = convnet(images).argmax(1)
    result = attack.run(images, y)
    steps = int(result.steps_taken.max())
    assert result.path.shape == (steps + 1, *images.shape)
    assert result.path_predictions.shape == (steps + 1, len(images))
    assert torch.equal(result.path[-1], result.adversarial)
    for t in range(steps + 1):
        assert torch.equal(convnet(result.path[t]).argmax(1), result.path_predictions[t])
        gone = result.steps_taken <= t
        assert torch.equal(result.path[t][gone], result.adversarial[gone])


def test_no_path_unless_asked(convnet, images):
    result = PGD(convnet, 0.1, steps=2).run(images, convnet(images).argmax(1))
    assert result.path is None
    assert result.path_predictions is None
    assert result.distance_to_manifold is None


def test_batch_and_single_samples_agree(convnet, images):
    y = convnet(images).argmax(1)
    together = PGD(convnet, 0.1, 0.01, 10)(images, y)
    alone = torch.cat([PGD(convnet, 0.1, 0.01, 10)(images[i : i + 1], y[i : i + 1]) for i in range(10)])
    assert torch.allclose(together[:10], alone, atol=1e-10)


def test_losses_against_their_formulas():
    logits = torch.tensor([[2.0, 0.5, 1.0], [0.0, 3.0, -1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 2])
    assert torch.allclose(margin(logits, labels), torch.tensor([-1.0, 4.0], dtype=torch.float64))
    expected = logits.logsumexp(1) - logits[[0, 1], labels]
    assert torch.allclose(cross_entropy(logits, labels), expected)


def test_probabilities_are_pointed_out(convnet, images):
    model = torch.nn.Sequential(convnet, torch.nn.Softmax(dim=1))
    with pytest.warns(ProbabilitiesWarning, match="remove the softmax"):
        FGSM(model, 0.1)(images, convnet(images).argmax(1))


def test_loop_keeps_the_better_of_two_walks():
    def walk(objective: list[float], code: list[int]) -> Walk:
        value = torch.tensor(objective)
        return Walk(value[:, None].clone(), *(torch.zeros(len(objective), dtype=torch.long) for _ in range(2)),
                    value, torch.zeros(len(objective), dtype=torch.long), torch.tensor(code))  # fmt: skip

    state = walk([1.0, 2.0, 3.0, 4.0], [2, 0, 0, 0])
    state.keep_better(torch.tensor([1, 2, 3]), walk([1.5, 3.5, 0.0], [0, 1, 2]))
    assert state.objective.tolist() == [1.0, 2.0, 3.5, 0.0]
    assert state.x[:, 0].tolist() == [1.0, 2.0, 3.5, 0.0]
    assert state.code.tolist() == [2, 0, 1, 2]


def test_replaced_values_are_read_as_by_the_constructor(convnet, images):
    y = convnet(images).argmax(1)
    attack = PGD(convnet, 0.05, steps=3)
    found = attack.replaced(norm=2, loss="margin", steps=np.int64(4), eps=0.3)
    assert torch.equal(found(images, y), PGD(convnet, 0.3, steps=4, norm=2, loss="margin")(images, y))
    assert torch.equal(attack(images, y), PGD(convnet, 0.05, steps=3)(images, y))
    for changes in ({"norm": 3}, {"loss": "hinge"}, {"steps": 0}, {"restarts": 2}, {"bounds": (1, 0)}):
        with pytest.raises(ValueError, match=next(iter(changes))):
            attack.replaced(**changes)
    with pytest.raises(TypeError, match="eps must be a number"):
        attack.replaced(eps=None)


def test_attack_with_another_manifold_projects_onto_that():
    net = torch.nn.Linear(2, 2).double()
    ring = make_circle(60, grid=True).points
    first, second = (DiffusionManifold(n_components=9).fit(scale * ring) for scale in (1, 3))
    x = torch.from_numpy(ring[:4])
    attack = ProjectionAttack(net, first, 0.1, bounds=None, steps=2)
    before = attack(x, [0, 0, 1, 1])
    found = attack.replaced(manifold=second)(x, [0, 0, 1, 1])
    assert torch.equal(found, ProjectionAttack(net, second, 0.1, bounds=None, steps=2)(x, [0, 0, 1, 1]))
    assert torch.equal(attack(x, [0, 0, 1, 1]), before)


def test_attacks_print_themselves(convnet):
    assert repr(PGD(convnet)) == "PGD(Sequential, steps=40, targeted=False)"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("which", range(12))
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_model_on_the_device_and_images_anywhere(convnet, images, which, where):
    y = convnet(images).argmax(1)
    attack = all_attacks(convnet.cuda(), 36)[which]
    attack.generator = torch.Generator().manual_seed(0)
    result = attack.run(images.to(where), y)
    assert result.adversarial.device.type == result.success.device.type == where
    attack.model.cpu()
    attack.generator = torch.Generator().manual_seed(0)
    assert torch.allclose(attack(images, y), result.adversarial.cpu(), atol=1e-6)


class Dropping(torch.nn.Linear):
    """Drops half of its inputs, also in evaluation mode."""

    def forward(self, x):
        return super().forward(torch.nn.functional.dropout(x, 0.5))


class Mixing(torch.nn.Linear):
    """Subtracts the mean of the batch."""

    def forward(self, x):
        return super().forward(x - x.mean(dim=0))


@pytest.mark.parametrize("kind", [Dropping, Mixing])
def test_networks_that_answer_differently_when_asked_again_are_noticed(kind):
    x = torch.rand(20, 5, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UnsteadyModelWarning, match="draws random numbers, or lets the samples of a batch depend"):
        FGSM(kind(5, 3), 0.1)(x, torch.zeros(20, dtype=torch.long))


def test_attributes_are_read_as_the_constructor_reads_them():
    x, y = torch.full((3, 2), 0.5), [0, 1, 0]
    net = torch.nn.Linear(2, 2)
    attack, other = PGD(net, 0.3), PGD(net, 0.1, 0.05, norm=2, loss="margin", bounds=(0, 2))
    attack.eps, attack.alpha, attack.loss, attack.norm, attack.bounds = 0.1, 0.05, "margin", 2, [0, 2]
    assert torch.equal(attack(x, y), other(x, y))
    for name, value, error in (("eps", -1, ValueError), ("steps", 5.0, TypeError), ("loss", "mse", ValueError)):
        with pytest.raises(error, match=name):
            setattr(attack, name, value)
    attack.restarts = 3
    with pytest.raises(ValueError, match="pass random_start=True"):
        attack(x, y)
