"""`tox run -e fuzz`: hostile bodies, all the way from a request to its encoded trace."""
