"""Names of parameters: what ``DataParallel`` and ``torch.compile`` put before them does not count."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_WRAPPERS = ("module", "_orig_mod")


def plain(name: str) -> str:
    """Return a parameter's name without the wrappers' ``module.`` and ``_orig_mod.``."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def unparametrized(name: str) -> str:
    """Return ``a.weight`` for ``a.parametrizations.weight.original0``: the parameter that a tensor is a factor of."""
    owner, found, rest = f".{name}".partition(".parametrizations.")
    return f"{owner}.{rest.partition('.')[0]}"[1:] if found else name


def lookup(state: Mapping[str, Tensor], name: str) -> Tensor:
    """Return the tensor of a name, under which wrappers it may be.

    Raises:
        KeyError: if there is none.
    """
    if name in state:
        return state[name]
    wanted = plain(name)
    for other, tensor in state.items():
        if plain(other) == wanted:
            return tensor
    raise KeyError(f"there is no parameter {name!r}; model.named_parameters() has their names")
