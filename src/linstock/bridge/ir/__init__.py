"""The intermediate program: expressions, bodies and module classes that know no library."""
