"""From the configuration to result files: points, jobs, the store, and how Snakemake is used."""
