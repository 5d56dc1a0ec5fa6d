"""The explorer: one page on the stored results, without a server or network."""
