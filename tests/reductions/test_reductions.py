"""Every engine of every reduction gives the numbers and derivatives of the dense formula.

One test case, inherited. A case says how its sum reads densely; an engine says which part of the case waits for
``make reproduce``, since KeOps compiles each formula for some ten seconds: in the quick run all its formulas have up
to four coordinates and four columns, which is one size to KeOps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import pytest
import torch

from manifoldkit.reductions import kernel_product, nearest, softmax_average

SCALE = 1.7


def inputs(B=7, n=60, D=3, q=2, *, dtype=torch.float64, device="cpu", seed=0):
    """Queries, points and all that belongs to them, by the names of the arguments."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    made = {
        "x": normal(B, D),
        "rho_x": normal(B).abs() + 0.5,
        "points": normal(n, D),
        "rho": normal(n).abs() + 0.5,
        "log_weights": normal(n),
        "values": normal(n, q),
        "anchor": normal(B, D),
    }
    return {name: tensor.to(device=device, dtype=dtype) for name, tensor in made.items()}


class ReductionTestCase(ABC):
    """What holds for every reduction and every engine."""

    backend = "torch"
    device = "cpu"
    names: tuple[str, ...]

    @pytest.fixture(autouse=True)
    def _device(self):
        if self.device == "cuda" and not torch.cuda.is_available():
            pytest.skip("no CUDA device")

    @abstractmethod
    def compute(self, arguments):
        """The reduction by the engine under test."""

    @abstractmethod
    def dense(self, arguments):
        """The formula with all pairs in memory."""

    def make(self, **sizes):
        arguments = inputs(device=self.device, **sizes)
        return {name: arguments[name] for name in self.names}

    def assert_equal(self, arguments, rtol=1e-10, atol=1e-12):
        found, wanted = self.compute(arguments), self.dense(arguments)
        assert found.dtype == arguments["x"].dtype
        assert found.device == arguments["x"].device
        torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol)

    def derivatives(self, function, arguments, names):
        """Gradients of a random functional, and those of a random functional of them."""
        made = {name: tensor.clone().requires_grad_(name in names) for name, tensor in arguments.items()}
        wanted = [made[name] for name in names]
        generator = torch.Generator().manual_seed(1)

        def contract(tensors):
            return sum((t * torch.randn(t.shape, generator=generator).to(t)).sum() for t in tensors)

        first = torch.autograd.grad(contract([function(made)]), wanted, create_graph=True)
        yield first
        yield torch.autograd.grad(contract(first), wanted)

    def assert_derivatives(self, names, orders, **sizes):
        arguments = self.make(**sizes)
        found, wanted = (self.derivatives(f, arguments, names) for f in (self.compute, self.dense))
        for _ in range(orders):
            torch.testing.assert_close(next(found), next(wanted), rtol=1e-9, atol=1e-11)

    def test_equals_the_dense_formula(self):
        self.assert_equal(self.make())

    @pytest.mark.parametrize(
        "sizes", [{"B": 1}, {"D": 1}, {"q": 1}, {"n": 8}, {"n": 1}, {"B": 1, "D": 1, "q": 1}], ids=str
    )
    def test_odd_sizes(self, sizes):
        self.assert_equal(self.make(**sizes))

    def test_no_queries(self):
        answer = self.compute(self.make(B=0))
        assert len(answer) == 0
        assert answer.shape[1] == self.dense(self.make(B=2)).shape[1]

    def test_blocks_of_rows(self, monkeypatch):
        """More rows than one block holds."""
        monkeypatch.setattr("manifoldkit.reductions.chunked.MOST", 8 * 60 * 3)
        self.assert_equal(self.make(B=20))
        self.assert_derivatives(("x",), 1, B=20)

    def test_not_contiguous(self):
        arguments = self.make()
        strided = {name: torch.stack([t, t], dim=-1)[..., 0] for name, t in arguments.items()}
        assert not strided["points"].is_contiguous()
        torch.testing.assert_close(self.compute(strided), self.compute(arguments), rtol=1e-12, atol=1e-12)
        turned = {name: t.T.contiguous().T if t.ndim == 2 else t for name, t in arguments.items()}
        torch.testing.assert_close(self.compute(turned), self.compute(arguments), rtol=1e-12, atol=1e-12)
        turned["x"].requires_grad_()
        assert torch.autograd.grad(self.compute(turned).sum(), turned["x"])[0].abs().sum() > 0

    def test_gradient_in_the_queries(self):
        self.assert_derivatives(("x",), 1)

    def test_second_derivative_in_the_queries(self):
        self.assert_derivatives(("x",), 2)

    def test_derivatives_in_all_tensors(self):
        self.assert_derivatives(self.names, 2)

    def test_float32(self):
        arguments = self.make(dtype=torch.float32)
        found = self.compute(arguments)
        assert found.dtype == torch.float32
        exact = self.dense({name: tensor.double() for name, tensor in arguments.items()})
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)

    def test_many_coordinates(self):
        self.assert_equal(self.make(D=70, q=5), rtol=1e-9)


class KernelProduct(ReductionTestCase):
    names = ("x", "rho_x", "points", "rho", "values")

    def compute(self, arguments):
        return kernel_product(**arguments, scale=SCALE, backend=self.backend)

    def dense(self, a):
        squared = (a["x"][:, None] - a["points"]).square().sum(dim=2)
        return torch.exp(-squared / (a["rho_x"][:, None] * a["rho"] * SCALE)) @ a["values"]

    def test_far_queries_see_nothing(self):
        arguments = self.make()
        arguments["x"] = (1e6 * arguments["x"]).requires_grad_()
        product = self.compute(arguments)
        assert (product == 0).all()
        assert (torch.autograd.grad(product.sum(), arguments["x"])[0] == 0).all()

    def test_symmetry(self):
        """<u, K v> = <K u, v> where queries and points are the same."""
        a = self.make()
        kernel = {"x": a["points"], "rho_x": a["rho"], "points": a["points"], "rho": a["rho"]}
        first, second = a["values"][:, :1], a["values"][:, 1:]
        left = (first * self.compute({**kernel, "values": second})).sum()
        right = (self.compute({**kernel, "values": first}) * second).sum()
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


class SoftmaxAverage(ReductionTestCase):
    names = ("x", "rho_x", "points", "rho", "log_weights", "values", "anchor")

    def compute(self, arguments):
        return softmax_average(**arguments, scale=SCALE, backend=self.backend)

    def dense(self, a):
        # |x - y|^2 - |x - a|^2 without the loss of digits that the two squares have far away
        anchor = a.get("anchor", a["x"])
        squared = ((a["points"] - anchor[:, None]) * (a["points"] + anchor[:, None] - 2 * a["x"][:, None])).sum(dim=2)
        logits = a["log_weights"] - squared / (a["rho_x"][:, None] * a["rho"] * SCALE)
        return torch.softmax(logits, dim=1) @ a["values"]

    def test_without_an_anchor(self):
        arguments = self.make()
        arguments.pop("anchor")
        self.assert_equal(arguments)

    def test_weights_are_multiplicities(self):
        """A point of weight 2 counts as two points."""
        a = self.make()
        a["log_weights"] = torch.zeros_like(a["log_weights"])
        a["log_weights"][0] = math.log(2)
        twice = {**a, "log_weights": torch.zeros(61).to(a["rho"])}
        for name in ("points", "rho", "values"):
            twice[name] = torch.cat([a[name], a[name][:1]])
        torch.testing.assert_close(self.compute(a), self.compute(twice), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("distance", [1e2, 1e4, 1e8])
    def test_far_queries_are_anchored(self, distance):
        """No overflow, no underflow, and as many digits as the input has."""
        a = self.make()
        a["x"] = distance * a["x"]
        a["anchor"] = a["points"][torch.cdist(a["x"], a["points"]).argmin(dim=1)]
        self.assert_equal(a, rtol=1e-7, atol=1e-7)
        self.assert_finite_gradient(a)

    def test_far_queries_without_an_anchor(self):
        a = self.make()
        a.pop("anchor")
        a["x"] = 1e4 * a["x"]
        average = self.compute(a)
        assert (average <= a["values"].amax(dim=0) + 1e-12).all()
        assert (average >= a["values"].amin(dim=0) - 1e-12).all()

    def test_gradient_far_away_without_an_anchor(self):
        a = self.make()
        a.pop("anchor")
        a["x"] = 1e4 * a["x"]
        self.assert_finite_gradient(a)

    def assert_finite_gradient(self, a):
        x = a["x"].requires_grad_()
        assert torch.autograd.grad(self.compute(a).sum(), x)[0].isfinite().all()


class Nearest(ReductionTestCase):
    names = ("x", "points")
    k = 4

    def compute(self, arguments):
        return nearest(**arguments, k=min(self.k, len(arguments["points"])), backend=self.backend)[0]

    def dense(self, a):
        squared = (a["x"][:, None] - a["points"]).square().sum(dim=2)
        return squared.sqrt().sort(dim=1).values[:, : self.k]

    def test_indices_belong_to_the_distances(self):
        a = self.make(B=20)
        distances, indices = nearest(**a, k=3, backend=self.backend)
        assert indices.dtype == torch.int64
        torch.testing.assert_close((a["x"][:, None] - a["points"][indices]).norm(dim=2), distances)
        assert (distances.diff(dim=1) >= 0).all()
        assert all(len(set(row.tolist())) == 3 for row in indices)

    def test_points_are_their_own_neighbours_though_far_from_the_origin(self):
        points = self.make()["points"] + 1e6
        distances, indices = nearest(points, points, 1, backend=self.backend)
        assert (distances == 0).all()
        assert (indices[:, 0].cpu() == torch.arange(len(points))).all()


class Keops:
    """What takes further compilations waits."""

    backend = "keops"

    @pytest.mark.slow
    def test_second_derivative_in_the_queries(self):
        super().test_second_derivative_in_the_queries()

    @pytest.mark.slow
    def test_derivatives_in_all_tensors(self):
        super().test_derivatives_in_all_tensors()

    @pytest.mark.slow
    def test_float32(self):
        super().test_float32()

    @pytest.mark.slow
    def test_many_coordinates(self):
        super().test_many_coordinates()


class Cuda(Keops):
    device = "cuda"


class TestKernelProductTorch(KernelProduct):
    pass


class TestKernelProductKeops(Keops, KernelProduct):
    pass


@pytest.mark.cuda
class TestKernelProductTorchCuda(KernelProduct):
    device = "cuda"


@pytest.mark.cuda
class TestKernelProductKeopsCuda(Cuda, KernelProduct):
    pass


class TestSoftmaxAverageTorch(SoftmaxAverage):
    pass


class TestSoftmaxAverageKeops(Keops, SoftmaxAverage):
    @pytest.mark.slow
    def test_gradient_far_away_without_an_anchor(self):
        super().test_gradient_far_away_without_an_anchor()


@pytest.mark.cuda
class TestSoftmaxAverageTorchCuda(SoftmaxAverage):
    device = "cuda"


@pytest.mark.cuda
class TestSoftmaxAverageKeopsCuda(Cuda, SoftmaxAverage):
    pass


class TestNearestTorch(Nearest):
    pass


class TestNearestKeops(Keops, Nearest):
    pass


@pytest.mark.cuda
class TestNearestTorchCuda(Nearest):
    device = "cuda"


@pytest.mark.cuda
class TestNearestKeopsCuda(Cuda, Nearest):
    pass
