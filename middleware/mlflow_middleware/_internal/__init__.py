"""What several rooms share; not for import by apps."""
