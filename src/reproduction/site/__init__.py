"""The page: one folder that opens from disk and from any static host, without network."""
