"""All that touches Snakemake's inside, or knows what it leaves in files."""
