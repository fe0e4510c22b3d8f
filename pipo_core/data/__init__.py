"""Problems, teacher rollouts, and the training sets built from them."""
