"""All that touches Snakemake's inside."""
