"""Neural isometries: a latent space in which an unknown transformation of images acts by an isometry."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._modules import evaluating
from ..datasets._validation import check_count, check_flag, check_real
from ._input import fresh
from .isometry_losses import IsometryLosses, equivariance_loss, multiplicity_loss
from .learned_operator import LearnedOperator, Spectrum, commutation_mask
from .polar import polar

__all__ = ["NeuralIsometry"]


class NeuralIsometry(nn.Module):
    r"""Encoder, learned operator and decoder, trained so that transformations of images become isometries of codes.

    An encoder turns an image into c functions over a grid of N places; their coefficients in the k eigenfunctions of a
    learned operator :math:`\Omega = (M, \Phi, \Lambda)` are the code, :math:`A = \Phi^\top M E(\psi)`, (k, c). Two
    views of one image with the codes A and B are joined by the isometry

    .. math:: \tau = \operatorname{polar}(P \odot B A^\top), \qquad P_{ij} = e^{-|\lambda_i - \lambda_j|},

    the orthogonal map that fits best among those that (softly) commute with the operator, as rigid motions do with the
    Laplacian. Training minimises

    .. math:: L_R + \alpha L_E + \beta L_M,

    with the transport :math:`L_R = \langle |D(\Phi\tau A) - T\psi| \rangle + \langle |D(\Phi\tau^\top B) - \psi|
    \rangle`, :math:`L_E` of :func:`equivariance_loss` and :math:`L_M` of :func:`multiplicity_loss`. Three views add the
    transport from the first to the third by the product of the isometries between neighbours, and back, to
    :math:`L_R`.

    Parameters
    ----------
    grid : (int, int)
        Height and width of the latent grid; N is their product. It must divide the images.
    n_eigenfunctions : int
        k, at most N.
    encoder, decoder : nn.Module, optional
        (B, C, H, W) to (B, c, *grid), and back; both or none. Without them the channels of an image, of the size of the
        grid, are themselves the functions. :func:`residual_pair` makes a pair.
    eigenvalues : {"cumulative", "clustered"}, default "cumulative"
        Of :class:`LearnedOperator`.
    special : bool, default False
        Isometries of determinant +1 only.
    unit_codes : bool, default False
        Scale each code to mean square 1. Isometries keep the size of codes; and the equivariance loss can't be made
        small by making codes small.
    spectral_dropout : float, default 0.0
        Share of the samples, in training mode, that are decoded from a random number of leading coefficients; it puts
        what matters most for the picture first.
    generator : torch.Generator, optional
        Source of the operator's initial values and of the spectral dropout; None, as in copies and pickles, is a fresh
        one.

    Attributes
    ----------
    mass_ : Tensor (N,)
    eigenfunctions_ : Tensor (N, k)
        In columns, orthonormal with respect to the mass.
    eigenvalues_ : Tensor (k,)
        Ascending, >= 0.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.

    References
    ----------
    .. [1] T. Mitchel, M. Taylor and V. Sitzmann. "Neural isometries: taming transformations for equivariant ML".
       NeurIPS 2024, equations 5 to 13. `unit_codes` is our addition.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import NeuralIsometry
    >>> generator = torch.Generator().manual_seed(0)
    >>> model = NeuralIsometry((4, 4), 16, generator=generator)
    >>> views = torch.randn(2, 8, 20, 4, 4, generator=generator)
    >>> losses = model(views)
    >>> losses.total(alpha=0.5, beta=0.1).backward()
    >>> codes = model.encode(views[0])
    >>> codes.shape, model.isometry(codes, model.encode(views[1])).shape
    (torch.Size([8, 16, 20]), torch.Size([8, 16, 16]))
    """

    def __init__(
        self,
        grid: tuple[int, int],
        n_eigenfunctions: int,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        *,
        eigenvalues: Literal["cumulative", "clustered"] = "cumulative",
        special: bool = False,
        unit_codes: bool = False,
        spectral_dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        try:
            height, width = grid
        except (TypeError, ValueError) as error:
            raise TypeError(f"grid must be a pair (height, width), got {grid!r}") from error
        self.grid = check_count(height, "grid[0]"), check_count(width, "grid[1]")
        if (encoder is None) != (decoder is None):
            raise ValueError("encoder and decoder come together: pass both, or none for functions on the grid itself")
        for name, network in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(network, nn.Module | None):
                raise TypeError(f"{name} must be a torch.nn.Module or None, got {type(network).__name__}")
        self.encoder = nn.Identity() if encoder is None else encoder
        self.decoder = nn.Identity() if decoder is None else decoder
        self.special = check_flag(special, "special")
        self.unit_codes = check_flag(unit_codes, "unit_codes")
        self.spectral_dropout = check_real(spectral_dropout, "spectral_dropout", 0.0, 1.0)
        self.generator = generator
        self.operator = LearnedOperator(
            self.grid[0] * self.grid[1], n_eigenfunctions, eigenvalues=eigenvalues, generator=generator
        )

    @property
    def mass_(self) -> Tensor:
        """Mass of each place of the grid, (N,)."""
        return self._spectrum().mass

    @property
    def eigenfunctions_(self) -> Tensor:
        """Eigenfunctions of the learned operator in the columns of (N, k)."""
        return self._spectrum().eigenfunctions

    @property
    def eigenvalues_(self) -> Tensor:
        """Eigenvalues of the learned operator (k,), ascending."""
        return self._spectrum().eigenvalues

    def encode(self, images: Tensor) -> Tensor:
        """Codes (B, k, c) of images (B, C, H, W); the networks run in evaluation mode, whatever their mode is."""
        with evaluating(self):
            return self._encode(images, self.operator())

    def decode(self, codes: Tensor) -> Tensor:
        """Images (B, C, H, W) of codes (B, k, c), in evaluation mode."""
        spectrum = self.operator()
        k = len(spectrum.eigenvalues)
        if not isinstance(codes, Tensor) or codes.ndim != 3 or codes.shape[1] != k:
            got = tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
            raise ValueError(f"codes must be a tensor (B, {k}, c), got {got}: encode makes them")
        with evaluating(self):
            return self._decode(codes, spectrum)

    def isometry(self, first: Tensor, second: Tensor) -> Tensor:
        """Orthogonal maps (B, k, k) that carry the codes `first` (B, k, c) to `second`, as far as the operator allows.

        The transposed map carries `second` to `first`.
        """
        mask = commutation_mask(self.operator().eigenvalues)
        shapes = [tuple(code.shape) if isinstance(code, Tensor) else type(code).__name__ for code in (first, second)]
        if shapes[0] != shapes[1] or len(shapes[0]) != 3 or shapes[0][1] != len(mask):
            raise ValueError(
                f"codes must be tensors of one shape (B, {len(mask)}, c), got {shapes[0]} and {shapes[1]}: encode both "
                "views with this model"
            )
        return self._isometry(first, second, mask)

    def forward(self, views: Tensor) -> IsometryLosses:
        """Losses of pairs (2, B, C, H, W), triplets (3, B, C, H, W), or a batch (2 B, C, H, W) of pairs in a row.

        The networks run in their own mode, so that they can be trained. In the last form, images 2 i and 2 i + 1 are
        views of one thing. Two or three batches of one shape in a tuple or list are pairs or triplets, too.
        """
        views = self._read_views(views)
        n_views, batch = views.shape[:2]
        spectrum = self.operator()
        codes = self._encode(views.flatten(0, 1), spectrum).unflatten(0, (n_views, batch))
        mask = commutation_mask(spectrum.eigenvalues)
        steps = self._isometry(codes[:-1].flatten(0, 1), codes[1:].flatten(0, 1), mask)
        equivariance = equivariance_loss(steps, codes[:-1].flatten(0, 1), codes[1:].flatten(0, 1))
        steps = steps.unflatten(0, (n_views - 1, batch))
        moved = [steps @ codes[:-1], steps.mT @ codes[1:]]
        targets = [views[1:], views[:-1]]
        if n_views == 3:
            across = steps[1] @ steps[0]
            moved.append(torch.stack([across @ codes[0], across.mT @ codes[2]]))
            targets.append(views[[2, 0]])
        decoded = self._decode(self._drop(torch.cat(moved).flatten(0, 1)), spectrum)
        # Each member of the list is a mean of its own; all have the same size but for the pair across.
        errors = (decoded.unflatten(0, (-1, batch)) - torch.cat(targets)).abs().flatten(1).mean(dim=1)
        transport = 2.0 * errors[: 2 * (n_views - 1)].mean()
        if n_views == 3:
            transport = transport + 2.0 * errors[2 * (n_views - 1) :].mean()
        return IsometryLosses(transport, equivariance, multiplicity_loss(spectrum.eigenvalues))

    def __getstate__(self) -> dict[str, Any]:
        # Torch's generators can't be pickled everywhere.
        return {**self.__dict__, "generator": None}

    def extra_repr(self) -> str:
        """Arguments that are no modules."""
        return f"grid={self.grid}, unit_codes={self.unit_codes}, spectral_dropout={self.spectral_dropout:g}"

    def _spectrum(self) -> Spectrum:
        with torch.no_grad():
            return self.operator()

    def _isometry(self, first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
        return polar(mask * (second @ first.mT), special=self.special)

    def functions(self, images: Tensor) -> Tensor:
        """Functions (B, N, c) on the grid that the encoder makes of images (B, C, H, W), in evaluation mode."""
        with evaluating(self):
            return self._functions(images)

    def _functions(self, images: Tensor) -> Tensor:
        self._check_images(images)
        latent = self.encoder(images)
        if latent.ndim != 4 or len(latent) != len(images) or tuple(latent.shape[2:]) != self.grid:
            raise ValueError(
                f"the encoder must give latents ({len(images)}, c, {self.grid[0]}, {self.grid[1]}), got "
                f"{tuple(latent.shape)} for images {tuple(images.shape)}: choose grid or encoder anew"
            )
        return latent.flatten(2).mT

    def _encode(self, images: Tensor, spectrum: Spectrum) -> Tensor:
        codes = spectrum.analyse(self._functions(images))
        if self.unit_codes:
            square = codes.square().mean(dim=(1, 2), keepdim=True)
            codes = codes * torch.rsqrt(square + torch.finfo(codes.dtype).eps)
        return codes

    def _decode(self, codes: Tensor, spectrum: Spectrum) -> Tensor:
        return self.decoder(spectrum.synthesise(codes).mT.unflatten(2, self.grid))

    def _drop(self, codes: Tensor) -> Tensor:
        """Spectral dropout: the leading coefficients of some samples, all of the others."""
        if not self.training or not self.spectral_dropout:
            return codes
        n, k = codes.shape[:2]
        self.generator = fresh(self.generator)
        draws = torch.rand(2, n, 1, generator=self.generator, device="cpu").to(codes.device)
        cut = draws[0] < self.spectral_dropout
        kept = 1 + (draws[1] * k).floor()  # 1 to k
        keep = ~cut | (torch.arange(k, device=codes.device) < kept)
        return codes * keep[..., None]

    def _check_images(self, images: Any) -> None:
        if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim != 4:
            got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"images must be a floating tensor (B, C, H, W), got {got}")
        height, width = images.shape[2:]
        if height % self.grid[0] or width % self.grid[1]:
            raise ValueError(
                f"grid {self.grid} does not divide images of {height} x {width}: pad them, or choose another grid"
            )
        place = self.operator.root_mass
        if images.dtype != place.dtype or images.device != place.device:
            raise ValueError(
                f"images are {images.dtype} on {images.device} and the model {place.dtype} on {place.device}: use "
                "images.to(model.mass_)"
            )
        if not torch.isfinite(images).all():
            raise ValueError("images contain NaN or infinity: remove or impute those entries first")

    def _read_views(self, views: Any) -> Tensor:
        if isinstance(views, list | tuple) and all(isinstance(view, Tensor) for view in views):
            shapes = [tuple(view.shape) for view in views]
            if len(views) not in (2, 3) or len(set(shapes)) > 1:
                raise ValueError(f"views must be two or three batches of one shape (B, C, H, W), got shapes {shapes}")
            views = torch.stack(list(views))
        if not isinstance(views, Tensor):
            raise TypeError(f"views must be a tensor, got {type(views).__name__}: stack views by torch.stack")
        if views.ndim == 4:
            if len(views) % 2:
                raise ValueError(
                    f"a batch of pairs in a row must have an even number of images, got {len(views)}: images 2 i and "
                    "2 i + 1 are views of one thing"
                )
            views = views.unflatten(0, (-1, 2)).transpose(0, 1)
        if views.ndim != 5 or len(views) not in (2, 3) or views.shape[1] == 0:
            raise ValueError(
                f"views must have shape (2, B, C, H, W) or (3, B, C, H, W), got {tuple(views.shape)}: pairs or triplets"
            )
        return views
