"""How good predictions are: the published rules, and the libraries that implement them."""
