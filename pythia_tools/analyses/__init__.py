"""The analyses, a folder each; none imports another."""
