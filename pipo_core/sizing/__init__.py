"""What a training needs of the machine and of its model, told before it starts: for plans alone."""
