"""What theory predicts for the paper's models, to draw on the axes of what was measured."""
