"""What is made of an output: exports, progress, the rows of a gallery and their images."""
