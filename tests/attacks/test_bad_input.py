"""Nothing but wrong input: each is refused with a message that says what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manifoldkit.attacks import (
    FGSM,
    PGD,
    LatentPGD,
    OnManifoldPGD,
    ProjectionAttack,
    RandomTangentWalk,
    SubspacePGD,
    tnar_tangent,
)
from manifoldkit.geometry.exact import Plane, Sphere
from manifoldkit.risk import DistanceCalibration, OnManifoldTest, decompose_risk, foot_points

LINEAR = torch.nn.Linear(2, 3)
PLANE = Plane([[1.0], [0.0]])
X = torch.tensor([[0.5, 0.25], [0.75, 0.5]])
Y = torch.tensor([0, 1])


class Returns(torch.nn.Module):
    """A model that does with x what a function says."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Broken:
    """A manifold whose answers are wrong in the way asked for."""

    def __init__(self, project=lambda x: x, tangent_basis=lambda x: torch.eye(2)[:, :1].expand(len(x), 2, 1)) -> None:
        self.project, self.tangent_basis = project, tangent_basis


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "message"),
    [
        (PGD, {"model": lambda x: x}, TypeError, "torch.nn.Module"),
        (PGD, {"eps": 0.0}, ValueError, "eps must be positive"),
        (PGD, {"eps": -1}, ValueError, "eps must be positive"),
        (PGD, {"eps": float("nan")}, ValueError, "eps must be positive and finite"),
        (PGD, {"eps": torch.tensor([0.1, 0.0])}, ValueError, "eps must be positive"),
        (PGD, {"eps": torch.ones(2, 2)}, ValueError, "shape"),
        (PGD, {"eps": "big"}, TypeError, "eps must be a number"),
        (PGD, {"eps": True}, TypeError, "eps must be a number"),
        (PGD, {"alpha": 0}, ValueError, "alpha must be positive"),
        (PGD, {"steps": 0}, ValueError, "steps must be at least 1"),
        (PGD, {"steps": 2.5}, TypeError, "steps must be an integer"),
        (PGD, {"norm": 3}, ValueError, "norm must be 'inf', 2 or 1"),
        (PGD, {"norm": "L3"}, ValueError, "norm must be 'inf', 2 or 1"),
        (PGD, {"norm": True}, ValueError, "norm must be 'inf', 2 or 1"),
        (PGD, {"momentum": -1}, ValueError, "momentum must be"),
        (PGD, {"step_control": "auto"}, ValueError, "step_control must be one of"),
        (PGD, {"step_control": "apgd", "momentum": 1}, ValueError, "momentum of its own"),
        (PGD, {"loss": "mse"}, ValueError, "loss must be 'ce', 'margin'"),
        (PGD, {"loss": 3}, TypeError, "loss must be 'ce', 'margin'"),
        (PGD, {"restarts": 0, "random_start": True}, ValueError, "restarts must be at least 1"),
        (PGD, {"restarts": 3}, ValueError, "random_start=True"),
        (PGD, {"bounds": (1, 0)}, ValueError, "low < high"),
        (PGD, {"bounds": (0, float("inf"))}, ValueError, "finite"),
        (PGD, {"bounds": 1}, TypeError, "pair"),
        (PGD, {"generator": 0}, TypeError, "manual_seed"),
        (PGD, {"manifold": object()}, TypeError, "project and tangent_basis"),
        (FGSM, {"eps": -0.1}, ValueError, "eps must be positive"),
        (OnManifoldPGD, {"manifold": None}, TypeError, "got None"),
        (OnManifoldPGD, {"manifold": object()}, TypeError, "project and tangent_basis"),
        (OnManifoldPGD, {"manifold": PLANE, "steps": -1}, ValueError, "steps must be at least 0"),
        (OnManifoldPGD, {"manifold": PLANE, "alpha": -1}, ValueError, "alpha must be positive"),
        (OnManifoldPGD, {"manifold": PLANE, "eps": 0}, ValueError, "eps must be positive"),
        (OnManifoldPGD, {"manifold": PLANE, "tangent": "new"}, ValueError, "tangent must be one of"),
        (OnManifoldPGD, {"manifold": PLANE, "projection": "half"}, ValueError, "projection must be one of"),
        (RandomTangentWalk, {"manifold": PLANE, "residual": "keep"}, ValueError, "residual must be one of"),
    ],
)
def test_constructor(kind, arguments, error, message):
    defaults = {"model": LINEAR} | ({"eps": 0.1} if kind is not OnManifoldPGD and kind is not RandomTangentWalk else {})
    with pytest.raises(error, match=message):
        kind(**(defaults | arguments))


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        ([[0.5, 0.5]], [0], TypeError, "torch tensor or a numpy array, got list"),
        (torch.tensor([[1, 2]]), [0], TypeError, "scale bytes"),
        (np.array([[1, 2]], dtype=np.uint8), [0], TypeError, "scale bytes"),
        (np.array([["a", "b"]]), [0], TypeError, "floating"),
        (torch.ones(1, 2, dtype=torch.complex64), [0], TypeError, "floating"),
        (torch.ones(2), [0, 0], ValueError, r"x\[None\]"),
        (torch.ones(0, 2), [], ValueError, "at least one sample"),
        (torch.tensor([[0.5, float("nan")]]), [0], ValueError, "NaN or infinity in 1 of 1"),
        (np.array([[0.5, np.inf]]), [0], ValueError, "NaN or infinity"),
        (X + 0.5, Y, ValueError, r"leave the bounds by 0.25.*bounds=None"),
        (X - 0.5, Y, ValueError, r"span \[-0.25, 0.25\]"),
        (X, torch.tensor([0.0, 1.0]), TypeError, "integers"),
        (X, [0.5, 1.0], TypeError, "integers"),
        (X, ["cat", "dog"], TypeError, "integers"),
        (X, torch.tensor([True, False]), TypeError, "integers"),
        (X, torch.eye(2, dtype=torch.long), ValueError, "argmax"),
        (X, [0], ValueError, r"shape \(2,\)"),
        (X, [0, 3], ValueError, r"0\.\.2 .*from 0 to 3"),
        (X, [-1, 0], ValueError, "from -1 to 0"),
    ],
)
@pytest.mark.parametrize(
    "attack", [FGSM(LINEAR, 0.1), PGD(LINEAR, 0.1), OnManifoldPGD(LINEAR, PLANE)], ids=lambda a: type(a).__name__
)
def test_images_and_labels(attack, images, labels, error, message):
    with pytest.raises(error, match=message):
        attack.run(images, labels)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda x: (x, x), TypeError, "got tuple: wrap it"),
        (lambda x: x.sum(1), ValueError, r"logits of shape \(2, K\)"),
        (lambda x: x[:1], ValueError, r"logits of shape \(2, K\)"),
        (lambda x: x[:, :, None], ValueError, r"logits of shape \(2, K\)"),
        (lambda x: x[:, :1], ValueError, r"torch.cat\(\[-z, z\]"),
        (lambda x: x * float("nan"), ValueError, "NaN logits"),
        (lambda x: x.detach(), ValueError, "differentiable"),
        (lambda x: torch.zeros(len(x), 2, requires_grad=True), ValueError, "do not depend on the images"),
        (lambda x: torch.stack([(0 * x[:, 0]).sqrt() + 1, x[:, 0] * 0], 1), ValueError, "NaN or infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore::manifoldkit.attacks.ProbabilitiesWarning")
def test_models(function, error, message):
    with pytest.raises(error, match=message):
        PGD(Returns(function), 0.1)(X, torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("loss", [lambda z, y: z.sum(), lambda z, y: z, lambda z, y: 1.0])
def test_losses(loss):
    with pytest.raises(ValueError, match="one number a sample"):
        PGD(LINEAR, 0.1, loss=loss)(X, Y)


def test_radii_for_another_batch():
    with pytest.raises(ValueError, match="3 radii for 2 images"):
        PGD(LINEAR, torch.ones(3))(X, Y)
    with pytest.raises(ValueError, match="3 steps for 2 images"):
        PGD(LINEAR, 0.1, alpha=torch.ones(3))(X, Y)
    with pytest.raises(ValueError, match="3 radii for 2 images"):
        OnManifoldPGD(LINEAR, PLANE, eps=torch.ones(3))(X, Y)


@pytest.mark.parametrize(
    ("manifold", "error", "message"),
    [
        (Broken(project=lambda x: x.numpy()), TypeError, "project must return a tensor"),
        (Broken(project=lambda x: x[:, :1]), ValueError, r"project must return shape \(2, 2\)"),
        (Broken(project=lambda x: x * float("nan")), ValueError, "NaN or infinity"),
        (Broken(tangent_basis=lambda x: torch.ones(len(x), 2)), ValueError, r"must return shape \(2, 2, d\)"),
        (Broken(tangent_basis=lambda x: torch.full((len(x), 2, 1), torch.inf)), ValueError, "NaN or infinity"),
    ],
)
def test_manifolds(manifold, error, message):
    with pytest.raises(error, match=message):
        OnManifoldPGD(LINEAR, manifold, tangent="fixed")(X, Y)


@pytest.mark.parametrize("manifold", [Sphere(2), Plane(torch.eye(5)[:, :2])])
@pytest.mark.parametrize(
    "use",
    [
        lambda manifold: OnManifoldPGD(LINEAR, manifold)(X, Y),
        lambda manifold: SubspacePGD(LINEAR, manifold, 0.1)(X, Y),
        lambda manifold: SubspacePGD(LINEAR, manifold, 0.1, "tangent")(X, Y),
        lambda manifold: ProjectionAttack(LINEAR, manifold, 0.1)(X, Y),
        lambda manifold: tnar_tangent(LINEAR, manifold, X, 0.1),
        lambda manifold: decompose_risk(LINEAR, X, Y, manifold, 0.1, steps=2),
        lambda manifold: foot_points(manifold, X),
        lambda manifold: OnManifoldTest(manifold).fit(X),
        lambda manifold: DistanceCalibration(manifold).fit(X),
    ],
)
def test_manifolds_of_another_shape(use, manifold):
    with pytest.raises(ValueError, match=r"must have shape \(B, [35]\), got \(2, 2\)"):
        use(manifold)


def test_a_manifold_that_is_only_measured_is_refused_before_the_attack():
    calls = []
    model = Returns(lambda x: (calls.append(1), x)[1])
    with pytest.raises(ValueError, match=r"must have shape \(B, 3\)"):
        PGD(model, 0.1, manifold=Sphere(2))(X, Y)
    assert not calls


def long_columns(x):
    return torch.full((len(x), 2, 1), 0.75)


def oblique_columns(x):
    return torch.tensor([[1.0, 0.6], [0.0, 0.8]]).expand(len(x), 2, 2)


@pytest.mark.parametrize("basis", [long_columns, oblique_columns])
@pytest.mark.parametrize(
    "use",
    [
        lambda manifold: OnManifoldPGD(LINEAR, manifold, tangent="fixed")(X, Y),
        lambda manifold: OnManifoldPGD(LINEAR, manifold, tangent="refresh", projection="full")(X, Y),
        lambda manifold: SubspacePGD(LINEAR, manifold, 0.1)(X, Y),
        lambda manifold: PGD(LINEAR, 0.1, manifold=manifold)(X, Y),  # tangent shares are measured
        lambda manifold: tnar_tangent(LINEAR, manifold, X, 0.1),
        lambda manifold: decompose_risk(LINEAR, X, Y, manifold, 0.1, steps=2),
        lambda manifold: OnManifoldTest(manifold).fit(X),
    ],
)
def test_bases_that_are_not_orthonormal(use, basis):
    with pytest.raises(ValueError, match="tangent_basis must be orthonormal"):
        use(Broken(tangent_basis=basis))


@pytest.mark.parametrize(
    ("attack", "changes", "error", "message"),
    [
        (PGD(LINEAR, 0.1), {"model": len}, TypeError, "model must be a torch.nn.Module"),
        (PGD(LINEAR, 0.1), {"generator": 0}, TypeError, "manual_seed"),
        (PGD(LINEAR, 0.1), {"manifold": object()}, TypeError, "project and tangent_basis"),
        (PGD(LINEAR, 0.1), {"momentum": -1}, ValueError, "momentum must be"),
        (PGD(LINEAR, 0.1), {"momentum": "0.9"}, TypeError, "momentum must be"),
        (PGD(LINEAR, 0.1), {"momentum": 1, "step_control": "apgd"}, ValueError, "momentum of its own"),
        (PGD(LINEAR, 0.1), {"step_control": 1}, ValueError, "step_control must be one of"),
        (PGD(LINEAR, 0.1), {"run": None}, ValueError, "PGD has no run"),
        (PGD(LINEAR, 0.1), {"_norm": 2}, ValueError, "PGD has no _norm"),
        (FGSM(LINEAR, 0.1), {"steps": 5}, ValueError, "take PGD"),
        (FGSM(LINEAR, 0.1), {"alpha": 0.01}, ValueError, "take PGD"),
        (OnManifoldPGD(LINEAR, PLANE), {"manifold": None}, TypeError, "got None"),
        (OnManifoldPGD(LINEAR, PLANE), {"alpha": None}, TypeError, "alpha must be"),
        (OnManifoldPGD(LINEAR, PLANE), {"tangent": "new"}, ValueError, "tangent must be one of"),
        (OnManifoldPGD(LINEAR, PLANE), {"budget": "geodesic"}, ValueError, "needs eps"),
        (OnManifoldPGD(LINEAR, PLANE), {"line_search": 2.0}, TypeError, "line_search must be a sequence"),
        (SubspacePGD(LINEAR, PLANE, 0.1), {"component": "radial"}, ValueError, "component must be one of"),
        (SubspacePGD(LINEAR, PLANE, 0.1), {"manifold": None}, ValueError, "needs a manifold"),
        (SubspacePGD(LINEAR, PLANE, 0.1), {"norm": 1}, ValueError, "norm must be 'inf' or 2"),
        (SubspacePGD(LINEAR, None, 0.1, "ambient"), {"component": "normal"}, ValueError, "needs a manifold"),
        (ProjectionAttack(LINEAR, PLANE, 0.1), {"manifold": None}, TypeError, "got None"),
        (LatentPGD(LINEAR, LINEAR, LINEAR), {"decoder": len}, TypeError, "decoder must be a torch.nn.Module"),
        (LatentPGD(LINEAR, LINEAR, LINEAR), {"encoder": None}, TypeError, "encoder must be a torch.nn.Module"),
        (LatentPGD(LINEAR, LINEAR, LINEAR), {"box": (1, -1)}, ValueError, "box must be finite with low < high"),
    ],
)
def test_values_replaced(attack, changes, error, message):
    with pytest.raises(error, match=message):
        attack.replaced(**changes)


def test_a_radius_of_eight_levels_is_not_eight():
    net = torch.nn.Linear(2, 2)
    for kind in (FGSM, PGD):
        with pytest.raises(ValueError, match="eps=8 is more than the whole range of the images"):
            kind(net, 8)
        assert kind(net, 8, bounds=(0, 255)).eps == 8
        assert kind(net, 8, norm=2).eps == 8
