"""Taking paths, names, addresses and tokens out of what is shown or shared."""
