"""The experiments of the paper, one module each. Importing one is cheap: heavy imports happen when it runs."""
