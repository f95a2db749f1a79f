"""A fitted manifold keeps its samples once, and nothing larger than its parts; so does its layer."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from manifoldkit import DiffusionManifold

OPTIONS = {
    "full": {"epsilon": 1.0},
    "local": {"n_kernel_neighbors": 20},
    "gathered": {"n_kernel_neighbors": 20, "dense_limit": 50},
}


@pytest.fixture(scope="module", params=OPTIONS)
def wide(request):
    """A noisy curve of 300 points in 400 dimensions, and a fit."""
    generator = np.random.default_rng(0)
    t = np.sort(generator.uniform(0, 2 * np.pi, 300))
    curve = np.column_stack([np.cos(t), np.sin(t)]) @ generator.normal(size=(2, 400))
    samples = curve + 0.1 * generator.normal(size=curve.shape)
    return DiffusionManifold(8, 10, dimension=1, n_projection_components=8, **OPTIONS[request.param]).fit(
        samples
    ), samples


def arrays(thing, seen=None) -> dict[int, int]:
    """Bytes of every block of memory that hangs on an object, by address."""
    seen, found = set() if seen is None else seen, {}
    if id(thing) in seen:
        return found
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        thing = thing.detach().numpy()
    if isinstance(thing, np.ndarray):
        while isinstance(thing.base, np.ndarray):
            thing = thing.base
        found[thing.__array_interface__["data"][0]] = thing.nbytes
        return found
    children = (
        list(thing.values()) if isinstance(thing, dict) else list(thing) if isinstance(thing, list | tuple) else []
    )
    for child in [*children, *getattr(thing, "__dict__", {}).values()]:
        found |= arrays(child, seen)
    return found


def test_nothing_of_the_size_of_the_samples_is_kept_twice(wide):
    manifold, samples = wide
    manifold.project(samples[:5])
    manifold.tangent_basis(samples[:5], "pca")
    manifold.to_module()
    blocks = arrays(manifold)
    assert sum(size == samples.nbytes for size in blocks.values()) == 1
    n, features = samples.shape
    others = sum(blocks.values()) - samples.nbytes
    support = manifold._row_options["support"]
    kernel = 0 if support is None else support._lacking.nbytes + support._start.nbytes
    assert others < 8 * (n * (2 * 8 + 3 * 11 + 20) + 3 * 8 * features) + kernel


def test_the_pickle_holds_the_samples_once(wide):
    manifold, samples = wide
    manifold.project(samples[:5])
    size = len(pickle.dumps(manifold))
    assert samples.nbytes < size < 1.5 * samples.nbytes
    restored = pickle.loads(pickle.dumps(manifold))
    np.testing.assert_array_equal(restored.project(samples[:5]), manifold.project(samples[:5]))


def test_the_layer_holds_the_samples_once(wide):
    """And once more in a neighbour engine, if it needs one: buffers may be cast, loaded and moved, engines not."""
    manifold, samples = wide
    layer = manifold.to_module()
    assert sum(size == samples.nbytes for size in arrays(layer).values()) == 1 + layer.row.gather
    engine = arrays(manifold._sampling.search) if layer.row.gather else {}
    assert set(arrays(layer)) & set(arrays(manifold)) <= set(engine)  # the others are its own


def test_projection_and_tangents_at_once_are_those_of_the_two_calls(wide):
    manifold, samples = wide
    for method in ("smoothed", "pca"):
        manifold.set_params(tangent_method=method)
        points, basis = manifold.project_with_tangents(samples[:7] + 0.01)
        np.testing.assert_allclose(points, manifold.project(samples[:7] + 0.01), atol=1e-12)
        other = manifold.tangent_basis(samples[:7] + 0.01)
        np.testing.assert_allclose(basis @ basis.transpose(0, 2, 1), other @ other.transpose(0, 2, 1), atol=1e-9)
