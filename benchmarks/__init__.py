"""Speed side by side with plain PyTorch, each work measured in one run."""
