"""Tables of ratings and texts: found, fetched, checked, read."""
