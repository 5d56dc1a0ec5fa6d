"""Mirror symmetries of any network: find them, watch it collapse onto them, constrain parameters by them.

After Liu Ziyin, "Symmetry Induces Structure and Constraint of Learning", ICML 2024: where a loss has a mirror symmetry,
ℓ(w) = ℓ((I - 2OOᵀ)w), the place Oᵀw = 0 is one that gradients cannot leave, and that weight decay or gradient noise
pull towards. Rescaling gives sparsity, rotation low rank, permutation identical neurons::

    import torch, mirrorsym

    x = torch.randn(64, 8)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    watch = mirrorsym.watch(model, x, every=500)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.03)
    for step in range(1000):
        optimizer.zero_grad()
        (model(x) - x[:, :1]).square().mean().backward()
        optimizer.step()
        watch.step()
    print(watch.summary())  # one or two of the 16 hidden neurons are different, the others are their copies

It needs numpy and torch. Importing it costs nothing until a name is used. What there is, by what one does with it:

==========================  ============================================================================================
Find symmetries             find_symmetries, holds; Symmetry, Slot
Watch a network collapse    watch; CollapseMonitor
Forecast a collapse         forecast; Outlook, Forecast; forecast_curve; Curve, SignChange
Compress a network          compress; Compression
Break a symmetry            break_symmetry; Moved
Constrain a network         constrain, constrain_all, release, parameter_groups, effective_parameters, plain_state_dict,
                            load_plain_state_dict; Hadamard, Unit, MirrorDCS, DCS, ties
Align two networks          align, interpolate
Mirrors                     Mirror, rescaling_mirrors, rotation_mirror, double_rotation_mirror, permutation_mirror,
                            identity_mirror, sectors, coupling
Stability                   lyapunov_exponent, lyapunov_spectrum, second_order_critical_learning_rate, gamma_0, gamma_1
Measures                    rank, sparsity, weight_distance, correlation, homogeneous_pairs, clusters
==========================  ============================================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mirrorsym.aligning import align as align
    from mirrorsym.aligning import interpolate as interpolate
    from mirrorsym.breaking import Moved as Moved
    from mirrorsym.breaking import break_symmetry as break_symmetry
    from mirrorsym.compression import Compression as Compression
    from mirrorsym.compression import compress as compress
    from mirrorsym.constraining import constrain as constrain
    from mirrorsym.constraining import constrain_all as constrain_all
    from mirrorsym.constraining import effective_parameters as effective_parameters
    from mirrorsym.constraining import load_plain_state_dict as load_plain_state_dict
    from mirrorsym.constraining import parameter_groups as parameter_groups
    from mirrorsym.constraining import plain_state_dict as plain_state_dict
    from mirrorsym.constraining import release as release
    from mirrorsym.constraints import DCS as DCS
    from mirrorsym.constraints import Hadamard as Hadamard
    from mirrorsym.constraints import MirrorDCS as MirrorDCS
    from mirrorsym.constraints import Unit as Unit
    from mirrorsym.constraints import ties as ties
    from mirrorsym.curves import Curve as Curve
    from mirrorsym.curves import SignChange as SignChange
    from mirrorsym.curves import forecast_curve as forecast_curve
    from mirrorsym.forecasting import Forecast as Forecast
    from mirrorsym.forecasting import Outlook as Outlook
    from mirrorsym.forecasting import forecast as forecast
    from mirrorsym.measures import clusters as clusters
    from mirrorsym.measures import correlation as correlation
    from mirrorsym.measures import homogeneous_pairs as homogeneous_pairs
    from mirrorsym.measures import rank as rank
    from mirrorsym.measures import sparsity as sparsity
    from mirrorsym.measures import weight_distance as weight_distance
    from mirrorsym.mirrors import Mirror as Mirror
    from mirrorsym.mirrors import coupling as coupling
    from mirrorsym.mirrors import double_rotation_mirror as double_rotation_mirror
    from mirrorsym.mirrors import identity_mirror as identity_mirror
    from mirrorsym.mirrors import permutation_mirror as permutation_mirror
    from mirrorsym.mirrors import rescaling_mirrors as rescaling_mirrors
    from mirrorsym.mirrors import rotation_mirror as rotation_mirror
    from mirrorsym.mirrors import sectors as sectors
    from mirrorsym.stability import gamma_0 as gamma_0
    from mirrorsym.stability import gamma_1 as gamma_1
    from mirrorsym.stability import lyapunov_exponent as lyapunov_exponent
    from mirrorsym.stability import lyapunov_spectrum as lyapunov_spectrum
    from mirrorsym.stability import second_order_critical_learning_rate as second_order_critical_learning_rate
    from mirrorsym.symmetries import Slot as Slot
    from mirrorsym.symmetries import Symmetry as Symmetry
    from mirrorsym.symmetries import find_symmetries as find_symmetries
    from mirrorsym.symmetries import holds as holds
    from mirrorsym.watching import CollapseMonitor as CollapseMonitor
    from mirrorsym.watching import watch as watch

_NAMES = {
    "Find symmetries": {"symmetries": "find_symmetries holds Symmetry Slot"},
    "Watch a network collapse": {"watching": "watch CollapseMonitor"},
    "Forecast a collapse": {"forecasting": "forecast Outlook Forecast", "curves": "forecast_curve Curve SignChange"},
    "Compress a network": {"compression": "compress Compression"},
    "Break a symmetry": {"breaking": "break_symmetry Moved"},
    "Constrain a network": {
        "constraining": "constrain constrain_all release parameter_groups effective_parameters plain_state_dict "
        "load_plain_state_dict",
        "constraints": "Hadamard Unit MirrorDCS DCS ties",
    },
    "Align two networks": {"aligning": "align interpolate"},
    "Mirrors": {
        "mirrors": "Mirror rescaling_mirrors rotation_mirror double_rotation_mirror permutation_mirror identity_mirror "
        "sectors coupling"
    },
    "Stability": {
        "stability": "lyapunov_exponent lyapunov_spectrum second_order_critical_learning_rate gamma_0 gamma_1"
    },
    "Measures": {"measures": "rank sparsity weight_distance correlation homogeneous_pairs clusters"},
}
"""The public names by what one does with them, and by the module that defines them; the page of the API has them so."""
_MODULES = {name: module for verb in _NAMES.values() for module, names in verb.items() for name in names.split()}
"""Where each public name is defined."""

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is used first.

    Raises:
        AttributeError: if there is no such name.
        ImportError: if numpy or torch, which it needs, is missing.
    """
    if name not in _MODULES:
        raise AttributeError(f"module 'mirrorsym' has no attribute {name!r}; it has {', '.join(__all__)}")
    try:
        return getattr(importlib.import_module(f"mirrorsym.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("numpy", "torch"):
            raise
        raise ImportError(f"mirrorsym.{name} needs {error.name}: pip install {error.name}") from None


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
