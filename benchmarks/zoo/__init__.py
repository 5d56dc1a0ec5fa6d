"""A zoo of networks that people have, and an independent check of the symmetries that are found in them."""
