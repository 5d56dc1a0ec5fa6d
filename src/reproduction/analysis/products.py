"""What a training with every parameter as a product is compared by: accuracy, sparsity, time and memory (Figure 7)."""

from __future__ import annotations

import xarray as xr

from reproduction.analysis.runs import of_finished

TUNED = "dcs, tuned"
"""What products are called in a data set that were trained with a learning rate of their own."""


def beside(dataset: xr.Dataset, tuned: xr.Dataset) -> xr.Dataset:
    """Return results with those of products that were trained with a learning rate of their own.

    Args:
        dataset: results of the dcs_resnet experiment.
        tuned: of the same networks, parameterization ``dcs`` alone.

    Returns:
        The first data set with a parameterization more, :data:`TUNED`.
    """
    return xr.concat(
        [dataset, tuned.assign_coords(parameterization=[TUNED])],
        dim="parameterization",
        data_vars="minimal",
        join="exact",
        combine_attrs="override",
    )


def comparison(dataset: xr.Dataset) -> xr.Dataset:
    """Return what figure and table say of each training, NaN where it did not finish.

    Args:
        dataset: results of the dcs_resnet experiment.

    Returns:
        ``test_accuracy``, ``pruned_test_accuracy``, ``initial_sparsity``, ``sparsity``, ``epoch_seconds`` and
        ``peak_memory`` (with ``batch_size``) with dimensions (parameterization, seed).
    """
    done = of_finished(dataset)
    first, last = done.isel(epoch=0, drop=True), done.isel(epoch=-1, drop=True)
    return xr.Dataset(
        {
            "test_accuracy": last["test_accuracy"],
            "pruned_test_accuracy": done["pruned_test_accuracy"],
            "initial_sparsity": first["sparsity"],
            "sparsity": last["sparsity"],
            "epoch_seconds": epoch_seconds(done, "epoch"),
            "peak_memory": done["peak_memory"],
        }
    )


def epoch_seconds(dataset: xr.Dataset, *dims: str) -> xr.DataArray:
    """Return the median seconds of an epoch's steps over dimensions; epoch 0 is before training and does not count."""
    found: xr.DataArray = dataset["epoch_seconds"].isel(epoch=slice(1, None)).median(dims)
    return found
