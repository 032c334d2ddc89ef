"""One file per architecture, and nothing but the architecture."""
