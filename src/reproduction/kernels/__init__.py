"""Compiled loops of the batch-1 simulations. One file per experiment."""
