"""What readers see: figures, the report, the gallery, docs/results.md."""
