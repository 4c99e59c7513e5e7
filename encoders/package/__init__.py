"""Model packages: the folder, its manifest, its quantile tables."""
