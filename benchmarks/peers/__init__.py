"""posttrain's objectives beside those of other libraries, on the same random tensors."""
