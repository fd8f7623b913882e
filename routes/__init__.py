"""One module of routes for each thing that has them."""
