"""The autoencoders that an isometric one is compared with, as options of the same class."""

from __future__ import annotations

from typing import Any

from .penalties import DecoderContraction, EncoderContraction, WeightDecay

__all__ = ["BASELINES", "baseline"]

#: Name: usual weight of the regulariser (for DAE the noise), None for no regulariser.
BASELINES: dict[str, float | None] = {
    "AE": None,
    "AE + weight decay": 1e-5,
    "CAE": 0.01,
    "TCAE": 0.01,
    "RAE-GP": 0.01,
    "DAE": 0.1,
}


def baseline(name: str, weight: float | None = None) -> dict[str, Any]:
    """Options that make :class:`IsometricAutoencoder` another autoencoder of the literature.

    Parameters
    ----------
    name : str
        "AE" (plain), "AE + weight decay", "CAE" (contractive encoder), "TCAE" (that, with tied weights), "RAE-GP"
        (contractive decoder) or "DAE" (denoising).
    weight : float, optional
        Weight of the regulariser, or standard deviation of the noise; that of `BASELINES` by default.

    Raises
    ------
    ValueError
        If the name is unknown, or a weight is given for the plain autoencoder.

    Examples
    --------
    >>> from manifoldkit.isometry import IsometricAutoencoder, baseline
    >>> IsometricAutoencoder(2, **baseline("CAE", 0.1)).penalties
    (EncoderContraction(0.1),)
    """
    if name not in BASELINES:
        raise ValueError(f"name must be one of {tuple(BASELINES)}, got {name!r}")
    usual = BASELINES[name]
    if usual is None:
        if weight is not None:
            raise ValueError(f"the plain autoencoder has no weight, got {weight!r}")
        return {"penalties": ()}
    weight = usual if weight is None else weight
    options: dict[str, dict[str, Any]] = {
        "AE + weight decay": {"penalties": (WeightDecay(weight),)},
        "CAE": {"penalties": (EncoderContraction(weight),)},
        "TCAE": {"penalties": (EncoderContraction(weight),), "decoder": "tied"},
        "RAE-GP": {"penalties": (DecoderContraction(weight),)},
        "DAE": {"penalties": (), "corruption": weight},
    }
    return options[name]
