"""Everything with layers. Nothing is imported here: what applies a style must not load an encoder."""
