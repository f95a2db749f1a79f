"""Attacks that walk in front of a differentiable map: the network behind a projection, or behind a decoder."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from manifoldkit.attacks._input import read_bounds, read_module
from manifoldkit.attacks.constraints import Constraint
from manifoldkit.attacks.pgd import BALLS, PGD
from manifoldkit.attacks.tangent import choose
from manifoldkit.exceptions import MedialAxisWarning
from manifoldkit.geometry.protocol import LabelledManifold, Manifold

__all__ = ["LatentPGD", "ProjectionAttack"]


class _Pullback(Constraint):
    """A ball of points u that the network sees as images ``phi(u)``, clipped to the bounds.

    Parameters
    ----------
    ball : Constraint
        Where the u may be.
    phi : callable
        (u, members) -> images, differentiable by u.
    enter : callable
        images -> u.
    members : Tensor of shape (B,) or None
    bounds : (low, high) or None
        Of the images.
    """

    def __init__(
        self,
        ball: Constraint,
        phi: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
        enter: Callable[[torch.Tensor], torch.Tensor],
        members: torch.Tensor | None,
        bounds: tuple[float, float] | None,
    ) -> None:
        self.ball, self.phi, self.members, self.bounds = ball, phi, members, bounds
        self._enter = enter

    def start(self) -> torch.Tensor:
        # A new tensor: what the network sees there is not the image, and the attack compares by identity.
        return self.ball.start().clone()

    def random_start(self, generator: torch.Generator) -> torch.Tensor:
        return self.ball.random_start(generator)

    def enter(self, images: torch.Tensor) -> torch.Tensor:
        return self.ball.enter(self._enter(images))

    def view(self, x: torch.Tensor) -> torch.Tensor:
        shown = self.phi(x, self.members)
        return shown if self.bounds is None else shown.clamp(*self.bounds)

    def direction(self, x: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        return self.ball.direction(x, gradient)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return self.ball.project(x)

    def select(self, keep: torch.Tensor) -> None:
        self.ball.select(keep)
        self.members = None if self.members is None else self.members[keep]


class ProjectionAttack(PGD):
    r"""PGD through the projection onto a manifold: the network behind the projection is attacked, no tangents needed.

    With the projection :math:`\tilde\imath` as a differentiable layer, points u walk in a ball around the image by
    the gradient of :math:`L(f(\tilde\imath(u)), y)`, which the transposed Jacobian of the layer carries back. The
    adversary is :math:`\tilde\imath(u)`: as near to the manifold as projections are, whatever u is. So `eps` limits
    u, not the change of the image. Beside it, look at the projection alone
    (``OnManifoldPGD(model, manifold, steps=0)``): what it flips is not the doing of the gradient.

    Parameters
    ----------
    model : torch.nn.Module
        Maps images (B, ...) to logits (B, K).
    manifold : Manifold or LabelledManifold
        With `to_module` (:class:`~manifoldkit.geometry.DiffusionManifold`; each member of a fitted atlas), or with a
        differentiable `project` (the exact manifolds).
    eps : float or array of shape (B,)
        Radius of the ball around the image in which u walks.
    **options
        `alpha`, `steps`, `norm`, `random_start`, `restarts`, `targeted`, `loss`, `bounds`, `generator`, `record_path`,
        `momentum`, `step_control` and `early_stop` of :class:`PGD`.

    Raises
    ------
    TypeError
        If the projection of the manifold is not differentiable, or an argument has the wrong type.

    Examples
    --------
    >>> from manifoldkit.geometry.exact import Circle
    >>> model = torch.nn.Linear(2, 2, bias=False)  # class 0 is x > y
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> attack = ProjectionAttack(model, Circle(), eps=1.0, alpha=0.1, norm=2, bounds=None)
    >>> result = attack.run(torch.tensor([[1.2, 0.0]]), torch.tensor([0]))
    >>> result.success.item(), abs(result.adversarial.norm().item() - 1) < 1e-6
    (True, True)
    """

    manifold: Manifold | LabelledManifold
    needs_manifold = True

    def __init__(self, model: torch.nn.Module, manifold: Manifold | LabelledManifold, eps: Any, **options: Any) -> None:
        super().__init__(model, eps, manifold=manifold, **options)

    def _bind(
        self,
        images: torch.Tensor,
        eps: torch.Tensor | None,
        manifold_labels: torch.Tensor | None,
        generator: torch.Generator,
    ) -> Constraint:
        ball = super()._bind(images, eps, manifold_labels, generator)
        layers: dict[Any, torch.nn.Module] = {}  # made anew: the manifold may have been fitted again

        def projected(u: torch.Tensor, members: torch.Tensor | None) -> torch.Tensor:
            return self._projected(u, members, layers)

        return _Pullback(ball, projected, lambda x: x, manifold_labels, self.bounds)

    def _projected(
        self, u: torch.Tensor, members: torch.Tensor | None, layers: dict[Any, torch.nn.Module]
    ) -> torch.Tensor:
        with warnings.catch_warnings():  # a walk may cross the medial axis, as in ManifoldConstraint
            warnings.simplefilter("ignore", MedialAxisWarning)
            if members is not None and hasattr(self.manifold, "manifolds_"):
                shown: torch.Tensor = self._through_atlas(u, members, layers)
            elif members is None and hasattr(self.manifold, "to_module"):
                shown = _layer(layers, None, self.manifold)(u)
            else:
                shown = choose(self.manifold, members).project(u)
        if u.requires_grad and not shown.requires_grad:
            raise TypeError(
                f"the projection of {type(self.manifold).__name__} is not differentiable: give a manifold with "
                "to_module, or whose project keeps the graph of a tensor that requires grad"
            )
        return shown

    def _through_atlas(
        self, u: torch.Tensor, members: torch.Tensor, layers: dict[Any, torch.nn.Module]
    ) -> torch.Tensor:
        atlas: Any = self.manifold
        labels = members.cpu().numpy()
        parts, order = [], []
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            member = atlas.manifolds_[int(np.flatnonzero(atlas.classes_ == label)[0])]
            chosen = torch.from_numpy(rows).to(u.device)
            parts.append(_layer(layers, label, member)(u[chosen]))
            order.append(chosen)
        return torch.cat(parts)[torch.cat(order).argsort()]


def _layer(layers: dict[Any, torch.nn.Module], key: Any, manifold: Any) -> torch.nn.Module:
    """The projection as a layer, made once."""
    if key not in layers:
        layers[key] = manifold.to_module()
    return layers[key]


class LatentPGD(PGD):
    r"""PGD on the codes of a generative model: on-manifold adversaries of a learned decoder.

    .. math:: \max_\zeta L(f(\mathrm{dec}(z + \zeta)), y), \qquad z = \mathrm{enc}(x), \quad \|\zeta\| \leq \epsilon,
              \quad z + \zeta \in \text{box}

    The walk starts at ``dec(enc(x))``, not at x: what the reconstruction alone breaks is a success of zero steps.

    Parameters
    ----------
    model : torch.nn.Module
        Maps images (B, ...) to logits (B, K).
    decoder : torch.nn.Module
        Maps codes (B, ...) to images, differentiable, of as many entries as those attacked, to whose shape they are
        brought; class-specific decoders are attacked one class at a time.
    encoder : torch.nn.Module
        Maps images to codes. Decoder and encoder are left as they were, as is the model.
    eps : float or array of shape (B,), default=0.3
        Radius of the ball of codes, in the units of the codes.
    box : (low, high) or None, default=None
        Range of the entries of a code, (-2, 2) in the source. A code outside is moved into it before the walk.
    bounds : (low, high) or None, default=(0, 1)
        Range of valid image entries; decoded images are clipped to it.
    **options
        `alpha`, `steps`, `norm` (of codes), `random_start`, `restarts`, `targeted`, `loss`, `generator`, `manifold`,
        `record_path`, `momentum`, `step_control` and `early_stop` of :class:`PGD`.

    References
    ----------
    .. [1] Stutz, Hein and Schiele, "Disentangling adversarial robustness and generalization", CVPR 2019.

    Examples
    --------
    >>> class OnDiagonal(torch.nn.Module):
    ...     def forward(self, z):
    ...         return torch.cat([z, 1 - z], dim=1)
    >>> class FirstEntry(torch.nn.Module):
    ...     def forward(self, x):
    ...         return x[:, :1]
    >>> model = torch.nn.Linear(2, 2, bias=False)  # class 0 is x > y
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> attack = LatentPGD(model, OnDiagonal(), FirstEntry(), eps=0.5, alpha=0.125)
    >>> attack(torch.tensor([[0.75, 0.25]]), torch.tensor([0]))
    tensor([[0.3750, 0.6250]])
    """

    decoder: torch.nn.Module
    encoder: torch.nn.Module
    box: tuple[float, float] | None
    eps_of_images = False

    def __init__(
        self,
        model: torch.nn.Module,
        decoder: torch.nn.Module,
        encoder: torch.nn.Module,
        eps: Any = 0.3,
        *,
        box: tuple[float, float] | None = None,
        bounds: tuple[float, float] | None = (0, 1),
        **options: Any,
    ) -> None:
        super().__init__(model, eps, bounds=bounds, **options)
        self._store(decoder=decoder, encoder=encoder, box=box)

    def _read(self, name: str, value: Any) -> Any:
        match name:
            case "decoder" | "encoder":
                return read_module(value, name)
            case "box":
                return read_bounds(value, name)
        return super()._read(name, value)

    def _modules(self) -> tuple[torch.nn.Module, ...]:
        return self.model, self.decoder, self.encoder

    def _bind(
        self,
        images: torch.Tensor,
        eps: torch.Tensor | None,
        manifold_labels: torch.Tensor | None,
        generator: torch.Generator,
    ) -> Constraint:
        assert eps is not None
        ball = BALLS[self._norm](self._encode(images), eps, self.box)
        shape = images.shape[1:]

        def decoded(codes: torch.Tensor, members: torch.Tensor | None) -> torch.Tensor:
            shown = self._decode(codes)
            if shown[0].numel() != shape.numel():
                raise ValueError(
                    f"the decoder must return images of shape {tuple(shape)}, those attacked, got "
                    f"{tuple(shown.shape[1:])}"
                )
            return shown.reshape(-1, *shape)  # (B, 28, 28) and (B, 1, 28, 28) would broadcast to all pairs

        return _Pullback(ball, decoded, self._encode, None, self.bounds)

    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        codes = self.encoder(images)
        if not isinstance(codes, torch.Tensor) or codes.ndim < 2 or len(codes) != len(images):
            what = tuple(codes.shape) if isinstance(codes, torch.Tensor) else type(codes).__name__
            raise ValueError(
                f"the encoder must return codes ({len(images)}, ...), got {what}: wrap it in a Module that returns the "
                "codes alone"
            )
        if not torch.isfinite(codes).all():
            raise ValueError("the encoder returns NaN or infinity: fit it on data like these images")
        codes = codes.detach()
        return codes if self.box is None else codes.clamp(*self.box)

    def _decode(self, u: torch.Tensor) -> torch.Tensor:
        images = self.decoder(u)
        if not isinstance(images, torch.Tensor) or len(images) != len(u):
            what = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
            raise ValueError(f"the decoder must return images ({len(u)}, ...), got {what}")
        return images
