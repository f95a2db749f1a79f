"""How far a decoder is from an isometry: edge ratios over a grid of codes, and identities of the Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.spatial import Delaunay, QhullError, cKDTree
from torch import nn

from .._arrays import as_array
from .._modules import evaluating, jacobian
from ._input import check_size, finite_samples

__all__ = ["code_grid", "edge_ratio_std", "jacobian_identities"]

Floats = np.ndarray[Any, np.dtype[np.float64]]


def edge_ratio_std(decode: Callable[[Any], Any], codes: Any, *, n_grid: int = 900) -> float:
    r"""Standard deviation of the relative edge lengths of a grid that a decoder maps: 0 for an isometry up to scale.

    .. math:: l_{ij} = |f(z_i) - f(z_j)| / |z_i - z_j|, \qquad \operatorname{std}(l) / \operatorname{mean}(l)

    over the edges of the Delaunay triangulation of a regular grid of codes, see :func:`code_grid`. All edges count
    alike, those at the border as well.

    Parameters
    ----------
    decode : callable
        f, from codes (m, d) to points (m, ...): the `inverse_transform` of a model, or a Module.
    codes : array or tensor (n, d)
        Codes of the data, which say where the grid has to lie; 1 <= d <= 3.
    n_grid : int, default=900
        Number of nodes that the grid would have if the codes filled their bounding box.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If the codes are NaN, do not span d dimensions or hardly do (they are thinner than a cell of the grid), or are
        too few, or the decoder maps them to one point.

    References
    ----------
    .. [1] Gropp, Atzmon and Lipman, "Isometric autoencoders", 2020, section 4.1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> codes = rng.random((500, 2)) * [1.0, 0.2]
    >>> round(edge_ratio_std(lambda z: 3 * z, codes), 6)
    0.0
    >>> round(edge_ratio_std(lambda z: z * [1, 2], codes), 2)
    0.27
    """
    nodes, edges = code_grid(codes, n_grid=n_grid)
    if isinstance(decode, nn.Module):
        tensor = next((t for t in [*decode.parameters(), *decode.buffers()] if t.is_floating_point()), torch.zeros(0))
        with torch.no_grad(), evaluating(decode):
            images = as_array(decode(torch.from_numpy(nodes).to(tensor)))
    else:
        images = as_array(decode(nodes), "the decoded grid")
    images = images.reshape(len(nodes), -1)
    i, j = edges.T
    ratios = np.linalg.norm(images[i] - images[j], axis=1) / np.linalg.norm(nodes[i] - nodes[j], axis=1)
    mean = ratios.mean()
    if mean == 0:
        raise ValueError("the decoder maps all nodes of the grid to one point: it has collapsed, no ratio is defined")
    return float(ratios.std() / mean)


def code_grid(codes: Any, *, n_grid: int = 900) -> tuple[Floats, np.ndarray[Any, np.dtype[np.int64]]]:
    """Nodes (m, d) of a regular grid where the codes are, and edges (k, 2) of its Delaunay triangulation.

    The grid is aligned with the principal axes of the codes. Its nodes lie in the convex hull of the codes, and no
    further than twice its spacing from one of them, so that nothing is extrapolated; edges longer than the diagonal of
    a cell, which bridge gaps, are left out.
    """
    z = finite_samples(codes, "codes").flatten(1).double().cpu().numpy()
    n, d = z.shape
    if not 1 <= d <= 3:
        raise ValueError(f"codes must have 1 to 3 dimensions for a grid, got {d}")
    check_size(n_grid, "n_grid", 4)
    centre = z.mean(axis=0)
    _, spread, axes = np.linalg.svd(z - centre, full_matrices=False)
    if n <= d + 1 or spread[-1] <= 1e-9 * spread[0]:
        raise ValueError(f"the {n} codes do not span {d} dimensions: the encoder has collapsed, or they are too few")
    local = (z - centre) @ axes.T
    low, high = local.min(axis=0), local.max(axis=0)
    step = float(np.prod(high - low) / n_grid) ** (1.0 / d)
    if (high - low).min() < 1.5 * step:  # a single layer of nodes
        extents = " x ".join(f"{extent:.3g}" for extent in high - low)
        raise ValueError(
            f"the codes have nearly collapsed: they fill a box of {extents}, whose thinnest side has no two nodes of a "
            f"grid with n_grid={n_grid}; no edge ratio in that direction is seen"
        )
    ticks = [np.arange(a + step / 2, b, step) for a, b in zip(low, high, strict=True)]
    nodes = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1).reshape(-1, d)
    if d > 1:
        nodes = nodes[Delaunay(local).find_simplex(nodes) >= 0]
    nodes = nodes[cKDTree(local).query(nodes)[0] <= 2 * step]
    try:
        simplices = Delaunay(nodes).simplices if d > 1 else np.arange(len(nodes) - 1)[:, None] + np.arange(2)
    except (QhullError, ValueError) as error:
        raise ValueError(f"{len(nodes)} nodes of the grid lie among the codes: raise n_grid") from error
    pairs = [(a, b) for a in range(simplices.shape[1]) for b in range(a)]
    edges = np.unique(np.sort(np.concatenate([simplices[:, pair] for pair in pairs]), axis=1), axis=0)
    lengths = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1)
    edges = edges[lengths <= 1.01 * np.sqrt(d) * step]
    if len(edges) == 0:
        raise ValueError("no edge of the grid lies among the codes: raise n_grid, or give more codes")
    return nodes @ axes + centre, edges.astype(np.int64)


@torch.no_grad()
def jacobian_identities(encoder: nn.Module, decoder: nn.Module, codes: Any) -> dict[str, float]:
    r"""First-order identities of an isometric autoencoder, as root mean squares over codes; all 0 if they hold.

    With :math:`A = df(z)` and :math:`B = dg(f(z))`: "decoder" is :math:`|A^\top A - I|_F / \sqrt d`, "encoder"
    :math:`|B B^\top - I|_F / \sqrt d`, "pseudo_inverse" :math:`|B - A^\top|_F / \sqrt d`.

    Parameters
    ----------
    encoder, decoder : Module
        g, f; run in evaluation mode. Full Jacobians are formed.
    codes : tensor or array (m, d)

    Examples
    --------
    >>> decoder, encoder = nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)
    >>> decoder.weight.data = torch.tensor([[0.6], [0.8]])
    >>> encoder.weight.data = decoder.weight.data.T
    >>> {name: round(value, 6) for name, value in jacobian_identities(encoder, decoder, torch.zeros(3, 1)).items()}
    {'decoder': 0.0, 'encoder': 0.0, 'pseudo_inverse': 0.0}
    """
    z = finite_samples(codes, "codes")
    tensor = next((t for t in decoder.parameters() if t.is_floating_point()), None)
    z = z if tensor is None else z.to(tensor)
    with evaluating(encoder, decoder):
        shape = decoder(z).shape
        points, forward = jacobian(decoder, z)
        columns = []
        with torch.enable_grad():
            x = points.reshape(shape).requires_grad_(True)
            answer = encoder(x)
            for k in range(z.shape[1]):
                (row,) = torch.autograd.grad(answer[:, k].sum(), x, retain_graph=True)
                columns.append(row.flatten(1))
        backward = torch.stack(columns, dim=1)
    eye, d = torch.eye(z.shape[1]).to(z), z.shape[1]

    def size(matrices: torch.Tensor) -> float:
        return float((matrices.square().sum(dim=(1, 2)).mean() / d).sqrt())

    return {
        "decoder": size(forward.mT @ forward - eye),
        "encoder": size(backward @ backward.mT - eye),
        "pseudo_inverse": size(backward - forward.mT),
    }
