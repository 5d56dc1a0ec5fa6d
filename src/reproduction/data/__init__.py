"""The data sets that the experiments train on."""
