"""Image preprocessing: from a decoded image to the tensor that the CNN reads."""
