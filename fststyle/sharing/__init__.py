"""A model for others: its file, a model card and pictures, in a folder or on the Hugging Face Hub."""

from fststyle.sharing.push import prepare, push

__all__ = ["prepare", "push"]
