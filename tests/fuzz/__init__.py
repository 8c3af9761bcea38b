"""`tox run -e fuzz`: hostile bodies on the whole way from a request to what is sent of its trace."""
