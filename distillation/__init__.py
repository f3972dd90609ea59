"""Distil a large timm image classifier into a small one.

This package is the library: it knows nothing of DVC or of the pipeline's stages. Import what you
need from its modules; this file stays empty so that importing one module never loads the rest.
"""
