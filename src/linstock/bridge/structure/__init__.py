"""Structure: bodies of calls become module classes with fields."""
