"""What a training needs of the machine's GPUs, told before it starts: for plans alone."""
