"""Distil a large timm image classifier into a small one.

docs/design.md has its folders, one line per file. Import what you need from its modules; this file
stays empty so that importing one module never loads the rest.
"""
