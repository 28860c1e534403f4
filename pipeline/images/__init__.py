"""Decodes images: formats, decoding by Pillow, metadata, thumbnails."""
