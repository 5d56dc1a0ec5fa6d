"""Networks that collapsed, compressed, beside Torch-Pruning: the table of docs/compress.md."""
