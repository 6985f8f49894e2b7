"""What every other room stands on: errors, files, progress, manifests, tables, statistics, kept results."""
