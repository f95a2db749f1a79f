"""Attacks on image classifiers, in balls and along manifolds.

Construct with numbers, call with data: ``adversarial = PGD(model, eps=0.3)(images, labels)``; ``run`` gives the
details. Everything common to them is said at :class:`Attack`.
"""

from manifoldkit.attacks._model import ProbabilitiesWarning
from manifoldkit.attacks.base import Attack
from manifoldkit.attacks.cells import CellPGD, SymbolChanges, symbol_changes
from manifoldkit.attacks.evaluation import Evaluation, evaluate
from manifoldkit.attacks.explanation import Explanation, explain
from manifoldkit.attacks.fgsm import FGSM
from manifoldkit.attacks.on_manifold import OnManifoldPGD, RandomTangentWalk
from manifoldkit.attacks.patch import PatchPGD, rectangle_mask
from manifoldkit.attacks.patch_search import PatchSearch
from manifoldkit.attacks.pgd import PGD
from manifoldkit.attacks.pullback import LatentPGD, ProjectionAttack
from manifoldkit.attacks.result import AttackResult
from manifoldkit.attacks.subspace import SubspacePGD
from manifoldkit.attacks.tangent import tangent_normal_split
from manifoldkit.attacks.tnar import tnar_normal, tnar_tangent
from manifoldkit.attacks.training import TrainingHistory, adversarial_step, adversarial_training

__all__ = [
    "FGSM",
    "PGD",
    "Attack",
    "AttackResult",
    "CellPGD",
    "Evaluation",
    "Explanation",
    "LatentPGD",
    "OnManifoldPGD",
    "PatchPGD",
    "PatchSearch",
    "ProbabilitiesWarning",
    "ProjectionAttack",
    "RandomTangentWalk",
    "SubspacePGD",
    "SymbolChanges",
    "TrainingHistory",
    "adversarial_step",
    "adversarial_training",
    "evaluate",
    "explain",
    "rectangle_mask",
    "symbol_changes",
    "tangent_normal_split",
    "tnar_normal",
    "tnar_tangent",
]
