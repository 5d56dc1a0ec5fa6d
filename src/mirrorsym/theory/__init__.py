"""Checks of the paper's theorems, corollaries and formulas on random instances, in general position and at edges."""
