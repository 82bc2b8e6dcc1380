"""Layer pairs: torch layers and their Linen twins, as rows that are read both ways."""
